"""Files for clusters: Ray's schema, keys that the schema lets through, what listens where, EC2's mock, Slurm, KubeRay."""

import copy
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from cluster_checks import RAY_CLUSTER, ROOT, faults, provider_keys, read, start_faults, unknown_fields

FILES = ("cluster.yaml", "clusters/gcp.yaml", "clusters/on_premises.yaml")
SCRIPTS = ("clusters/node.sh", "clusters/slurm.sh")


@pytest.mark.parametrize("name", FILES)
def test_files_of_ray_up_hold_nothing_that_is_not_understood(name: str) -> None:
    assert faults(read(name)) == []


def _typo(config: dict[str, Any], path: str, key: str, wrong: str) -> None:
    for part in filter(None, path.split("/")):
        config = config[int(part) if part.isdigit() else part]  # type: ignore[index]
    if isinstance(config[key], str) and " " in wrong:
        config[key] = wrong
    else:
        config[wrong] = config.pop(key)


NODE = "available_node_types/worker/node_config"


@pytest.mark.parametrize(
    ("name", "path", "key", "wrong", "said"),
    [
        ("cluster.yaml", "", "idle_timeout_minutes", "idle_timeout_minute", "schema: Additional properties"),
        ("cluster.yaml", "auth", "ssh_user", "ssh_usr", "schema: Additional properties"),
        ("cluster.yaml", "available_node_types/worker", "min_workers", "min_worker", "schema: Additional properties"),
        ("cluster.yaml", "provider", "availability_zone", "availability_zon", "provider: nothing reads"),
        ("clusters/gcp.yaml", "provider", "cache_stopped_nodes", "cache_stoped_nodes", "provider: nothing reads"),
        ("cluster.yaml", NODE, "ImageId", "ImageID", 'Unknown parameter in input: "ImageID"'),
        ("cluster.yaml", f"{NODE}/BlockDeviceMappings/0/Ebs", "VolumeSize", "VolumSize", '"VolumSize"'),
        ("cluster.yaml", f"{NODE}/InstanceMarketOptions", "MarketType", "Market", '"Market"'),
        ("clusters/gcp.yaml", f"{NODE}/scheduling", "provisioningModel", "provisionModel", "no field scheduling.prov"),
        ("clusters/gcp.yaml", f"{NODE}/disks/0", "boot", "Boot", "no field disks.Boot"),
        ("cluster.yaml", "", "worker_start_ray_commands/1", "ray start --adress=x", "no option --adress"),
        (
            "cluster.yaml",
            "",
            "worker_start_ray_commands/1",
            "ray start --address=x --port=1",
            "--port is for ray start",
        ),
        ("cluster.yaml", "", "head_setup_commands/0", "bash ~/node.sh instal", "no step 'instal'"),
    ],
)
def test_a_typo_is_found_wherever_it_stands(name: str, path: str, key: str, wrong: str, said: str) -> None:
    config = read(name)
    *more, last = key.split("/")
    if more:
        config[more[0]][int(last)] = wrong
    else:
        _typo(config, path, key, wrong)
    found = faults(config)
    assert found and all(said in fault for fault in found), found


def test_provider_keys_are_read_from_ray() -> None:
    assert {"region", "availability_zone", "cache_stopped_nodes", "security_group"} <= provider_keys("aws")
    assert {"head_ip", "worker_ips", "external_head_ip"} <= provider_keys("local")
    assert "project_id" in provider_keys("gcp") and "project_id" not in provider_keys("aws")


@pytest.mark.parametrize("name", FILES)
def test_tokens_are_on_and_only_loopback_listens(name: str) -> None:
    """By Ray's defaults the rest of it listens inside the cluster's network, behind the token."""
    config = read(name)
    assert "RAY_AUTH_MODE=token" in config["metadata"]["settings"]
    assert "~/.ray/auth_token" in config["file_mounts"].values()
    (head,) = (text for text in config["head_start_ray_commands"] if "ray start" in text)
    assert "--head" in head and "--dashboard-host=127.0.0.1" in head
    assert "0.0.0.0" not in (ROOT / name).read_text()
    assert "mlflow server --host 127.0.0.1" in (ROOT / "clusters/node.sh").read_text()


def test_settings_reach_every_shell(tmp_path: Path) -> None:
    """The block of values, run as a host runs it: names and values arrive, $HOME is the host's."""
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    for name in FILES:
        subprocess.run(["bash", "-c", read(name)["metadata"]["settings"]], env=home, check=True)
        shown = subprocess.run(
            ["bash", "-c", ". ~/study.env; env"], env=home, check=True, capture_output=True, text=True
        )
        values = dict(line.split("=", 1) for line in shown.stdout.splitlines())
        assert values["FMM_STUDY_DATA"] == f"{tmp_path}/data"
        assert values["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
        assert values["PATH"].startswith(f"{tmp_path}/study/bin:")
        used = set(re.findall(r"\$(STUDY_\w+|FMM_\w+)", (ROOT / "clusters/node.sh").read_text()))
        assert used <= set(values), used - set(values)


@pytest.fixture
def ec2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A mock of EC2 and IAM, with a home folder for the key that Ray makes; nothing leaves this machine."""
    from moto import mock_aws

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "dummy")
    monkeypatch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    from ray.autoscaler._private.aws import config as aws
    from ray.autoscaler._private.aws import utils

    monkeypatch.setattr(aws, "time", SimpleNamespace(sleep=lambda _: None))  # Ray waits for IAM to settle
    for cached in (utils.resource_cache, utils.client_cache):
        cached.cache_clear()
    with mock_aws():
        import boto3

        yield boto3.client("ec2", region_name="us-west-2")


def _tags(name: str) -> dict[str, str]:
    from ray.autoscaler import tags

    return {tags.TAG_RAY_NODE_KIND: name, tags.TAG_RAY_LAUNCH_CONFIG: name, tags.TAG_RAY_USER_NODE_TYPE: name}


def test_aws_is_bootstrapped_and_hosts_are_created(ec2: Any) -> None:
    """As ``ray up`` does it, against the mock: an on-demand head, a spot worker with one GPU, SSH alone from outside."""
    from botocore.exceptions import ParamValidationError
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config

    config = prepare_config(read("cluster.yaml"))
    image = ec2.describe_images()["Images"][0]["ImageId"]
    for node_type in config["available_node_types"].values():
        node_type["node_config"]["ImageId"] = image
    config = AWSNodeProvider.fillout_available_node_types_resources(bootstrap_aws(config))
    types = config["available_node_types"]
    assert types["worker"]["resources"]["GPU"] == 1 and types["head"]["resources"]["CPU"] == 0
    assert (types["worker"]["min_workers"], types["worker"]["max_workers"]) == (0, 8)
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    lifecycles = {}
    for name in ("head", "worker"):
        (created,) = provider.create_node(types[name]["node_config"], _tags(name), 1)
        (instance,) = ec2.describe_instances(InstanceIds=[created])["Reservations"][0]["Instances"]
        lifecycles[name] = instance.get("InstanceLifecycle", "on demand")
        assert (
            instance["InstanceType"]
            == read("cluster.yaml")["available_node_types"][name]["node_config"]["InstanceType"]
        )
        assert instance["Placement"]["AvailabilityZone"] == "us-west-2a"
        group = ec2.describe_security_groups(GroupIds=[instance["SecurityGroups"][0]["GroupId"]])["SecurityGroups"][0]
        outside = [rule for rule in group["IpPermissions"] if rule["IpRanges"]]
        assert [(rule["FromPort"], rule["ToPort"], rule["IpProtocol"]) for rule in outside] == [(22, 22, "tcp")]
    assert lifecycles == {"head": "on demand", "worker": "spot"}
    wrong = types["worker"]["node_config"] | {"InstanceTyp": "g6.2xlarge"}
    with pytest.raises(ParamValidationError, match="InstanceTyp"):
        provider.create_node(wrong, _tags("worker"), 1)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_bash(name: str) -> None:
    subprocess.run(["bash", "-n", ROOT / name], check=True)


def test_a_step_that_is_not_there_and_the_cache_of_datasets(tmp_path: Path) -> None:
    script = str(ROOT / "clusters/node.sh")
    done = subprocess.run(["bash", script, "instal"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "usage: node.sh" in done.stderr
    shared, data = tmp_path / "shared", tmp_path / "data"
    values = os.environ | {"STUDY_SHARED": str(shared), "FMM_STUDY_DATA": str(data)}
    subprocess.run(["bash", script, "cache"], env=values, check=True)
    assert data.is_dir() and not list(data.iterdir())
    (shared / "data/set").mkdir(parents=True)
    (shared / "data/set/file").write_text("images")
    subprocess.run(["bash", script, "cache"], env=values, check=True)
    assert (data / "set/file").read_text() == "images"


def test_slurms_template_uses_options_that_ray_has() -> None:
    import typer
    from ray.scripts.symmetric_run import symmetric_run

    from study.cli.tools import app  # of which the others are imported

    text = (ROOT / "clusters/slurm.sh").read_text().replace("\\\n", "")
    options, entry = re.search(r"^srun ray symmetric-run (.*?) -- fmm-study run (.*)$", text, re.MULTILINE).groups()
    given = set(re.findall(r"--[\w-]+", options))
    own = given & {option for parameter in symmetric_run.params for option in parameter.opts}
    assert own == {"--address", "--min-nodes"}
    # every node, worker or head, gets the rest
    assert list(start_faults("ray start " + " ".join(sorted(given - own)))) == []
    assert list(start_faults("ray start --include-dashboard false")) and list(start_faults("ray start --num-cpu 1"))
    run = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    known = {option for parameter in run.params for option in parameter.opts}
    assert set(re.findall(r"--[\w-]+", entry)) <= known
    assert "RAY_AUTH_MODE=token" in text


def test_slurms_template_starts_what_it_says(tmp_path: Path) -> None:
    """Run with stand-ins for Slurm's and Ray's programs that note how they are called."""
    for name, answer in (
        ("scontrol", "echo n1; echo n2"),
        ("ray", "echo secret"),
        ("srun", f'echo "$@" > {tmp_path}/srun'),
    ):
        program = tmp_path / ".venv/bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{answer}\n")
        program.chmod(0o755)
    values = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2"}
    values |= {"SLURM_CPUS_PER_TASK": "16", "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_ID": "7", "HOME": str(tmp_path)}
    command = ["bash", str(ROOT / "clusters/slurm.sh"), "digits", "--set", "blocks=2"]
    env = os.environ | values
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert (tmp_path / "srun").read_text().split() == (
        "ray symmetric-run --address n1:6379 --min-nodes 2 --num-cpus 16 --num-gpus 4 --disable-usage-stats -- fmm-study "
        f"run digits --address n1:6379 --storage {tmp_path}/results --tracking-uri sqlite:////tmp/fmm-study-7.db "
        "--set blocks=2"
    ).split()
    assert "secret" not in done.stdout + done.stderr
    assert subprocess.run(command[:2], env=env, capture_output=True, text=True, check=False).returncode == 1


def kuberay() -> dict[str, Any]:
    documents = list(yaml.safe_load_all((ROOT / "clusters/kuberay.yaml").read_text()))
    assert [document["kind"] for document in documents] == ["PersistentVolumeClaim", "RayCluster"]
    return documents[1]


def test_kuberays_file() -> None:
    import ray

    cluster = kuberay()
    assert list(unknown_fields(cluster, RAY_CLUSTER)) == []
    spec = cluster["spec"]
    assert spec["rayVersion"] == re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    assert f"FROM rayproject/ray:{spec['rayVersion']}-" in (ROOT / "clusters/Dockerfile").read_text()
    assert ray.__version__ and spec["authOptions"] == {"mode": "token"} and spec["enableInTreeAutoscaling"]
    (group,) = spec["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"]) == (0, 0)
    for part in (spec["headGroupSpec"], group):
        pod = part["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"] + pod.get("initContainers", []):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        assert pod["containers"][0]["name"].startswith("ray-")  # the operator takes the first for Ray's
    assert spec["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "127.0.0.1"


@pytest.mark.parametrize(
    "path", ["spec", "spec/autoscalerOptions", "spec/workerGroupSpecs/0/template/spec/containers/0"]
)
def test_a_typo_in_kuberays_file_is_found(path: str) -> None:
    cluster = copy.deepcopy(kuberay())
    place: Any = cluster
    for part in path.split("/"):
        place = place[int(part) if part.isdigit() else part]
    place["imag"] = ""
    assert list(unknown_fields(cluster, RAY_CLUSTER)) == [
        f"no field {re.sub('/[0-9]+', '', path).replace('/', '.')}.imag"
    ]


def test_the_pages_commands_exist() -> None:
    """Every ``ray`` and ``fmm-study`` command of docs/cluster.md and SECURITY.md, and each of its long options."""
    import typer
    from ray.dashboard.modules.job.cli import job_cli_group
    from ray.scripts.scripts import cli

    from study.cli.tools import app  # of which the others are imported

    known = {"ray": dict(cli.commands), "ray job": dict(job_cli_group.commands)}
    known["fmm-study"] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    text = "".join((ROOT / name).read_text() for name in ("docs/cluster.md", "SECURITY.md")).replace("\\\n", "")
    # what stands in code: indented, or in backquotes on one line
    code = re.findall(r"^ {4,}(.*)$", text, re.MULTILINE) + re.findall(r"`([^`\n]+)`", text)
    seen = 0
    for line in code:
        for program, name, options in re.findall(
            r"(?<![\w/-])(ray job|ray|fmm-study) ([a-z][a-z_-]*)([^|;&`']*)", line
        ):
            if name == "job" or f"{program} {name}" == "ray symmetric-run":
                continue
            assert name in known[program], f"{program} {name}"
            there = {option for parameter in known[program][name].params for option in parameter.opts}
            entry = options.split(" -- ")[0]
            unknown = set(re.findall(r"(?<= )--[a-z][\w-]*", entry)) - there
            assert not unknown, f"{program} {name}: {unknown}"
            seen += 1
    assert seen > 25

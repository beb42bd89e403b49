"""https://docs.ray.io/en/latest/cluster/vms/references/ray-cluster-configuration.html: faults of a file of ``ray up``.

Ray's own schema lets anything stand inside ``provider`` and ``node_config`` and reads no command. Here every such key is
held against what reads it: the installed Ray's sources, EC2's own model as botocore ships it, GCE's fields, Ray's options.
"""

import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]

# https://cloud.google.com/compute/docs/reference/rest/v1/instances: the parts of an instance that a study's hosts may need
_GCE_DISK = {"initializeParams": dict.fromkeys(("diskSizeGb", "diskType", "sourceImage"))}
_GCE_DISK |= dict.fromkeys(("autoDelete", "boot", "deviceName", "diskSizeGb", "interface", "mode", "source", "type"))
GCE_INSTANCE: dict[str, Any] = {
    "disks": _GCE_DISK,
    "scheduling": dict.fromkeys(
        ("automaticRestart", "instanceTerminationAction", "onHostMaintenance", "preemptible", "provisioningModel")
    ),
    "guestAccelerators": dict.fromkeys(("acceleratorCount", "acceleratorType")),
    "serviceAccounts": dict.fromkeys(("email", "scopes")),
    "metadata": {"items": dict.fromkeys(("key", "value"))},
    "networkInterfaces": dict.fromkeys(("accessConfigs", "aliasIpRanges", "kind", "network", "subnetwork")),
    "labels": None,
    "machineType": None,
    "minCpuPlatform": None,
}

# https://github.com/ray-project/kuberay/blob/v1.6.0/ray-operator/config/crd/bases/ray.io_rayclusters.yaml
_CONTAINER: dict[str, Any] = dict.fromkeys(("args", "command", "image", "imagePullPolicy", "name", "securityContext"))
_CONTAINER |= {
    "env": {"name": None, "value": None, "valueFrom": None},
    "ports": dict.fromkeys(("containerPort", "name", "protocol")),
    "resources": {"limits": None, "requests": None},
    "volumeMounts": dict.fromkeys(("mountPath", "name", "readOnly", "subPath")),
}
_POD: dict[str, Any] = {
    "metadata": {"annotations": None, "labels": None},
    "spec": {
        "containers": _CONTAINER,
        "initContainers": _CONTAINER,
        "nodeSelector": None,
        "serviceAccountName": None,
        "tolerations": dict.fromkeys(("effect", "key", "operator", "value")),
        "volumes": {
            "name": None,
            "emptyDir": dict.fromkeys(("medium", "sizeLimit")),
            "persistentVolumeClaim": dict.fromkeys(("claimName", "readOnly")),
        },
    },
}
RAY_CLUSTER: dict[str, Any] = {
    "apiVersion": None,
    "kind": None,
    "metadata": dict.fromkeys(("annotations", "labels", "name", "namespace")),
    "spec": {
        "rayVersion": None,
        "authOptions": dict.fromkeys(("enableK8sTokenAuth", "mode", "secretName")),
        "enableInTreeAutoscaling": None,
        "autoscalerOptions": dict.fromkeys(("idleTimeoutSeconds", "resources", "upscalingMode", "version")),
        "headGroupSpec": {"rayStartParams": None, "serviceType": None, "template": _POD},
        "workerGroupSpecs": {
            **dict.fromkeys(("groupName", "idleTimeoutSeconds", "maxReplicas", "minReplicas", "replicas")),
            "rayStartParams": None,
            "template": _POD,
        },
    },
}


def read(name: str) -> dict[str, Any]:
    """A file of ``ray up`` as it stands, by its path from the root."""
    config: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return config


def faults(config: dict[str, Any]) -> list[str]:
    """A line for each thing in a file of ``ray up`` that Ray, the cloud or ``clusters/node.sh`` would not understand."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        prepared = prepare_config(config)
        validate_config(prepared)
    except Exception as error:  # noqa: BLE001  jsonschema's, Ray's own and SystemExit's kin: each is a fault of the file
        return [f"schema: {str(error).splitlines()[0]}"]
    kind = config["provider"]["type"]
    found = [f"provider: nothing reads {key!r}" for key in config["provider"] if key not in provider_keys(kind)]
    for name, node_type in config.get("available_node_types", {}).items():
        found += [f"{name}: {fault}" for fault in _node_faults(kind, node_type["node_config"])]
    commands = [text for key in prepared if key.endswith("_commands") for text in prepared[key]]
    steps = set(re.findall(r"^  (\w+)\)", (ROOT / "clusters/node.sh").read_text(), flags=re.MULTILINE))
    for text in commands:
        found += [
            f"command: clusters/node.sh has no step {s!r}" for s in set(re.findall(r"node\.sh (\w+)", text)) - steps
        ]
        found += start_faults(text)
    for remote, local in config["file_mounts"].items():
        if not local.startswith("~") and not (ROOT / local).exists():
            found.append(f"file_mounts: {remote}: no {local}")
    return found


@functools.cache
def provider_keys(kind: str) -> frozenset[str]:
    """What the installed Ray reads from ``provider``, by its sources for this kind."""
    import ray.autoscaler._private as sources

    (folder,) = sources.__path__
    text = "".join(path.read_text() for path in sorted((Path(folder) / kind).rglob("*.py")))
    read = re.findall(r'\bprovider(?:_config)?(?:"\])?\s*(?:\[|\.get\()\s*"([a-z]\w*)"', text)
    return frozenset({"type", *read})


def start_faults(text: str) -> Iterator[str]:
    """Options of every ``ray start`` in a command that the installed Ray does not know, or knows for a head alone."""
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    for command in re.findall(r"ray start([^;&|]*)", text):
        given = {word.split("=")[0] for word in shlex.split(command) if word.startswith("--")}
        yield from (f"command: ray start has no option {option}" for option in sorted(given - known))
        if "--head" not in given:
            alone = given & {"--port", "--include-dashboard", "--redis-shard-ports", "--autoscaling-config"}
            yield from (f"command: {option} is for ray start --head" for option in sorted(alone))


def unknown_fields(value: Any, known: Any, where: str = "") -> Iterator[str]:
    """Keys of nested ``value`` that ``known`` (a mapping a level; ``None``: anything may follow) does not have."""
    if isinstance(value, list):
        for item in value:
            yield from unknown_fields(item, known, where)
    elif isinstance(value, dict) and known is not None:
        for key, inner in value.items():
            if key not in known:
                yield f"no field {where}{key}"
            else:
                yield from unknown_fields(inner, known[key], f"{where}{key}.")


def _node_faults(kind: str, node_config: dict[str, Any]) -> Iterator[str]:
    if kind == "aws":
        from botocore.validate import ParamValidator

        shape = _ec2().operation_model("RunInstances").input_shape
        # Ray fills in the counts
        report = ParamValidator().validate({**node_config, "MinCount": 1, "MaxCount": 1}, shape)
        if report.has_errors():
            yield from report.generate_report().splitlines()
    if kind == "gcp":
        yield from unknown_fields(node_config, GCE_INSTANCE)


@functools.cache
def _ec2() -> Any:
    import botocore.session

    return botocore.session.get_session().get_service_model("ec2")

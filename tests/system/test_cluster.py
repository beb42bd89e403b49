"""A cluster of three hosts of our own, as docs/cluster.md tells users: up, a study, a host lost and back, down.

Hosts are namespaces of this machine with sshd (``cluster_hosts.sh``). The file is clusters/on_premises.yaml with the values
of its block filled in.
"""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_hosts import ROOT, Hosts, lacking
from driving import write_spec

from study.results.ledger import read_ledger
from study.schema import ReplicateRecord
from study.training import load_checkpoint

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(lacking()), reason=f"no cluster of our own: {lacking()}"),
]

ADDRESSES = {"head": "10.77.0.1", "left": "10.77.0.2", "right": "10.77.0.3"}
TOKEN = {"RAY_AUTH_MODE": "token"}
FILE = "~/on_premises.yaml"
JOBS = "--address http://127.0.0.1:8265"
STUDY = "/shared/kill.yaml --storage /shared/results --tracking-uri http://127.0.0.1:5000"
EPOCHS = 20
BLOCKS = 3
PROBES = ROOT / "tests/support/cluster_probes.py"


def wait_for(condition: Callable[[], bool], what: str) -> float:
    """How long it took, in seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 240, what
        time.sleep(0.2)
    return time.monotonic() - began


class Cluster:
    """The cluster as its user sees it, from the laptop."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.study = hosts.shared / "results/kill"

    def ray(self, command: str) -> str:
        return self.hosts.run(f"ray {command}", **TOKEN)

    def ssh(self, name: str, command: str, *, code: int | None = 0) -> str:
        return self.hosts.run(self.hosts.ssh(name, command), code=code)

    def alive(self) -> set[str]:
        """The hosts that Ray holds for alive."""
        watched = self.hosts.shared / "watched"
        # among them may be what Ray tells of lost hosts
        lines = re.findall(r'^(\[".*\])$', watched.read_text(), re.MULTILINE) if watched.exists() else []
        return {name for name, address in ADDRESSES.items() if lines and address in json.loads(lines[-1])}

    def records(self) -> list[ReplicateRecord]:
        return list(read_ledger(self.study / "ledger").replicates.values())

    def epochs(self) -> dict[str, int]:
        """The epoch that each training at work has reached, by its key."""
        held = {path.parent.name: load_checkpoint(path) for path in self.study.glob("checkpoints/*/state.pt")}
        return {key: state["epoch"] for key, state in held.items() if state}

    def submit(self, name: str, options: str = "") -> "subprocess.Popen[str]":
        """Submit the study as a job; what follows its log."""
        self.ray(
            f"job submit {JOBS} --no-wait --submission-id {name} -- fmm-study run {STUDY} --address auto {options}"
        )
        return self.hosts.spawn(f"ray job logs {JOBS} --follow {name} && ray job status {JOBS} {name}", **TOKEN)


def finish(job: "subprocess.Popen[str]") -> None:
    log, _ = job.communicate(timeout=300)
    assert job.returncode == 0 and "succeeded" in log, log


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Hosts that are on, the file filled in, a specification on the shared folder; nothing of Ray yet."""
    hosts = Hosts(tmp_path, ADDRESSES)
    text = (ROOT / "clusters/on_premises.yaml").read_text()
    for before, after in {
        "https://github.com/OWNER/fmm-study.git": "/repository",
        "0" * 40: hosts.commit,
        "192.168.1.10": ADDRESSES["head"],
        "192.168.1.11, 192.168.1.12": f"{ADDRESSES['left']}, {ADDRESSES['right']}",
    }.items():
        assert text.count(before) == 1
        text = text.replace(before, after)
    (tmp_path / "laptop" / "home" / "on_premises.yaml").write_text(text)
    write_spec(
        hosts.shared / "kill.yaml",
        blocks=BLOCKS,
        fixed=f"{{dataset: digits, width: 8, epochs: {EPOCHS}, batch_size: 128}}",
        # one group a host, for each counts the cores of this machine as its own. Groups of three trainings: Tune hands a
        # group that waits for a starting worker to one that falls free and begins the start anew, so where groups are shorter
        # than a start takes, some hosts never begin
        resources=f"{{cpus: 2, group: {BLOCKS}}}",
    )
    with hosts:
        for name in ADDRESSES:
            hosts.start(name)
        yield Cluster(hosts)
    assert hosts.left() == []


def check_who_is_let_in(cluster: Cluster) -> None:
    """Dashboard and MLflow listen on loopback; of the rest nothing but metrics answers to whoever has no token, or another."""
    outside = []
    for name in cluster.alive():
        ports = re.findall(r"^LISTEN +\d+ +\d+ +(\S+):(\d+) ", cluster.ssh(name, "ss -ltn"), re.MULTILINE)
        open_ones = {port for place, port in ports if not place.strip("[]").removeprefix("::ffff:").startswith("127.")}
        assert not open_ones & {"8265", "5000"}
        assert name != "head" or {"8265", "5000", "6379"} <= {port for _, port in ports}
        outside += [f"{ADDRESSES[name]}:{port}" for port in sorted(open_ones - {"22"})]
    assert len(outside) > 9
    answers = cluster.hosts.run(f"python {PROBES} knock {' '.join(outside)}").splitlines()
    told = {answer for line in answers for answer in line.split()[1].split(",")}
    assert len(answers) == len(outside) and told == {"401", "metrics", "UNAUTHENTICATED", "UNIMPLEMENTED"}, answers
    status = f"ray status --address {ADDRESSES['head']}:6379"
    cluster.hosts.run(status, **TOKEN)
    for stranger in ({"RAY_AUTH_MODE": "disabled"}, TOKEN | {"RAY_AUTH_TOKEN": "0" * 64}):
        assert "InvalidAuthToken" in cluster.hosts.run(status, code=1, **stranger)
    assert "Missing authentication token" in cluster.hosts.run(f"ray job list {JOBS}", code=1, RAY_AUTH_MODE="disabled")


def test_a_study_on_hosts_of_our_own(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    def resumed() -> list[ReplicateRecord]:
        return [record for record in cluster.records() if record["resumed_from"]]

    hosts, began = cluster.hosts, time.monotonic()
    hosts.run("(umask 077 && ray get-auth-token --generate > /dev/null)")
    cluster.ray(f"up -y {FILE}")
    up = time.monotonic() - began
    hosts.spawn(hosts.ssh("head", f"bash -lc 'python {PROBES} watch > /shared/watched'"))
    hosts.spawn(f"ray dashboard {FILE}", **TOKEN)
    joined = wait_for(lambda: cluster.alive() == set(ADDRESSES), "all hosts alive")

    job = cluster.submit("first")
    wait_for(lambda: {record["host"] for record in cluster.records()} == set(ADDRESSES), "a record of each host")
    # each host is in the first half of a training, with its checkpoint on the shared folder
    wait_for(
        lambda: len(held := cluster.epochs().values()) == 3 and all(1 <= epoch <= EPOCHS / 2 for epoch in held),
        "three checkpoints",
    )
    hosts.pull("right")
    pulled = time.monotonic()
    seen = wait_for(lambda: cluster.alive() == {"head", "left"}, "a host seen to be lost")
    check_who_is_let_in(cluster)
    wait_for(lambda: bool(resumed()), "its training, elsewhere")
    moved = time.monotonic() - pulled
    hosts.start("right")
    back = wait_for(lambda: cluster.alive() == set(ADDRESSES), "the lost host back")
    assert "ran on right" in cluster.ray(f"exec {FILE} 'python {PROBES} visit {ADDRESSES['right']}'")
    finish(job)

    records = cluster.records()
    assert len(records) == 9 * BLOCKS and {record["state"] for record in records} <= {"completed", "diverged"}
    (lost,) = resumed()
    assert lost["host"] in ("head", "left")
    audited = cluster.ray(f"exec {FILE} 'fmm-study audit {STUDY}'")
    assert f"{9 * BLOCKS} replicates" in audited and "MLflow at http://127.0.0.1:5000: 0 faults" in audited

    cluster.ssh("head", "pkill -f 'probes.py [w]atch'")  # our own
    cluster.ray(f"down -y {FILE}")
    for name in ADDRESSES:
        cluster.ssh(name, "bash node.sh stop")
        left = cluster.ssh(name, "pgrep -u user -a .")
        assert not re.search("ray|mlflow|study", left), left
    with capsys.disabled():
        print(  # noqa: T201
            f"\n3 hosts up in {up:.0f} + {joined:.0f} s. One lost in mid-study: seen after {seen:.0f} s; its training went on "
            f"from epoch {lost['resumed_from']} on another and had ended by {moved:.0f} s; {len(records)} replicates, 0 lost, "
            f"0 double; the host back {back:.0f} s after power-on. {time.monotonic() - began:.0f} s in all"
        )

"""A spot notice on a cluster: the host is drained, then gone; its trial goes on elsewhere, from its last epoch."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driving import log_of, num_records, results, start, write_spec

from search_spaces import load_spec
from study.commands import show
from study.results.ledger import read_ledger
from study.results.workspace import Workspace

PLANNED = 3 * 2 * 3
PREEMPTION = 2  # DRAIN_NODE_REASON_PREEMPTION: what Ray's autoscaler and KubeRay tell it of a spot instance
GRACE_SECONDS = 2


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without cores, and two hosts with one each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    made.add_node(num_cpus=1)
    made.add_node(num_cpus=1)
    yield made
    made.shutdown()


def test_a_spot_notice(cluster: Any, calm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ray._raylet import GcsClient

    spec, storage = write_spec(tmp_path / "kill.yaml"), tmp_path / "storage"
    process = start(spec, storage, "--address", cluster.address)

    def wait_for_both() -> None:
        """Until both hosts are in the middle of a training."""
        while num_records(storage) < 1 or len(list(storage.glob("kill/checkpoints/*/state.pt"))) < 2:
            assert process.poll() is None, log_of(storage).read_text()
            time.sleep(0.02)

    wait_for_both()
    host = next(node for node in cluster.list_all_nodes() if not node.head)
    deadline = int(1000 * (time.time() + GRACE_SECONDS))
    accepted, why = GcsClient(address=cluster.address).drain_node(host.node_id, PREEMPTION, "spot notice", deadline)
    assert accepted, why
    time.sleep(GRACE_SECONDS)
    wait_for_both()  # again: trainings have ended in the meantime
    cluster.remove_node(host, allow_graceful=False)
    struck, held = time.monotonic(), num_records(storage)
    while num_records(storage) == held:
        assert process.poll() is None, log_of(storage).read_text()
        time.sleep(0.05)
    recovery = time.monotonic() - struck
    assert process.wait(400) == 0, log_of(storage).read_text()
    contents = read_ledger(storage / "kill/ledger")
    assert any(record["resumed_from"] for record in contents.replicates.values()), (
        "no trial went on from its checkpoint"
    )
    assert results(storage) == results(calm, blocks=2) and len(results(storage)) == PLANNED
    assert show.check(load_spec(str(spec)), Workspace(storage / "kill"), tracking=None)[0] == []
    assert "Traceback" not in log_of(storage).read_text()
    with capsys.disabled():
        print(f"\na spot notice after {held} of {PLANNED}: 0 lost, 0 double; {recovery:.1f} s to the next result")  # noqa: T201

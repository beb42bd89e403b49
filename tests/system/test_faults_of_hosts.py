"""A spot notice on a cluster: the host is drained, then gone; its trial goes on elsewhere, from its last epoch."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driving import log_of, num_records, results, start, write_spec
from serial import run_serially

from search_spaces import load_spec
from study.commands import show
from study.results.ledger import read_ledger
from study.results.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

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


def test_a_spot_notice(cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ray._raylet import GcsClient

    fixed = "{dataset: digits, width: 4, epochs: 40, batch_size: 128}"
    spec, storage = write_spec(tmp_path / "kill.yaml", blocks=1, fixed=fixed), tmp_path / "storage"
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
    run_serially(spec, tmp_path / "calm", report=False)
    assert results(storage) == results(tmp_path / "calm") and len(results(storage)) == 9
    assert show.check(load_spec(str(spec)), Workspace(storage / "kill"), tracking=None)[0] == []
    assert "Traceback" not in log_of(storage).read_text()
    with capsys.disabled():
        print(f"\na spot notice after {held} of 9: 0 lost, 0 double; {recovery:.1f} s to the next result")  # noqa: T201

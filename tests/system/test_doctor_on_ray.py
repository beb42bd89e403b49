"""The doctor on a Ray of this machine, and on two hosts of Ray's own."""

import subprocess
import sys
from pathlib import Path

from study.checks import doctor


def found(name: str, check) -> doctor.Finding:
    return doctor._finding(name, check)


def test_ray_on_this_machine_and_a_cluster_that_is_not_there() -> None:
    assert "1 node" in found("ray", lambda: doctor._ray(None)).found
    gone = found("ray", lambda: doctor._ray("127.0.0.1:1"))
    assert not gone.well and "127.0.0.1:1" in gone.found


def test_two_hosts_of_rays_own(tmp_path: Path) -> None:
    """Both on this machine, one with a logical GPU that torch does not see."""
    script = f"""
import ray
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1, "num_gpus": 0}})
cluster.add_node(num_cpus=1, num_gpus=1)
from pathlib import Path
from study.checks.doctor import examine
for finding in examine(Path({str(tmp_path)!r}) / "results", cluster.address, None):
    print(finding.name, "|", finding.found, "|", finding.advice)
cluster.shutdown()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("host")]
    assert lines[0] == "hosts | 2 | "
    # without a GPU on this machine
    ill = [line for line in lines[1:] if "Ray counts 1 GPUs, torch sees none" in line]
    well = [line for line in lines[1:] if line.endswith("| the same versions and storage, 0 GPUs | ")]
    import torch

    if not torch.cuda.is_available():
        assert len(ill) == len(well) == 1, done.stdout

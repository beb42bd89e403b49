"""A study on Ray's own test cluster: many hosts with logical GPUs on this machine, trainings that wait instead of computing.

    python -m benchmarks.cluster_scale --hosts 8 --gpus 4
    python -m benchmarks.cluster_scale --hosts 4 --gpus 4 --share 0.5

https://docs.ray.io/en/latest/ray-core/examples/testing-tips.html (``ray.cluster_utils.Cluster``). Each slot is a real worker
that imports torch, so memory says how many fit; a training waits for 3.6 s and computes for a fraction of one. The ratio is
the share of slots with a training under way, sampled every half second while the middle half of the study is recorded. Told
beside it: the most at once (a slot that has no worker shows there), states, and the driver's processor time.
"""

import argparse
import os
import statistics
import tempfile
from collections import Counter
from pathlib import Path

import psutil
from ray.cluster_utils import Cluster

from benchmarks.common import machine_load, print_table, result
from benchmarks.driven import watch, write_spec
from study.results.ledger import read_ledger

# three blocks a step, one step an epoch
EPOCHS, BLOCKS_A_STEP, WAIT_SECONDS = 3, 3, 0.4


def specification(slots: int, share: float, group: int, rounds: int) -> dict[str, object]:
    """A study of ``slots`` times ``group`` threads, each of ``rounds`` trainings one after another."""
    return {
        "factors": {"merge": ["waiting"], "attention": ["none"], "attention_form": ["none"], "depth": [8]},
        "fixed": {"dataset": "fake", "network": "cifar_resnet", "width": 2, "epochs": EPOCHS, "batch_size": 48},
        "nuisance": {"lr": {"low": 0.03, "high": 1.0, "log": True, "default": 0.2}},
        "blocks": slots * group,
        "budget": {"search_trials": rounds - 1, "startup_trials": 1},
        "resources": {"cpus": 1, "gpus": share, "group": group, "threads": 1},
        "checkpoints": "none",
        "plugins": ["benchmarks.waiting"],
    }


def main() -> None:
    """Print the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--gpus", type=int, default=4)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=8)
    given = parser.parse_args()
    each = int(given.gpus / given.share)
    slots = given.hosts * each
    os.environ |= {"FMM_STUDY_DEVICE": "cpu", "FMM_STUDY_WAITING": str(WAIT_SECONDS)}
    head = {"num_cpus": each + 1, "num_gpus": given.gpus, "object_store_memory": 150_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(given.hosts - 1):
        cluster.add_node(num_cpus=each, num_gpus=given.gpus, object_store_memory=150_000_000)
    with tempfile.TemporaryDirectory() as place:
        parts = specification(slots, given.share, given.group, given.rounds)
        spec = write_spec(Path(place) / "scale.yaml", **parts)
        results = Path(place) / "results"
        seen = watch(spec, results, "--address", cluster.address, packages=("benchmarks.waiting",))
        records = list(read_ledger(results / "scale/ledger").replicates.values())
    cluster.shutdown()
    num = len(records)
    first, last = seen.at(num // 4), seen.at(3 * num // 4)
    seconds = statistics.median(record["train_seconds"] for record in records)
    busy = statistics.mean(num for at, num in seen.at_work if first <= at <= last) / slots
    states = Counter(record["state"] for record in records)
    rows = [
        ["hosts x GPUs x share", f"{given.hosts} x {given.gpus} x {given.share:g} = {slots} slots"],
        ["trainings", f"{num:,} ({', '.join(f'{n} {state}' for state, n in states.items())})"],
        ["seconds of a training", f"{seconds:.2f}, of which {EPOCHS * BLOCKS_A_STEP * WAIT_SECONDS:.2f} waiting"],
        ["first training began after", f"{seen.begun:.0f} s"],
        ["a quarter, three quarters, all recorded after", f"{first:.0f}, {last:.0f}, {seen.marks[-1][0]:.0f} s"],
        [
            "slots at work in the middle half, and the most at once",
            f"{busy:.3f}, {max(num for _, num in seen.at_work)}",
        ],
        ["driver's processor time", f"{seen.cpu:.0f} s, {1000 * seen.cpu / num:.0f} ms a training"],
        ["driver's memory", f"{max(seen.memory) / 2**20:,.0f} MiB"],
        ["cores", f"{psutil.cpu_count()}, {machine_load()} at the end"],
    ]
    print_table("a study on a simulated cluster", ["", ""], rows)
    more = {"slots": slots, "hosts": given.hosts, "trainings": num}
    print(result("cluster_scale", [busy], 0.95, packages=("ray",), more=more))


if __name__ == "__main__":
    main()

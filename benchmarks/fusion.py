"""https://arxiv.org/abs/2102.02344 (HFTA): a replicate's step in groups of 1 to 16, beside serial and several processes.

    python -m benchmarks.fusion                     # the CPU, one thread a process
    python -m benchmarks.fusion --device cuda --processes 4

Every network at 8x8, batch 32 and 128, and at 32x32, batch 128, on random pixels: whole steps of the code that studies run
(gathering, forward, backward, SGD), in processor time on a CPU. Serial and every group size are timed in turn; a ratio is
serial time over fused time, the median over rounds with its least and greatest. The last line is the goal's case at its best
group size: cifar_resnet, 8x8, width 8, batch 32 (on a GPU: ResNet-20, width 16, 32x32, batch 128).
"""

import argparse
import dataclasses
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.common import hardware, result, spread, versions
from study.config import TrialConfig
from study.data.facts import Facts
from study.resources.timing import timer

SIZES = (1, 2, 4, 8, 16)
# network, depth, width
NETWORKS = (
    ("cifar_resnet", 8, 8),
    ("cifar_resnet", 20, 16),
    ("cifar_resnet_bottleneck", 11, 8),
    ("wrn", 10, 1),
    ("imagenet_resnet", 18, 8),
)
# image side, channels, batch
IMAGES = ((8, 1, 32), (8, 1, 128), (32, 3, 128))
GOALS = {
    "cpu": ("cifar_resnet d8 w8 8x8 b32", 2.0),
    "cuda": ("cifar_resnet d20 w16 32x32 b128", 8.0),
}
STEPS = 3
# A group whose round would take longer than this is left out.
LONGEST_SECONDS = 6.0


@dataclasses.dataclass(frozen=True)
class Case:
    """A network on images of one size."""

    network: str
    depth: int
    width: int
    side: int
    channels: int
    batch: int

    def __str__(self) -> str:
        return f"{self.network} d{self.depth} w{self.width} {self.side}x{self.side} b{self.batch}"

    def timer(self, size: int, device: str, steps: int = STEPS) -> Callable[[], float]:
        """See ``study.resources.execution.timer``."""
        config = TrialConfig(
            dataset="random", network=self.network, depth=self.depth, width=self.width, batch_size=self.batch, seed=0,
            split_seed=0, weight_decay=5e-4, augment="pad_crop" if self.channels == 3 else "none",
        )  # fmt: skip
        known = Facts(
            image_shape=(self.channels, self.side, self.side), num_classes=10, num_train=50_000, num_val=0, num_test=0
        )
        return timer(config, known, size, device, steps)


def measure(case: Case, device: str, rounds: int) -> dict[int, list[float]]:
    """Milliseconds a replicate-step by group size, a value a round; size 1 is serial."""
    timers = {1: case.timer(1, device)}
    alone = timers[1]()
    for size in SIZES[1:]:
        if size * STEPS * alone < LONGEST_SECONDS:
            timers[size] = case.timer(size, device)
            timers[size]()
    found: dict[int, list[float]] = {size: [] for size in timers}
    for _ in range(rounds):
        for size, seconds in timers.items():
            found[size].append(1000 * seconds())
    return found


def _work(given: tuple[Case, str, float]) -> tuple[int, float]:
    """In a process of its own: serial steps for some seconds; how many, and how long they took."""
    case, device, seconds = given
    torch.set_num_threads(1)
    step = case.timer(1, device)
    step()
    time.sleep(0.5)  # until the others are ready too
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        steps += STEPS
    return steps, time.perf_counter() - started


def in_processes(case: Case, device: str, processes: int, seconds: float) -> float:
    """Milliseconds a replicate-step, all processes together."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        done = pool.map(_work, [(case, device, seconds)] * processes, chunksize=1)
    return 1000 / sum(steps / taken for steps, taken in done)


def main() -> None:
    """Print the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=0, help="also serial training in so many processes at once")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    given = parser.parse_args()
    torch.set_num_threads(1)
    gpu = given.device == "cuda"
    print(
        f"# {hardware(gpu=gpu)}; {versions('torch')}; n = {given.rounds} rounds; median (least to greatest); one thread"
        f"; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    print("| case | serial ms | " + " | ".join(f"x{size}" for size in SIZES[1:]) + " | processes |")
    print("|---|---|" + "---|" * len(SIZES))
    goal_case, goal = GOALS[given.device]
    last = ""
    for case in (Case(*network, *images) for network in NETWORKS for images in IMAGES):
        if given.only not in str(case):
            continue
        found = measure(case, given.device, given.rounds)
        serial = found.pop(1)
        ratios = {size: [a / b for a, b in zip(serial, values, strict=True)] for size, values in found.items()}
        cells = [spread(ratios[size]) if size in ratios else "-" for size in SIZES[1:]]
        several = "-"
        if given.processes:
            seconds = max(2.0, 3 * STEPS * statistics.median(serial) / 1000)
            together = in_processes(case, given.device, given.processes, seconds)
            several = f"{given.processes}: {statistics.median(serial) / together:.2f}"
        print(f"| {case} | {spread(serial)} | {' | '.join(cells)} | {several} |", flush=True)
        if str(case) == goal_case:
            best = max(ratios, key=lambda size: statistics.median(ratios[size]))
            more = {"group": best, "case": goal_case}
            last = result("fusion", ratios[best], goal, gpu=gpu, packages=("torch",), more=more)
    print(last)


if __name__ == "__main__":
    main()

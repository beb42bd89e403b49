"""A replicate's step in groups of 1 to 16, beside serial training and several processes.

    python -m benchmarks.fusion                     # the CPU, one thread a process
    python -m benchmarks.fusion --device cuda --processes 4

Every network at 8x8, batch 32 and 128, and at 32x32, batch 128, on random pixels: whole steps of the code that studies run
(gathering, forward, backward, SGD), in processor time on a CPU. Serial and every group size are timed in turn; a ratio is
serial time over fused time, the median over rounds with its least and greatest. The last line is the goal's case at its best
group size: cifar_resnet, 8x8, width 8, batch 32 (on a GPU: ResNet-20, width 16, 32x32, batch 128).

Source: https://arxiv.org/abs/2102.02344 (HFTA)
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Sequence

import torch

from benchmarks.cases import Case, in_turn
from benchmarks.common import hardware, machine_load, result, spread, versions

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


def cases() -> list[Case]:
    """Every network on images of every size."""
    return [
        Case(
            f"{network} d{depth} w{width} {side}x{side} b{batch}", network, depth, width, (channels, side, side), batch,
            "pad_crop" if channels == 3 else "none",
        )
        for network, depth, width in NETWORKS
        for side, channels, batch in IMAGES
    ]  # fmt: skip


def measure(
    case: Case,
    device: str,
    rounds: int,
    sizes: Sequence[int] = SIZES[1:],
    options: tuple[str, ...] = (),
    steps: int = STEPS,
) -> dict[int, list[float]]:
    """Milliseconds per replicate and step by group size, one value per round; size 1 is serial, and always plain."""
    timers = {1: case.timer(device, 1, steps)}
    alone = timers[1]()
    for size in sizes:
        if size * steps * alone < LONGEST_SECONDS:
            timers[size] = case.timer(device, size, steps, options)
    return {size: [1000 * value for value in seconds] for size, seconds in in_turn(timers, rounds).items()}


def _work(given: tuple[Case, str, float]) -> tuple[int, float]:
    """In a process of its own: serial steps for some seconds; how many, and how long they took."""
    case, device, seconds = given
    torch.set_num_threads(1)
    step = case.timer(device, 1, STEPS)
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
        f"; {machine_load()} on {os.cpu_count()} cores"
    )
    print("| case | serial ms | " + " | ".join(f"x{size}" for size in SIZES[1:]) + " | processes |")
    print("|---|---|" + "---|" * len(SIZES))
    goal_case, goal = GOALS[given.device]
    last = ""
    for case in (case for case in cases() if given.only in case.name):
        found = measure(case, given.device, given.rounds)
        serial = found.pop(1)
        ratios = {size: [a / b for a, b in zip(serial, values, strict=True)] for size, values in found.items()}
        cells = [spread(ratios[size]) if size in ratios else "-" for size in SIZES[1:]]
        several = "-"
        if given.processes:
            seconds = max(2.0, 3 * STEPS * statistics.median(serial) / 1000)
            together = in_processes(case, given.device, given.processes, seconds)
            several = f"{given.processes}: {statistics.median(serial) / together:.2f}"
        print(f"| {case.name} | {spread(serial)} | {' | '.join(cells)} | {several} |", flush=True)
        if case.name == goal_case:
            best = max(ratios, key=lambda size: statistics.median(ratios[size]))
            more = {"group": best, "case": goal_case}
            last = result("fusion", ratios[best], goal, gpu=gpu, packages=("torch",), more=more)
    print(last)


if __name__ == "__main__":
    main()

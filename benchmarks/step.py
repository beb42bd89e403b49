"""Where a training step's time goes, plain and with each option.

    python -m benchmarks.step
    python -m benchmarks.step --steps compile channels_last+compile   # others than those by default

Two networks of ``benchmarks.roofline``, on one thread of a CPU. Milliseconds a step are processor time, all steps in turn,
median (least to greatest) of the rounds; the ratio is the plain step's time over this one's, round by round. Then a profile
of each: processor time within operators by kind, timed one by one as they are dispatched; what is left of the step is
Python's, autograd's and the dispatcher's. (``torch.profiler`` goes by the clock, which counts whatever else runs on the core.)
The last line is ResNet-20 with ``channels_last``.
"""

import argparse
import statistics
import time
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.cases import Timer, in_turn
from benchmarks.common import hardware, machine_load, print_table, result, spread, versions
from benchmarks.roofline import CASES, GOAL_CASE

STEPS = ("plain", "fused", "channels_last", "bf16", "channels_last+bf16")
COUNT = {True: 20, False: 2}
# the first whose part occurs in the operator's name
KINDS = {
    "convolution backwards": ("convolution_backward",),
    "convolution": ("convolution",),
    "batch norm": ("batch_norm",),
    "ReLU": ("relu", "threshold"),
    "update": ("add_", "addcmul_", "mul_", "_foreach", "_fused_sgd"),
    "copies and casts": ("copy", "clone", "cat"),
    "gathering and augmentation": ("index", "gather", "unfold", "flip", "where", "div"),
}


class Kinds(TorchDispatchMode):
    """Sums the processor time of operators by kind, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        started = time.thread_time()
        out = func(*args, **(kwargs or {}))
        seconds, operator = time.thread_time() - started, func.overloadpacket.__name__
        kind = next((kind for kind, parts in KINDS.items() if any(part in operator for part in parts)), "other")
        self.seconds[kind] += seconds
        return out


def kinds(call: Timer, steps: int) -> dict[str, float]:
    """Milliseconds a step within operators of each kind."""
    with Kinds() as profiled:
        call()
    return {kind: 1000 * seconds / steps for kind, seconds in profiled.seconds.items()}


def main() -> None:
    """Print both tables of each network, and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", nargs="+", default=list(STEPS), help="options, + between them")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"# {hardware()}; {versions('torch')}; n = {given.rounds} rounds; one thread; {machine_load()}")
    last = ""
    for case in CASES[:2]:
        count = COUNT[case.small]
        labels = list(dict.fromkeys(["plain", *given.steps]))
        timers = {
            label: case.timer("cpu", 1, count, () if label == "plain" else tuple(label.split("+"))) for label in labels
        }
        found = {label: [1000 * value for value in seconds] for label, seconds in in_turn(timers, given.rounds).items()}
        ratios = {
            label: [plain / own for plain, own in zip(found["plain"], values, strict=True)]
            for label, values in found.items()
        }
        rows = [[label, spread(values), spread(ratios[label])] for label, values in found.items()]
        print_table(case.name, ["step", "ms", "plain / this"], rows)
        several = {label: [kinds(call, count) for _ in range(3)] for label, call in timers.items()}
        profiled = {
            label: {kind: statistics.median(one.get(kind, 0.0) for one in three) for kind in three[0]}
            for label, three in several.items()
        }
        most = sorted({kind for row in profiled.values() for kind in row}, key=lambda k: -profiled["plain"].get(k, 0.0))
        table = [[kind, *(f"{row.get(kind, 0.0):.3g}" for row in profiled.values())] for kind in most]
        table.append(["all", *(f"{sum(row.values()):.3g}" for row in profiled.values())])
        print_table("Of it within operators, ms (n = 3, median)", ["kind", *labels], table)
        if case.name == GOAL_CASE and "channels_last" in ratios:
            more = {"case": case.name, "median ms": round(statistics.median(found["channels_last"]), 1)}
            last = result("step", ratios["channels_last"], 1.0, packages=("torch",), more=more)
    print(last)


if __name__ == "__main__":
    main()

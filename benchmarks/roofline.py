"""How much of the hardware training uses.

    python -m benchmarks.roofline                     # the CPU, one thread
    python -m benchmarks.roofline --device cuda

The hardware is measured in the same run, in turn with the networks: the greatest rate of a square matrix product (float32,
without TF32, as studies take it; bfloat16), and the greatest bandwidth of a copy, bytes read and written.
A step's operations are those of its convolutions and products, forwards and backwards; its bytes what all its operators read
and write, as if nothing stayed in a cache. The roof of a step is the longer of operations over rate
and bytes over bandwidth; "of the roof" is that time over the time taken. On a CPU it may exceed 1, for caches hold small maps.
Then the time to a given accuracy (``benchmarks.to_accuracy``). The last line is ResNet-20 by its best float32 step.

Source: https://dl.acm.org/doi/10.1145/1498765.1498785 (Williams et al. 2009)
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.cases import Case, Timer, in_turn, step_name
from benchmarks.common import hardware, machine_load, print_table, result, spread, versions
from benchmarks.counting import counted
from benchmarks.to_accuracy import show
from study.smoothness.context import use_exact_float32

SIDES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192, 12288)}
COPIED = {"cpu": 2**27, "cuda": 2**30}
GOAL_CASE = "ResNet-20, 32x32, batch 128"
# options of a step, and how many replicates train as one
WAYS: dict[str, tuple[tuple[tuple[str, ...], int], ...]] = {
    "cpu": (
        ((), 1),
        (("channels_last",), 1),
        (("channels_last", "bf16"), 1),
        ((), 8),
        (("channels_last",), 8),
    ),
    "cuda": (
        ((), 1),
        (("channels_last",), 1),
        (("channels_last", "graph"), 1),
        (("channels_last", "graph", "compile"), 1),
        (("channels_last", "graph", "compile", "bf16"), 1),
        (("graph",), 8),
        (("channels_last", "graph"), 8),
    ),
}


CASES = (
    Case("ResNet-8, width 8, 8x8, batch 128", "cifar_resnet", 8, 8, (1, 8, 8), 128, "none", small=True),
    Case(GOAL_CASE, "cifar_resnet", 20, 16, (3, 32, 32), 128),
    Case("WRN-16-2, 32x32, batch 128", "wrn", 16, 2, (3, 32, 32), 128),
    Case("ResNet-18 (ImageNet's), 64x64, batch 32", "imagenet_resnet", 18, 64, (3, 64, 64), 32),
)


class Traffic(TorchDispatchMode):
    """Sums the bytes of what operators take and give; of views, none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        taken, given = _tensors((args, kwargs or {})), _tensors(out)
        places = {tensor.untyped_storage().data_ptr() for tensor in taken}
        inplace = func.overloadpacket.__name__.endswith("_")
        if inplace or any(tensor.untyped_storage().data_ptr() not in places for tensor in given):
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in [*taken, *given])
        return out


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def work(case: Case, device: str) -> tuple[float, float]:
    """Operations and bytes of a replicate's plain step."""
    one = case.timer(device, 1, 1)
    flops = counted(one).flops
    with Traffic() as traffic:
        one()
    return flops, traffic.bytes


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second of the best square product."""
    best = 0.0
    for side in SIDES[device]:
        a, b = (torch.ones((side, side), dtype=dtype, device=device) for _ in range(2))
        repeats = max(1, int((2e10 if device == "cpu" else 2e13) / side**3))
        best = max(best, repeats * 2 * side**3 / _seconds(lambda a=a, b=b: a @ b, repeats, device))  # type: ignore[misc]
    return best


def copy_bandwidth(device: str) -> float:
    """Bytes a second, read and written, of copying what no cache holds."""
    source = torch.ones(COPIED[device], dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 5 * 2 * COPIED[device] / _seconds(lambda: target.copy_(source), 5, device)


def hardware_timers(device: str) -> dict[str, Timer]:
    """What measures the device: operations a second by type, and bytes a second of a ``copy``."""
    return {
        "float32": lambda: matrix_rate(device, torch.float32),
        "bfloat16": lambda: matrix_rate(device, torch.bfloat16),
        "copy": lambda: copy_bandwidth(device),
    }


def shares_of(
    work: tuple[float, float], options: Sequence[str], seconds: Sequence[float], peaks: Mapping[str, float]
) -> tuple[list[float], list[float]]:
    """Of the matrix rate and of copy bandwidth, for each of ``seconds`` that a step of this ``work`` took."""
    flops, moved = work
    peak = peaks["bfloat16" if "bf16" in options else "float32"]
    return [flops / each / peak for each in seconds], [moved / each / peaks["copy"] for each in seconds]


def _seconds(call: Callable[[], Any], repeats: int, device: str) -> float:
    call()
    clock = time.thread_time if device == "cpu" else time.perf_counter
    if device == "cuda":
        torch.cuda.synchronize()
    started = clock()
    for _ in range(repeats):
        call()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def main() -> None:
    """Print both tables and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--seeds", type=int, default=1, help="trainings to an accuracy, of each step; 0 for none")
    given = parser.parse_args()
    device, gpu = given.device, given.device == "cuda"
    torch.set_num_threads(1)
    use_exact_float32()
    print(f"# {hardware(gpu=gpu)}; {versions('torch')}; n = {given.rounds} rounds; {machine_load()}")
    cases = [case for case in CASES if given.only in case.name]
    timers: dict[tuple[Case, tuple[str, ...], int], Timer] = {}
    for case in cases:
        for options, size in WAYS[device]:
            if size == 1 or case.small or gpu:
                timers[case, options, size] = case.timer(device, size, 10 if case.small or gpu else 1, options)
    works = {case: work(case, device) for case in cases}
    measured = hardware_timers(device)
    both = in_turn({**measured, **timers}, given.rounds)
    rates, found = {name: both[name] for name in measured}, {key: both[key] for key in timers}
    peaks = {name: max(values) for name, values in rates.items()}
    for name, unit in (("float32", "operations"), ("bfloat16", "operations"), ("copy", "bytes")):
        print(f"{name}: {spread([value / 1e9 for value in rates[name]])} G{unit}/s; the greatest counts")
    rows, goal, last = [], 0.0, ""
    for (case, options, size), seconds_of in found.items():
        flops, moved = works[case]
        ofrate, ofcopy = shares_of(works[case], options, seconds_of, peaks)
        ofroof = [max(pair) for pair in zip(ofrate, ofcopy, strict=True)]
        step = step_name(options) + (f", {size} as one" if size > 1 else "")
        milliseconds = spread([1000 * seconds for seconds in seconds_of])
        shares = [spread(share) for share in (ofrate, ofcopy, ofroof)]
        rows.append([case.name, step, milliseconds, f"{flops / 1e9:.3g}", f"{moved / 1e6:.4g}", *shares])
        if case.name == GOAL_CASE and "bf16" not in options and statistics.median(ofrate) > goal:
            goal, more = statistics.median(ofrate), {"case": case.name, "step": step}
            last = result("roofline", ofrate, 1.0, gpu=gpu, packages=("torch",), more=more)
    headings = ["network", "step", "ms", "GFLOP", "MB", "of matrix rate", "of copy bandwidth", "of the roof"]
    print_table("A replicate-step", headings, rows)
    if given.seeds:
        show(device, given.seeds)
    print(last)


if __name__ == "__main__":
    main()

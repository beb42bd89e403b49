"""What measuring costs: each statistic beside training, and beside the same written straightforwardly.

    python -m benchmarks.measure_cost [--device cuda] [--spec cifar10] [--rounds 3] [--shrink 16] [--all]

A ResNet-20 with squeeze-and-excitation on random 32x32 images, weights as drawn (no cost depends on them but how soon a
Lanczos run or a power iteration converges). Statistics are timed at the settings of ``--spec`` with the number of samples
divided by ``--shrink``, and scaled back: what they cost grows with the number of samples. The straightforward side
(``straightforward.py``) gets as few samples as it can do in reasonable time. The budget: a tenth of a replicate's training.

Beside seconds, work is counted (``counting.py``), for the preset: floating point operations, and operator calls at the chunk
of a GPU. For these both samples and chunk are a sixteenth, so that there are as many chunks as in the whole.
"""

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from benchmarks import straightforward
from benchmarks.common import print_table, result, spread
from benchmarks.counting import Work, counted
from search_spaces import load_spec
from study.config import TrialConfig
from study.data.dataset import dataset_facts
from study.models import build_network
from study.registry import STATISTICS
from study.smoothness import MeasureContext, measure, parse_settings, reestimated_batchnorm
from study.smoothness.memory import Shared, images_at_once

BUDGET = 0.1
COUNTED = 16
# Jacobians are taken in blocks of so many images at the CPU's chunk: of fewer, a block is taken all the same.
LEAST = {"input_jacobian": 64, "local_lipschitz": 64}
SIZES = ("num_samples", "num_pairs")
# Samples of the straightforward side, and the estimate of ours that it gives too (to a relative 1e-3).
PEERS: dict[str, tuple[Callable[[MeasureContext, int], float], int, str]] = {
    "input_jacobian": (straightforward.input_jacobian, 64, "jacobian_unit_logits_mean_log"),
    "noise_stability": (straightforward.noise_stability, 16, "noise_64_l1"),
    "noise_accuracy": (straightforward.noise_accuracy, 16, "noise_64_accuracy"),
    "path": (straightforward.path, 4, "path_same_label_flips"),
    "frequency": (straightforward.frequency, 4, "frequency_logits_same_mean_log"),
    "input_curvature": (straightforward.input_curvature, 8, "curvature_1_mean"),
    "local_lipschitz": (straightforward.local_lipschitz, 64, "lipschitz_logits_mean"),
    "attention_importance": (straightforward.attention_importance, 2, ""),
    "hessian": (straightforward.hessian, 4, "hessian_top_eigenvalue"),
}

# what the straightforward side does once, ours does once beside it
ONE_DRAW = {"noise_stability": {"num_draws": 1}, "noise_accuracy": {"num_draws": 1}}


def timed(run: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Seconds, and what came out; on a CPU its processor's seconds, so that a busy machine counts for less."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    if device == "cuda":
        torch.cuda.synchronize()
    started = clock()
    found = run()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - started, found


def context_of(device: str) -> MeasureContext:
    """A network with every part that a statistic asks for, and random images."""
    config = TrialConfig.from_mapping(
        {"dataset": "cifar10", "depth": 20, "seed": 1, "split_seed": 1, "attention": "se", "attention_form": "mul"}
    )
    model = build_network(config, num_classes=10, mean=(0.5,) * 3, deviation=(0.25,) * 3).to(device).eval()
    generator = torch.Generator().manual_seed(0)
    images = {name: torch.rand(1024, 3, 32, 32, generator=generator).to(device) for name in ("train", "val", "test")}
    labels = {name: (torch.arange(1024) % 10).to(device) for name in images}
    found = MeasureContext.calibrated(model=model, images=images, labels=labels, num_classes=10, seed=1)
    return dataclasses.replace(found, temperature=1.0, temperature_converged=True)


def training_step(context: MeasureContext, batch: int) -> Callable[[], None]:
    """A step of training that leaves the weights as they are; one was made already."""
    x, y = context.images["train"][:batch], context.labels["train"][:batch]
    optimizer = torch.optim.SGD(context.model.parameters(), lr=0.0, momentum=0.9)

    def step() -> None:
        context.model.train()
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(context.model(x), y).backward()
        optimizer.step()
        context.model.eval()

    step()
    return step


def batchnorm_pass(context: MeasureContext, batch: int) -> None:
    """One batch of batch norm's re-estimation."""
    with reestimated_batchnorm(context.model, context.images["train"][:batch], batch):
        pass


def alone(context: MeasureContext, chunk: int) -> MeasureContext:
    """The context for one statistic by itself: nothing was measured before."""
    return dataclasses.replace(context, kept={}, shared=Shared(), chunk=chunk)


def work_of(name: str, given: dict[str, Any], context: MeasureContext) -> Work:
    """What a statistic takes in the whole, counted on a sixteenth: as many chunks, each of a sixteenth of the images."""
    settings, times = shrunk(name, given, None, COUNTED)
    chunk = images_at_once(torch.empty(1, *context.images["test"][0].shape, device="meta")) // COUNTED
    run = parse_settings(name, settings)
    return counted(lambda: measure(name, run, alone(context, chunk))).times(times, 1.0)


def shrunk(name: str, given: dict[str, Any], num: int | None, shrink: int) -> tuple[dict[str, Any], float]:
    """Settings with fewer samples (``num`` of them, or a share), and how many times as many the whole has."""
    settings = parse_settings(name, given)
    fewer, times = dict(given), 1.0
    for key in SIZES:
        if hasattr(settings, key):
            fewer[key] = num or max(LEAST.get(name, 2), getattr(settings, key) // shrink)
            times = max(times, getattr(settings, key) / fewer[key])
    return fewer, times


def _row(
    name: str,
    samples: str,
    seconds: list[float],
    training: list[float],
    counted_shares: tuple[float, float] | None,
    ratios: list[float],
) -> list[str]:
    time_shares = [100 * mine / whole for mine, whole in zip(seconds, training, strict=True)]
    work = [f"{100 * share:.3g}" for share in counted_shares] if counted_shares else ["-", "-"]
    return [name, samples, spread(seconds), spread(time_shares), *work, spread(ratios) if ratios else "-"]


def main() -> None:
    """Time both sides in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--spec", default="cifar10")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shrink", type=int, default=16)
    parser.add_argument("--all", action="store_true", help="statistics without a straightforward side too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    spec, device = load_spec(options.spec), options.device
    in_preset = spec.measure.statistics
    context = context_of(device)
    epochs, batch = int(spec.fixed["epochs"]), int(spec.fixed["batch_size"])
    step, num_train = training_step(context, batch), dataset_facts("cifar10").num_train
    steps = epochs * (num_train // batch)
    training = [steps * timed(step, device)[0] for _ in range(options.rounds)]
    on_cpu = context_of("cpu")
    whole = counted(training_step(on_cpu, batch)).times(steps, steps)
    batches = -(-num_train // batch)
    refit = [batches * timed(lambda: batchnorm_pass(context, batch), device)[0] for _ in range(options.rounds)]
    spent = counted(lambda: batchnorm_pass(on_cpu, batch)).times(batches, batches)

    rows, suite = [_row("batch norm anew", f"{num_train:,}", refit, training, spent.shares(whole), [])], list(refit)
    names = [name for name in STATISTICS.names() if options.all or name in in_preset or name in PEERS]
    for name in sorted(names, key=lambda name: name not in in_preset):
        given = in_preset.get(name, {})
        settings, times = shrunk(name, given, None, options.shrink)
        peer, num, same = PEERS.get(name, (None, 0, ""))
        ours, ratios = [], []
        for number in range(options.rounds):
            run = parse_settings(name, settings)
            seconds, _ = timed(lambda n=name, s=run: measure(n, s, alone(context, context.chunk)), device)
            ours.append(seconds * times)
            if peer is not None:
                few = parse_settings(name, shrunk(name, given, num, 1)[0] | ONE_DRAW.get(name, {}))
                mine, found = timed(lambda n=name, s=few: measure(n, s, alone(context, context.chunk)), device)
                theirs, value = timed(lambda p=peer, n=num: p(context, n), device)
                if same and abs(found[same].value - value) > 1e-2 * abs(value) + 1e-6:
                    raise SystemExit(f"{name}: {same} is {found[same].value:.6g} here, {value:.6g} straightforwardly")
                ratios.append(theirs / mine)
            if name in in_preset:
                suite[number] += ours[-1]
        shares = None
        if name in in_preset:
            work = work_of(name, given, on_cpu)
            spent, shares = spent.plus(work), work.shares(whole)
        print(f"{name}: {spread(ours)} s", file=sys.stderr, flush=True)
        samples = str(next((getattr(parse_settings(name, given), key) for key in SIZES if key in settings), "-"))
        rows.append(_row(name + ("" if name in in_preset else " *"), samples, ours, training, shares, ratios))
    print_table(
        f"{options.spec} on ResNet-20 + SE, 32x32, {device}: training {spread(training)} s; n = {options.rounds}, median "
        "(least to greatest); * not in the preset, at its defaults",
        [
            "statistic",
            "samples",
            "seconds a network",
            "% of training",
            "% of FLOPs",
            "% of calls",
            "straightforward / ours",
        ],
        rows,
    )
    share = [mine / whole for mine, whole in zip(suite, training, strict=True)]
    flops, calls = spent.shares(whole)
    print(f"a replicate's training: {whole.flops:.3g} FLOPs, {whole.calls:.3g} operator calls")
    print(
        f"the preset's suite: {spread([100 * s for s in share])} % of a replicate's training by time, "
        f"{100 * flops:.3g} % by FLOPs, {100 * calls:.3g} % by operator calls"
    )
    print(
        result(
            "measure_cost",
            [BUDGET / s for s in share],
            1.0,
            gpu=device == "cuda",
            packages=("torch", "hessian-eigenthings"),
            more={"share": round(statistics.median(share), 4), "flops": round(flops, 4), "calls": round(calls, 4)},
        )
    )


if __name__ == "__main__":
    main()

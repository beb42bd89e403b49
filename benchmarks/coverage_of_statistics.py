"""How often value +- t * standard error of a statistic holds what it speaks of.

    python -m benchmarks.coverage_of_statistics > benchmarks/results/coverage_of_statistics.md

A small network with attention is trained once and held. Images are digits, shifted at random and with noise: a population
without end, from which each repetition draws its own. It counts how often .95 intervals hold the population's value, which is
the statistic's on up to 100,000 images. Statistics whose error is over random directions, moves or probes keep their images
and draw those anew; the Hessian's values are those of the whole matrix.

Takes about 25 minutes on one core. A coverage's standard error is sqrt(p (1 - p) / n).
"""

import argparse
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import stats
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import common
from study.registry import DATASETS
from study.smoothness import Estimate, MeasureContext, measure, parse_settings

_POPULATION = 100_000
_HELD = 64
_LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Case:
    """``estimates`` of a statistic at ``settings``, on ``num_images`` images or over ``draws`` with images held.

    ``whole`` are the settings that give the population's value; errors of ``known`` are no spread over few samples, so they
    need no Student's t; ``shared``: samples have images in common. Logits are multiplied by ``times``: larger ones saturate.
    """

    statistic: str
    estimates: tuple[str, ...]
    settings: Mapping[str, Any]
    whole: Mapping[str, Any] = field(default_factory=dict)
    num_images: int = 360
    draws: bool = False
    known: tuple[str, ...] = ()
    shared: bool = False
    times: float = 1.0
    repetitions: int = 200


_KINDS = ("same", "different")
_PATH = (
    "excess_variation", "excess_variation_log", "excess_variation_unit_logits", "second_difference", "linear_gap",
    "label_flips", "miss_rate", "loss_bump",
)  # fmt: skip
_SCALES = ("probabilities", "logits", "unit_logits")
_IMPORTANCE = ("spearman", "kendall", "activation", "per_image", "ratio")
CASES = [
    Case(
        statistic="input_jacobian",
        estimates=tuple(f"jacobian_{scale}_{name}" for scale in _SCALES for name in ("mean", "mean_log", "rms")),
        settings={"num_samples": 256},
        whole={"num_samples": 20_000},
    ),
    Case(
        statistic="input_jacobian",
        estimates=tuple(f"jacobian_probabilities_{name}" for name in ("mean", "mean_log", "rms")),
        settings={"num_samples": 256},
        whole={"num_samples": 20_000},
        times=5.0,
    ),
    Case(
        statistic="frequency",
        estimates=("frequency_logits_same_above_2", "frequency_logits_different_above_2"),
        settings={"num_pairs": 1000, "num_steps": 8, "above": [1, 2]},
        whole={"num_pairs": 40_000},
        shared=True,
        repetitions=100,
    ),
    Case(
        statistic="path",
        estimates=(*(f"path_{kind}_{name}" for kind in _KINDS for name in _PATH), "path_different_length_ratio"),
        settings={"num_pairs": 1000, "num_steps": 8},
        whole={"num_pairs": 40_000},
        shared=True,
    ),
    Case(
        statistic="hessian",
        estimates=("hessian_trace", "hessian_negative_share", "hessian_zero_share"),
        settings={"num_probes": 5, "num_steps": 20, "max_steps": 20},
        draws=True,
        known=("hessian_trace",),
    ),
    Case(
        statistic="attention_importance",
        estimates=tuple(f"attention_importance_{name}_{kind}" for kind in ("zero", "taylor") for name in _IMPORTANCE),
        settings={"num_samples": 256, "num_halves": 2, "num_shuffles": 10},
        whole={"num_samples": 10_000},
        repetitions=100,
    ),
    Case(
        statistic="loss_slices",
        estimates=("loss_slices_rise", "loss_slices_rise_log", "loss_slices_curvature"),
        settings={"num_directions": 5, "num_points": 5, "num_square": 3},
        whole={"num_directions": 2_000},
        draws=True,
    ),
    Case(
        statistic="local_lipschitz",
        estimates=tuple(f"lipschitz_{scale}_{name}" for scale in _SCALES for name in ("mean", "mean_log", "p95")),
        settings={"num_samples": 64},
        whole={"num_samples": 10_000},
    ),
    Case(
        statistic="noise_stability",
        estimates=tuple(f"noise_{sigma}_{name}" for sigma in (4, 16, 64) for name in ("l1", "l1_tempered", "flip_rate")),
        settings={"num_samples": 360, "sigmas": [4.0, 16.0, 64.0]},
        whole={"num_samples": 40_000},
    ),
    Case(
        statistic="input_curvature",
        estimates=("curvature_0.5_mean", "curvature_0.5_tempered_mean", "curvature_0.5_mean_log"),
        settings={"num_samples": 360, "steps": [0.5]},
        whole={"num_samples": 20_000},
    ),
    Case(
        statistic="linear_regions",
        estimates=(
            "regions_same_transitions_log", "regions_different_transitions_log", "regions_different_excess",
            "regions_different_per_length", "regions_noise_16_transitions_log",
        ),
        settings={"num_pairs": 128, "num_samples": 128, "num_steps": 8, "sigmas": [16.0]},
        whole={"num_pairs": 20_000, "num_samples": 10_000},
        shared=True,
    ),
    Case(
        statistic="decision_regions",
        estimates=tuple(f"decision_regions_{name}" for name in ("components", "classes", "excess")),
        settings={"num_planes": 20, "num_points": 15},
        whole={"num_planes": 4_000},
        shared=True,
    ),
    Case(
        statistic="path_picture",
        estimates=("path_picture_third_class",),
        settings={"num_pairs": 8, "num_steps": 16},
        whole={"num_pairs": 20_000},
        shared=True,
    ),
    Case(
        statistic="adaptive_sharpness",
        estimates=("sharpness_linf_0.008_max", "sharpness_linf_0.008_unit_logits_max"),
        settings={"num_samples": 256, "rhos": [0.008], "average_rhos": [0.05], "num_draws": 2},
        whole={"num_samples": 5_000},
        repetitions=100,
    ),
    Case(
        statistic="adaptive_sharpness",
        estimates=("sharpness_0.05_mean", "sharpness_0.2_mean", "sharpness_0.2_unit_logits_mean"),
        settings={"rhos": [0.008], "num_steps": 1, "num_draws": 10},
        whole={"num_draws": 5_000},
        draws=True,
    ),
    Case(
        statistic="attention_shapley",
        estimates=tuple(f"attention_shapley_{name}" for name in ("spearman", "kendall", "activation", "ablation")),
        settings={"num_samples": 32, "num_orders": 32},
        whole={"num_samples": 500, "num_orders": 64},
        repetitions=50,
    ),
]  # fmt: skip


class Gated(nn.Module):
    """A gate a channel, from the channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, channels), nn.Sigmoid(),
            nn.Unflatten(1, (channels, 1, 1)),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, C, H, W), each channel times its gate."""
        gated: Tensor = x * self.gate(x)
        return gated


class Population:
    """Digits moved by up to one pixel, with noise: images (n, 1, 8, 8) in [0, 1] and their labels, any number of them."""

    def __init__(self) -> None:
        pool = DATASETS["digits"].build().pool
        self._images, self._labels = pool.pixels(), pool.labels

    def draw(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """``n`` independent images with labels."""
        generator = torch.Generator().manual_seed(seed)
        which = torch.randint(len(self._images), (n,), generator=generator)
        shift = torch.randint(-1, 2, (n, 2), generator=generator)
        row, column = ((torch.arange(8) + shift[:, [side]]).clamp(0, 7) for side in (0, 1))
        x = self._images[which[:, None, None], 0, row[:, :, None], column[:, None, :]][:, None]
        noise = 0.03 * torch.randn(x.shape, generator=generator)
        return (x + noise).clamp(0, 1), self._labels[which]


class Times(nn.Module):
    """A network whose logits are multiplied."""

    def __init__(self, model: nn.Module, times: float) -> None:
        super().__init__()
        self.model, self.times = model, times

    def forward(self, x: Tensor) -> Tensor:
        """Logits of ``x``."""
        logits: Tensor = self.times * self.model(x)
        return logits


def trained(population: Population) -> nn.Module:
    """A network of two gated layers of 16 channels."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), Gated(16),
        nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(), Gated(16),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(1_000):
        x, y = population.draw(128, 10**9 + step)
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


def context_of(model: nn.Module, x: Tensor, y: Tensor, seed: int, temperature: float) -> MeasureContext:
    """The context in which every split is these images."""
    return MeasureContext(
        model=model, images={"test": x, "train": x}, labels={"test": y, "train": y}, num_classes=10,
        temperature=temperature, temperature_converged=True, seed=seed, chunk=1024,
    )  # fmt: skip


def measured(case: Case, context: MeasureContext, more: Mapping[str, Any]) -> dict[str, Estimate]:
    """The statistic's estimates."""
    return measure(case.statistic, parse_settings(case.statistic, {**case.settings, **more}), context)


def spectrum(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """The Hessian's trace and shares of eigenvalues, from the whole matrix."""
    weights = {name: p.detach().double() for name, p in model.named_parameters()}
    buffers = {name: b.double() if b.is_floating_point() else b for name, b in model.named_buffers()}
    sizes = [w.numel() for w in weights.values()]

    def loss(flat: Tensor) -> Tensor:
        parts = zip(weights.items(), torch.split(flat, sizes), strict=True)
        moved = {name: part.view_as(w) for (name, w), part in parts}
        return functional.cross_entropy(torch.func.functional_call(model, {**moved, **buffers}, (x.double(),)), y)

    flat = torch.cat([w.flatten() for w in weights.values()])
    eigenvalues = torch.linalg.eigvalsh(torch.func.jacrev(torch.func.grad(loss), chunk_size=32)(flat))
    limit = 1e-3 * eigenvalues[-1]
    return {
        "hessian_trace": float(eigenvalues.sum()),
        "hessian_negative_share": float((eigenvalues < -limit).double().mean()),
        "hessian_zero_share": float((eigenvalues.abs() <= limit).double().mean()),
    }


def rows_of(case: Case, model: nn.Module, population: Population, temperature: float, most: int) -> list[list[str]]:
    """One row per estimate."""
    if case.times != 1:
        model = Times(model, case.times).eval()
    held = population.draw(_HELD, 7)
    if case.statistic == "hessian":
        truth = spectrum(model, *held)
    else:
        whole = held if case.draws else population.draw(_POPULATION, 8)
        large = measured(case, context_of(model, *whole, seed=10**6, temperature=temperature), case.whole)
        truth = {name: large[name].value for name in case.estimates}
    repetitions, found = min(case.repetitions, most), []
    for seed in range(repetitions):
        x, y = held if case.draws else population.draw(case.num_images, 100 + seed)
        found.append(measured(case, context_of(model, x, y, seed=seed, temperature=temperature), {}))
    return [_row(case, name, truth[name], [each[name] for each in found]) for name in case.estimates]


def _row(case: Case, name: str, truth: float, found: list[Estimate]) -> list[str]:
    known = [each for each in found if math.isfinite(each.value) and math.isfinite(each.stderr)]
    value, stderr = (np.array([getattr(each, of) for each in known]) for of in ("value", "stderr"))
    num = known[0].num_samples
    degrees = math.inf if name in case.known else (num if case.draws else min(num, case.num_images)) - 1
    quantile = float(stats.t.ppf((1 + _LEVEL) / 2, degrees))
    spread = value.std(ddof=1)
    plain = [_as_if_independent(each, name) for each in known] if case.shared else []
    return [
        name if case.times == 1 else f"{name}, logits times {case.times:g}",
        str(num) if case.draws or num == case.num_images else f"{num} of {case.num_images} images",
        "1.96" if name in case.known else f"{quantile:.2f}",
        f"{np.mean(abs(value - truth) <= quantile * stderr):.3f}",
        f"{np.mean(abs(value - truth) <= quantile * np.array(plain)):.3f}"
        if np.isfinite(plain).all() and plain
        else "",
        f"{math.sqrt(np.mean(stderr**2)) / spread:.2f}",
        f"{(value.mean() - truth) / spread:+.2f}",
        f"{len(known)} of {len(found)}" if len(known) < len(found) else str(len(found)),
    ]


def _as_if_independent(found: Estimate, name: str) -> float:
    """The standard error if the values behind an estimate shared no image; nan of a ratio."""
    if found.samples is None:
        return math.nan
    plain = float(found.samples.std()) / math.sqrt(len(found.samples))
    return plain / math.exp(found.value) if name.endswith("_log") else plain


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[case.statistic for case in CASES], metavar="STATISTIC")
    parser.add_argument("--repetitions", type=int, default=10**6, help="at most so many")
    given = parser.parse_args()
    torch.set_num_threads(1)
    population = Population()
    model = trained(population)
    with torch.no_grad():
        x, y = population.draw(_POPULATION, 9)
        logits = model(x)
    temperature, right = 1.2, float((logits.argmax(1) == y).double().mean())
    rows = []
    for case in CASES:
        if case.statistic in given.only:
            rows += rows_of(case, model, population, temperature, given.repetitions)
            print(*map("  ".join, rows[-len(case.estimates) :]), sep="\n", file=sys.stderr)
    headings = ["estimate", "samples", "t", "coverage", "as if independent", "stated / actual error", "bias", "n"]
    machine = ", ".join([common.hardware(), *(f"{name} {of}" for name, of in common.versions("torch").items())])
    print("# How often intervals of statistics hold\n")
    print(
        f"Made by `python -m benchmarks.coverage_of_statistics` on one core of {machine}. One network, {right:.3f} right, and "
        "its temperature are held. `coverage`: share of n samples of images (or of directions, moves, probes) in which value "
        "+- t * standard error holds the population's value; its own standard error is .015 at .95 and n = 200, .022 at n = "
        "100. `as if independent`: the same with the error of independent samples, where images are shared. `stated / actual "
        "error`: root mean square of the standard errors over the values' standard deviation. `bias`: mean value less the "
        "population's, in such standard deviations.\n"
    )
    print(tabulate(rows, headings, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()

"""What a study will cost here: training steps, evaluations and measurements are timed, then multiplied.

Images are random pixels of the right shape, so that a study can be planned before its data is there. A slow step is timed on
few images and scaled. Statistics are timed on one small network, in units of its forward pass, for they cost forward and
backward passes of whatever network they are taken on.
"""

import contextlib
import dataclasses
import math
import time
from dataclasses import dataclass

import torch

from study.config import TrialConfig, is_own
from study.data.dataset import Facts, dataset_facts
from study.errors import UserError
from study.models import num_params
from study.planning.layout import Cell, Plan
from study.planning.networks import counted_flops, num_activations, shapes, untrained
from study.resources.timing import FEW_IMAGES, few_images, medians, random_split, timer, torch_threads
from study.seeding import derive_seed
from study.smoothness import MeasureContext, measure, parse_settings

# If a step of few images takes longer, in seconds, it is scaled up instead of timing a whole batch.
_SLOW_STEP = 0.2
# A training step costs about three forward passes: one forward, two for the gradients.
_PASSES_A_STEP = 3
# The network on which statistics are timed, and the largest side of its images.
_SMALL = {"network": "cifar_resnet", "depth": 8, "width": 8}
_SMALL_SIDE = 16
# No statistic needs more images than this of a split, however large it is.
_MOST_IMAGES = 2048

# A plan times for so many seconds, cells and then statistics: what is left follows from the FLOPs, or is told as too long.
_MOST_SECONDS = 60.0
# Bytes that a batch may take on a CPU, at four numbers kept for each activation of every pixel and layer.
_MOST_BYTES = 4e9

Passes = dict[str, float]


class _TimeIsUpError(Exception):
    """A statistic takes too long to be timed."""


@dataclass(frozen=True, kw_only=True)
class CellForecast:
    """Cost of one cell: trained parameters, FLOPs per image, seconds per replicate by phase, FLOPs of all its training.

    ``short_seconds``: all shortened trainings of a replicate, each measured. ``landscape_seconds``: of a replicate that has
    them. ``during_seconds``: what is measured in the middle of one training. ``timed``: False where the time follows from the
    FLOPs of the cells that were timed.
    """

    cell: str
    params: int
    flops: int
    search_seconds: float
    confirm_seconds: float
    measure_seconds: float
    short_seconds: float
    landscape_seconds: float
    during_seconds: float
    training_flops: float
    timed: bool = True


def forecast_device(plan: Plan) -> str:
    """The device for trials of ``plan`` on this machine: ``cuda`` or ``cpu``."""
    return "cuda" if plan.spec.resources.gpus and torch.cuda.is_available() else "cpu"


def forecast(plan: Plan, device: str = "cpu") -> list[CellForecast]:
    """Time every cell's network on this machine, with as many threads as a trial has. Trains nothing."""
    passes: dict[str, Passes] = {}
    rates: dict[str, float] = {}
    cells = []
    started = time.monotonic()
    with torch_threads(plan.spec.resources.threads):
        for cell in plan.cells:
            dataset = cell.settings["dataset"]
            if dataset not in passes:
                passes[dataset] = _measuring_passes(plan, dataset_facts(dataset), device)
                started = time.monotonic()
            if time.monotonic() - started < _MOST_SECONDS:
                rates.pop(dataset, None)
            cells.append(_cell(plan, cell, device, passes[dataset], rates))
    return cells


def total_seconds(plan: Plan, cells: list[CellForecast]) -> float:
    """Seconds of training and measuring of the whole study, in one worker.

    In a joint search cells have no budget of their own: each trial costs the mean over cells.
    """
    blocks, spec = plan.spec.blocks, plan.spec
    if spec.joint:
        search = sum(cell.search_seconds for cell in cells) / len(cells)
        confirm = sum(cell.confirm_seconds + cell.measure_seconds for cell in cells) / len(cells)
        return plan.num_search * search + plan.num_confirm * confirm
    each = (
        spec.budget.search_trials * cell.search_seconds
        + spec.replicates * (cell.confirm_seconds + cell.measure_seconds + cell.during_seconds + cell.short_seconds)
        for cell in cells
    )
    pictured = min(spec.measure.landscape_replicates, blocks * spec.replicates)
    return blocks * sum(each) + pictured * sum(cell.landscape_seconds for cell in cells)


def _cell(plan: Plan, cell: Cell, device: str, passes: Passes, rates: dict[str, float]) -> CellForecast:
    """``rates``: dataset -> seconds of a training step per image and FLOP, where that is known; else it is timed and noted."""
    spec = plan.spec
    config = plan.default_config(cell)
    known = dataset_facts(config.dataset).validated_on(config.validation)
    params, flops = num_params(shapes(config, known)), counted_flops(config, known)
    ranks = spec.resources.data_parallel
    share = dataclasses.replace(config, batch_size=max(1, config.batch_size // ranks))
    timed = config.dataset not in rates
    image_seconds = _image_seconds(share, known, device) if timed else flops * rates[config.dataset]
    rates[config.dataset] = image_seconds / max(flops, 1)
    # the epoch's evaluation is a forward pass of every validation image, by one process
    epoch = image_seconds * (known.num_train / ranks + known.num_val / _PASSES_A_STEP)
    search_epochs = spec.budget.search_epochs or config.epochs
    short = plan.short_epochs(cell)
    confirmed = spec.replicates * (config.epochs + sum(short))
    epochs = spec.blocks * (spec.budget.search_trials * search_epochs + confirmed)
    forward = image_seconds / _PASSES_A_STEP
    num_during = math.ceil(config.epochs / spec.measure.during.every) if spec.measure.during else 0
    return CellForecast(
        cell=cell.name,
        params=params,
        flops=flops,
        search_seconds=search_epochs * epoch,
        confirm_seconds=config.epochs * epoch,
        measure_seconds=passes["statistics"] * forward,
        short_seconds=sum(short) * epoch + len(short) * passes["short"] * forward,
        landscape_seconds=passes["landscapes"] * forward,
        during_seconds=num_during * passes["during.statistics"] * forward,
        training_flops=float(epochs) * known.num_train * _PASSES_A_STEP * flops,
        timed=timed,
    )


def _image_seconds(config: TrialConfig, known: Facts, device: str) -> float:
    """Seconds of a training step per image of its batch."""
    seconds = timer(few_images(config), known, 1, device, steps=1)()
    pixels = min(config.batch_size, known.num_train) * math.prod(known.image_shape[1:])
    each = pixels * config.depth * config.width
    if is_own(config.network):
        each = min(config.batch_size, known.num_train) * num_activations(config, known)
    large = device == "cpu" and 16.0 * each > _MOST_BYTES
    if seconds > _SLOW_STEP or large:
        return seconds / min(FEW_IMAGES, known.num_train)
    return medians({"step": timer(config, known, 1, device, steps=1)})["step"] / min(config.batch_size, known.num_train)


def _measuring_passes(plan: Plan, known: Facts, device: str) -> Passes:
    """Forward passes of one image that the study's statistics cost on a network, by where they stand in ``measure``.

    ``short``: those of ``statistics`` that are taken on shortened trainings too.
    """
    passes = dict.fromkeys(("statistics", "landscapes", "during.statistics", "short"), 0.0)
    chosen, on_short = list(plan.spec.measure.all()), plan.statistics_of(0, "short")
    if not chosen:
        return passes
    channels, height, width = known.image_shape
    small = dataclasses.replace(known, image_shape=(channels, min(height, _SMALL_SIDE), min(width, _SMALL_SIDE)))
    config = TrialConfig.from_mapping({**_SMALL, "dataset": "small", "seed": 0, "split_seed": 0})
    model = untrained(config, known).to(device)
    sizes = {"train": known.num_train, "val": known.num_val, "test": known.num_test}
    parts = {name: random_split(small, min(num, _MOST_IMAGES), device) for name, num in sizes.items()}
    context = MeasureContext.calibrated(
        model=model,
        images={name: part.pixels() for name, part in parts.items()},
        labels={name: part.labels for name, part in parts.items()},
        num_classes=known.num_classes,
        seed=derive_seed(plan.spec.seed, "forecast"),
    )
    pixels = context.images["test"]
    started = time.perf_counter()
    context.logits(pixels)
    forward = (time.perf_counter() - started) / len(pixels)
    begun = time.monotonic()

    def watch(*_: object) -> None:
        if time.monotonic() - begun > _MOST_SECONDS:
            raise _TimeIsUpError

    model.register_forward_pre_hook(watch)
    for where, name, settings in chosen:
        started = time.perf_counter()
        # a UserError: one that this small network has no place for, such as a gate's
        with contextlib.suppress(UserError, _TimeIsUpError):
            measure(name, parse_settings(name, settings), context)
        if time.monotonic() - begun > _MOST_SECONDS:
            raise UserError(
                f"measure.{where}.{name}: the statistics take more than {_MOST_SECONDS:g} s on the smallest network; fewer "
                f"samples, pairs or points than {dict(settings)} would do"
            )
        passes[where] += (spent := (time.perf_counter() - started) / forward)
        passes["short"] += spent if where == "statistics" and name in on_short else 0.0
    return passes

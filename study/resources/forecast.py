"""What a study will cost here: optimisation steps, evaluations and measurements are timed, not guessed, then multiplied.

Images are random numbers of the right shape, so that a study can be planned before its data is there. A step that is slow
is timed on fewer images and scaled. Statistics are timed on one small network, in units of its forward pass, for they cost
forward and backward passes of whatever network they are taken on.
"""

import contextlib
import dataclasses
import math
import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.config import TrialConfig
from study.data.facts import Facts, dataset_facts
from study.errors import UserError
from study.models import num_flops, num_params
from study.planning.plan import Cell, Plan
from study.resources.timing import untrained
from study.seeding import derive_seed
from study.smoothness import MeasureContext, measure, parse_settings
from study.training.light_sgd import LightSGD
from study.training.penalty import jacobian_penalty, unit_directions

_TIMED = 5
# A step on this many images is tried first; one that takes longer than this many seconds is scaled up, not repeated whole.
_FEW_IMAGES = 4
_SLOW_STEP = 0.2
# A training step costs about three forward passes (one forward, two for the gradients).
_PASSES_A_STEP = 3
# The network on which statistics are timed, and the largest side of its images.
_SMALL = {"network": "cifar_resnet", "depth": 8, "width": 8}
_SMALL_SIDE = 16
# No statistic needs more images than this of a split, however large it is.
_MOST_IMAGES = 2048

Passes = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class CellForecast:
    """Cost of one cell: trained parameters, FLOPs of one image, seconds of one replicate by phase, all training's FLOPs.

    ``short_seconds`` are of all shortened trainings of a replicate, each measured; ``landscape_seconds`` of a replicate that
    has them; ``during_seconds`` of what is measured in the middle of one training.
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


def forecast_device(plan: Plan) -> str:
    """Where trials of ``plan`` run, if that is here: ``cuda`` or ``cpu``."""
    return "cuda" if plan.spec.resources.gpus and torch.cuda.is_available() else "cpu"


def forecast(plan: Plan, device: str = "cpu") -> list[CellForecast]:
    """Time every cell's network on this machine, with the study's threads a trial. Trains nothing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(plan.spec.resources.threads)
    try:
        passes: dict[str, Passes] = {}
        cells = []
        for cell in plan.cells:
            dataset = cell.settings["dataset"]
            if dataset not in passes:
                passes[dataset] = _measuring_passes(plan, dataset_facts(dataset), device)
            cells.append(_cell(plan, cell, device, passes[dataset]))
        return cells
    finally:
        torch.set_num_threads(threads)


def total_seconds(plan: Plan, cells: list[CellForecast]) -> float:
    """Seconds of training and measuring of the whole study, in one worker.

    In a joint search, whose cells have no budget of their own, each trial is one of a cell of mean cost.
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


def _cell(plan: Plan, cell: Cell, device: str, passes: Passes) -> CellForecast:
    spec = plan.spec
    config = plan.confirm_config(cell, 0, 0, {name: nuisance.default for name, nuisance in spec.nuisance.items()})
    known = dataset_facts(config.dataset)
    model = untrained(config, known).to(device)
    flops = num_flops(model, known.image_shape)
    ranks = spec.resources.data_parallel
    share = dataclasses.replace(config, batch_size=max(1, config.batch_size // ranks))
    image_seconds = _image_seconds(model, known, share, device)
    # the epoch's evaluation is a forward pass of every validation image, by one process
    epoch = image_seconds * (known.num_train / ranks + known.num_val / _PASSES_A_STEP)
    search_epochs = spec.budget.search_epochs or config.epochs
    short = plan.short_epochs(cell)
    confirmed = spec.replicates * (config.epochs + sum(short))
    epochs = spec.blocks * (spec.budget.search_trials * search_epochs + confirmed)
    forward = image_seconds / _PASSES_A_STEP
    looks = math.ceil(config.epochs / spec.measure.during.every) if spec.measure.during else 0
    return CellForecast(
        cell=cell.name,
        params=num_params(model),
        flops=flops,
        search_seconds=search_epochs * epoch,
        confirm_seconds=config.epochs * epoch,
        measure_seconds=passes["statistics"] * forward,
        short_seconds=sum(short) * epoch + len(short) * passes["statistics"] * forward,
        landscape_seconds=passes["landscapes"] * forward,
        during_seconds=looks * passes["during.statistics"] * forward,
        training_flops=float(epochs) * known.num_train * _PASSES_A_STEP * flops,
    )


def _images(known: Facts, num: int, shape: tuple[int, int, int] | None = None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(derive_seed("forecast", num))
    return torch.rand((num, *(shape or known.image_shape)), generator=generator), torch.arange(num) % known.num_classes


def _image_seconds(model: nn.Module, known: Facts, config: TrialConfig, device: str) -> float:
    """Seconds of an optimisation step for each image of its batch."""
    batch = min(config.batch_size, known.num_train)
    optimizer = LightSGD(model.parameters(), lr=0.0, momentum=config.momentum)

    def seconds(num: int, times: int) -> float:
        pixels, labels = (part.to(device) for part in _images(known, num))
        pixels.requires_grad_(config.jacobian_penalty > 0)
        directions = unit_directions(num, known.num_classes, 0, 0, 0).to(pixels)

        def step() -> float:
            started = time.perf_counter()
            logits = model(pixels)
            loss = functional.cross_entropy(logits, labels)
            if config.jacobian_penalty > 0:
                loss = loss + config.jacobian_penalty / 2 * jacobian_penalty(logits, pixels, directions)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            float(loss.detach())  # waits for the device
            return time.perf_counter() - started

        step()
        return statistics.median(step() for _ in range(times)) / num

    model.train()
    few = min(_FEW_IMAGES, batch)
    first = seconds(few, 1)
    return first if first * few > _SLOW_STEP else seconds(batch, _TIMED)


def _measuring_passes(plan: Plan, known: Facts, device: str) -> Passes:
    """What the study's statistics cost on a network, in forward passes of one image, by where they stand in ``measure``."""
    passes = dict.fromkeys(("statistics", "landscapes", "during.statistics"), 0.0)
    chosen = list(plan.spec.measure.all())
    if not chosen:
        return passes
    channels, height, width = known.image_shape
    shape = (channels, min(height, _SMALL_SIDE), min(width, _SMALL_SIDE))
    config = TrialConfig.from_mapping({**_SMALL, "dataset": "small", "seed": 0, "split_seed": 0})
    model = untrained(config, known).to(device)
    sizes = {"train": known.num_train, "val": known.num_val, "test": known.num_test}
    parts = {name: _images(known, min(num, _MOST_IMAGES), shape) for name, num in sizes.items()}
    context = MeasureContext.calibrated(
        model=model,
        images={name: pixels.to(device) for name, (pixels, _) in parts.items()},
        labels={name: labels.to(device) for name, (_, labels) in parts.items()},
        num_classes=known.num_classes,
        seed=derive_seed(plan.spec.seed, "forecast"),
    )
    pixels = context.images["test"]
    started = time.perf_counter()
    context.logits(pixels)
    forward = (time.perf_counter() - started) / len(pixels)
    for where, name, settings in chosen:
        started = time.perf_counter()
        with contextlib.suppress(UserError):  # one that this small network has no place for, such as a gate's
            measure(name, parse_settings(name, settings), context)
        passes[where] += (time.perf_counter() - started) / forward
    return passes

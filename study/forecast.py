"""What a study will cost here: optimisation steps, evaluations and measurements are timed, not guessed, then multiplied."""

import statistics
import time
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional

from study.config import TrialConfig
from study.data import Dataset, Splits, load_dataset, split
from study.models import build_network, num_flops, num_params
from study.plan import Cell, Plan
from study.seeding import derive_seed
from study.smoothness import MeasureContext, measure, parse_settings

_TIMED = 5


@dataclass(frozen=True, kw_only=True)
class CellForecast:
    """Cost of one cell: trained parameters, FLOPs of one image, and seconds of one replicate by phase."""

    cell: str
    params: int
    flops: int
    search_seconds: float
    confirm_seconds: float
    measure_seconds: float


def forecast(plan: Plan, device: str = "cpu") -> list[CellForecast]:
    """Time every cell's network on this machine, with the study's threads a trial. Trains nothing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(plan.spec.resources.threads)
    try:
        cells = [_cell(plan, cell, device) for cell in plan.cells]
        # measured on one network; the others cost as many times more as their forward pass does
        measuring = _measure_seconds(plan, plan.cells[0], device) / cells[0].flops
        return [replace(cell, measure_seconds=measuring * cell.flops) for cell in cells]
    finally:
        torch.set_num_threads(threads)


def total_seconds(plan: Plan, cells: list[CellForecast]) -> float:
    """Seconds of training and measuring of the whole study, in one worker."""
    blocks, spec = plan.spec.blocks, plan.spec
    each = (
        spec.budget.search_trials * cell.search_seconds
        + spec.replicates * (cell.confirm_seconds + cell.measure_seconds)
        for cell in cells
    )
    return blocks * sum(each)


def _built(plan: Plan, cell: Cell, device: str) -> tuple[TrialConfig, Dataset, Splits, nn.Module]:
    config = plan.confirm_config(cell, 0, 0, {name: nuisance.default for name, nuisance in plan.spec.nuisance.items()})
    dataset = load_dataset(config.dataset)
    model = build_network(config, num_classes=dataset.num_classes, mean=dataset.mean, deviation=dataset.deviation)
    return config, dataset, split(dataset, config.split_seed), model.to(device)


def _cell(plan: Plan, cell: Cell, device: str) -> CellForecast:
    config, dataset, splits, model = _built(plan, cell, device)
    epoch = _epoch_seconds(model, splits, config, device)
    return CellForecast(
        cell=cell.name,
        params=num_params(model),
        flops=num_flops(model, dataset.image_shape),
        search_seconds=(plan.spec.budget.search_epochs or config.epochs) * epoch,
        confirm_seconds=config.epochs * epoch,
        measure_seconds=0.0,
    )


def _epoch_seconds(model: nn.Module, splits: Splits, config: TrialConfig, device: str) -> float:
    batch = min(config.batch_size, len(splits.train))
    pixels, labels = splits.train.pixels(slice(batch)).to(device), splits.train.labels[:batch].to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=config.momentum)

    def step() -> float:
        started = time.perf_counter()
        loss = functional.cross_entropy(model(pixels), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        float(loss.detach())  # waits for the device
        return time.perf_counter() - started

    model.train()
    step()
    seconds = statistics.median(step() for _ in range(_TIMED))
    # a forward pass takes about a third of a step
    return seconds * (len(splits.train) // batch + len(splits.val) / batch / 3)


def _measure_seconds(plan: Plan, cell: Cell, device: str) -> float:
    _, dataset, splits, model = _built(plan, cell, device)
    parts = {"val": splits.val, "test": splits.test}
    context = MeasureContext.calibrated(
        model=model,
        images={name: part.pixels().to(device) for name, part in parts.items()},
        labels={name: part.labels.to(device) for name, part in parts.items()},
        num_classes=dataset.num_classes,
        seed=derive_seed(plan.spec.seed, "forecast"),
    )
    started = time.perf_counter()
    for name, settings in plan.spec.measure.statistics.items():
        measure(name, parse_settings(name, settings), context)
    return time.perf_counter() - started

"""The statistics on any trained network, without a study, Ray or MLflow.

``measure_checkpoint`` takes the ``final.pt`` or ``best.pt`` of a replicate, which tells how to rebuild the network and its
split. ``measure_network`` takes any ``nn.Module`` that maps pixels in [0, 1] to logits, also in a notebook.
``measure_file`` is the command ``measure``.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from study.config import TrialConfig
from study.data import Dataset, load_dataset, split
from study.errors import UserError, nearest
from study.measuring.loading import as_device, load_own, one_line, read_weights
from study.measuring.replicate import estimates_of, measure_context
from study.models import build_network
from study.registry import DATASETS, STATISTICS
from study.smoothness import Estimate, in_turn, parse_settings
from study.smoothness.context import exact_evaluation

Chosen = Mapping[str, Mapping[str, Any]]
Say = Callable[[str], None]


class Measured(dict[str, Estimate]):
    """A statistic's estimates by name. ``error`` says why some or all are missing; ``kept`` are the tables it keeps."""

    def __init__(
        self, estimates: Mapping[str, Estimate], error: str = "", kept: Mapping[str, Mapping[str, Tensor]] | None = None
    ) -> None:
        super().__init__(estimates)
        self.error, self.kept = error, dict(kept or {})


Found = dict[str, Measured]


def measure_network(
    model: nn.Module,
    dataset: str | Dataset,
    statistics: Chosen | None = None,
    *,
    seed: int = 0,
    split_seed: int = 0,
    batch_size: int = 128,
    say: Say | None = None,
) -> Found:
    """Statistic -> its estimates by name; a statistic that fails has its error, and the others stand.

    ``model`` maps (N, C, H, W) pixels in [0, 1] of ``dataset`` (a registered name, or a ``Dataset``) to logits
    (N, num_classes), on any device with float64. Meanwhile batch norm is re-estimated on the training split of ``split_seed``;
    the model is left as it was. ``statistics`` maps names to settings that differ from the defaults (default: all statistics).
    ``say`` is told each statistic and its duration. Raises ``UserError`` for an unknown dataset, statistic or setting, and for
    outputs that do not fit the dataset or are not finite.
    """
    chosen = {name: {} for name in STATISTICS.names()} if statistics is None else statistics
    for name, given in chosen.items():
        parse_settings(name, given)
    known = load_dataset(dataset) if isinstance(dataset, str) else dataset
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    splits = split(known, split_seed)
    held = {"train": splits.train.held(), "val": splits.val.held(), "test": splits.test.held()}
    parts = {name: part.to(device) for name, part in held.items()}
    _check_fits(model, known, parts["val"].pixels())
    say = say or (lambda line: None)
    say(f"measuring {len(chosen)} statistics on {known.name} ({device})")
    found: Found = {}
    with measure_context(model, parts, known.num_classes, seed=seed, batch_size=batch_size) as context:
        for number, name in enumerate(in_turn(chosen), 1):
            started, own = time.perf_counter(), dataclasses.replace(context, kept={})
            found[name] = Measured(*estimates_of(name, chosen[name], own), own.kept)
            outcome = " (with an error)" if found[name].error else ""
            say(f"{number}/{len(chosen)} {name}: {time.perf_counter() - started:.1f} s{outcome}")
    return {name: found[name] for name in chosen}


def measure_checkpoint(
    path: Path, statistics: Chosen | None = None, *, device: str = "cpu", say: Say | None = None
) -> Found:
    """``measure_network`` with a replicate's weights, network, split and seed. Raises ``UserError`` for another file."""
    where, kept = as_device(device), read_weights(path)
    if not {"model", "config"} <= set(kept):
        raise UserError(f"{path} is no replicate's checkpoint (final.pt, best.pt); give --model for a state dict")
    config = TrialConfig.from_mapping(kept["config"])
    known = load_dataset(config.dataset)
    model = build_network(config, num_classes=known.num_classes, mean=known.mean, deviation=known.deviation)
    model.load_state_dict(kept["model"])
    seeds = {"seed": config.seed, "split_seed": config.split_seed}
    return measure_network(model.to(where), known, statistics, **seeds, batch_size=config.batch_size, say=say)


def measure_file(path: Path, statistics: Chosen, *, model: str, dataset: str, device: str, say: Say) -> Found:
    """The replicate at ``path``, or with ``model`` (module:function) the state dict there, measured on ``dataset``.

    Raises ``UserError`` as the two above and ``load_own`` do, and if only one of ``model`` and ``dataset`` is given.
    """
    if not model:
        if dataset:
            raise UserError(f"--dataset {dataset!r} goes with --model: a replicate's checkpoint names its own")
        return measure_checkpoint(path, statistics, device=device, say=say)
    if not dataset:
        raise UserError(f"--model needs --dataset, what the network is measured on: {', '.join(DATASETS.names())}")
    known = load_dataset(dataset)
    return measure_network(load_own(model, path, device=device), known, statistics, say=say)


def parse_statistics(names: Sequence[str], settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Statistics by name (all where none is named) with the settings of ``STATISTIC.KEY=VALUE``. Raises ``UserError``."""
    chosen: dict[str, dict[str, Any]] = {name: {} for name in (names or STATISTICS.names())}
    for text in settings:
        where, sign, value = text.partition("=")
        name, dot, key = where.partition(".")
        if not (sign and dot):
            raise UserError(f"--set {text!r}: expected STATISTIC.KEY=VALUE")
        if name not in chosen:
            raise UserError(f"--set {text!r}: {name!r} is not measured{nearest(name, chosen)}")
        try:
            chosen[name][key] = json.loads(value)
        except ValueError:
            chosen[name][key] = value
    for name, given in chosen.items():
        parse_settings(name, given)
    return chosen


def as_plain(found: Found) -> dict[str, Any]:
    """``found`` as JSON values. NaN and Inf are null; the reason of missing estimates is under ``error``."""
    return {
        statistic: {name: _plain(estimate) for name, estimate in measured.items()}
        | ({"error": measured.error} if measured.error else {})
        for statistic, measured in found.items()
    }


def _plain(estimate: Estimate) -> dict[str, Any]:
    record = dict(estimate.as_record())
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}


@torch.no_grad()
def _check_fits(model: nn.Module, dataset: Dataset, images: Tensor) -> None:
    """Raise ``UserError`` unless ``model`` maps images of ``dataset`` to one logit per class."""
    shape = dataset.image_shape
    try:
        with exact_evaluation(model):
            logits = model(images[:2])
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            f"the network does not take the images of {dataset.name}, (N, {', '.join(map(str, shape))}): {one_line(error)}"
        ) from error
    if not isinstance(logits, Tensor):
        raise UserError(f"the network gives a {type(logits).__name__}, not a tensor of logits")
    expected = (len(images[:2]), dataset.num_classes)
    if logits.shape != expected:
        raise UserError(
            f"the network gives outputs of shape {tuple(logits.shape)} for {expected[0]} images; {dataset.name} has "
            f"{dataset.num_classes} classes, so ({expected[0]}, {dataset.num_classes}) was expected"
        )

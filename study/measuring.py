"""https://arxiv.org/abs/2106.15067: the statistics on any trained network, without a study, without Ray or MLflow.

``measure_checkpoint`` takes the ``final.pt`` or ``best.pt`` of a replicate, which says itself how to rebuild the network and
its split; ``measure_network`` takes any ``nn.Module`` that maps pixels in [0, 1] to logits, in a notebook as well.
"""

import importlib
import json
import math
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from study.config import TrialConfig
from study.data import load_dataset, split
from study.errors import UserError, nearest
from study.models import build_network
from study.registry import STATISTICS
from study.smoothness import Estimate, MeasureContext, measure, parse_settings, reestimated_batchnorm

Found = dict[str, dict[str, Estimate] | str]


def measure_network(
    model: nn.Module,
    dataset: str,
    statistics: Mapping[str, Mapping[str, Any]],
    *,
    seed: int = 0,
    split_seed: int = 0,
    batch_size: int = 128,
) -> Found:
    """Statistic -> its estimates by name, or why there are none; one that fails leaves the others alone.

    ``model`` maps (N, C, H, W) pixels in [0, 1] of ``dataset`` to logits (N, num_classes), on any device; batch norm is
    re-estimated on the training split of ``split_seed`` for the while, and the model is left as it was. ``statistics`` maps
    names to settings that differ from the defaults. Raises ``UserError`` for an unknown dataset, statistic or setting, and
    where the outputs do not fit the dataset.
    """
    settings = {name: parse_settings(name, given) for name, given in statistics.items()}
    known = load_dataset(dataset)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    splits = split(known, split_seed)
    held = {"train": splits.train.held(), "val": splits.val.held(), "test": splits.test.held()}
    parts = {name: part.to(device) for name, part in held.items()}
    pixels = {name: part.pixels() for name, part in parts.items()}
    found: Found = {}
    with reestimated_batchnorm(model, pixels["train"], batch_size):
        context = MeasureContext.calibrated(
            model=model,
            images=pixels,
            labels={name: part.labels for name, part in parts.items()},
            num_classes=known.num_classes,
            seed=seed,
        )
        for name, given in settings.items():
            try:
                found[name] = measure(name, given, context)
            except UserError as error:
                found[name] = str(error)
    return found


def measure_checkpoint(path: Path, statistics: Mapping[str, Mapping[str, Any]], *, device: str = "cpu") -> Found:
    """The same for a replicate's kept weights: network, split and seed are the replicate's, so numbers are its study's.

    Raises ``UserError`` for a file that is no such checkpoint.
    """
    kept = _loaded(path)
    if not {"model", "config"} <= set(kept):
        raise UserError(f"{path} is no replicate's checkpoint (final.pt, best.pt); give --model for a state dict")
    config = TrialConfig.from_mapping(kept["config"])
    known = load_dataset(config.dataset)
    model = build_network(config, num_classes=known.num_classes, mean=known.mean, deviation=known.deviation)
    model.load_state_dict(kept["model"])
    return measure_network(
        model.to(device),
        config.dataset,
        statistics,
        seed=config.seed,
        split_seed=config.split_seed,
        batch_size=config.batch_size,
    )


def load_own(function: str, weights: Path, *, device: str = "cpu") -> nn.Module:
    """The network that ``module:function`` makes, with the state dict at ``weights``.

    Importing a module runs its code: only one's own belongs here. Raises ``UserError`` where the function or the weights do
    not fit.
    """
    module, _, name = function.partition(":")
    try:
        made = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, TypeError) as error:
        raise UserError(f"--model {function!r}: expected module:function that gives a network ({error})") from None
    if not isinstance(made, nn.Module):
        raise UserError(f"--model {function!r} gives a {type(made).__name__}, not a torch.nn.Module")
    try:
        made.load_state_dict(_loaded(weights))
    except RuntimeError as error:
        raise UserError(f"{weights} does not fit --model {function}: {' '.join(str(error).split())}") from None
    return made.to(device)


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
    """``found`` as JSON values; what is not a number is null, a fault stands under ``error``."""
    return {
        statistic: {"error": estimates}
        if isinstance(estimates, str)
        else {name: _plain(estimate) for name, estimate in estimates.items()}
        for statistic, estimates in found.items()
    }


def _plain(estimate: Estimate) -> dict[str, Any]:
    record = dict(estimate.as_record())
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}


def _loaded(path: Path) -> dict[str, Any]:
    # not ``load_checkpoint``, which sets a damaged file aside: this one may be the user's own
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no checkpoint at {path}") from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} cannot be read as weights: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(kept, dict):
        raise UserError(f"{path} holds a {type(kept).__name__}, not a state dict")
    return kept

"""The statistics on any trained network, without a study, Ray or MLflow.

``measure_checkpoint`` takes the ``final.pt`` or ``best.pt`` of a replicate, which tells how to rebuild the network and its
split. ``measure_network`` takes any ``nn.Module`` that maps pixels in [0, 1] to logits, also in a notebook.
``measure_file`` is the command ``measure``. Files are read with ``weights_only=True``: no code in them is run.
"""

import dataclasses
import importlib
import json
import math
import pickle
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from study.atomic import check_archive
from study.config import TrialConfig, is_own
from study.data import Dataset, load_dataset, split
from study.errors import UserError, nearest
from study.measuring.replicate import estimates_of, measure_context
from study.measuring.state_dict import few, fit_state_dict
from study.models import build_network
from study.plugins import load_plugins, refuse_foreign
from study.registry import DATASETS, NETWORKS, STATISTICS
from study.smoothness import Estimate, in_turn, parse_settings
from study.smoothness.batchnorm import not_reestimated
from study.smoothness.context import exact_evaluation

Chosen = Mapping[str, Mapping[str, Any]]
Say = Callable[[str], None]
_LONGEST = 200
# images by which running statistics are looked for
_FEW = 8


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
    validation: str = "held_out",
    say: Say | None = None,
) -> Found:
    """Statistic -> its estimates by name; a statistic that fails has its error, and the others stand.

    ``model`` maps (N, C, H, W) pixels in [0, 1] of ``dataset`` (a registered name, or a ``Dataset``) to logits
    (N, num_classes), on any device with float64. Meanwhile batch norm is re-estimated on the training split of ``split_seed``;
    the model is left as it was. ``validation`` is that of a replicate's settings. ``statistics`` maps names to settings that
    differ from the defaults (default: all statistics). ``say`` is told each statistic and its duration, and which running
    statistics are left as training made them. Raises ``UserError`` for unknown names, and for outputs that do not fit.
    """
    chosen = {name: {} for name in STATISTICS.names()} if statistics is None else statistics
    for name, given in chosen.items():
        parse_settings(name, given)
    known = load_dataset(dataset) if isinstance(dataset, str) else dataset
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    splits = split(known.to(device), split_seed, validation)
    parts = {"train": splits.train.held(), "val": splits.val.held(), "test": splits.test.held()}
    _check_fits(model, known, parts["val"].pixels(slice(2)))
    say = say or (lambda line: None)
    say(f"measuring {len(chosen)} statistics on {known.name} ({device})")
    if left := _left_as_trained(model, parts["train"].pixels(slice(_FEW))):
        say(f"left as training made them, for want of reset_running_stats() and momentum beside them: {few(left)}")
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
    where, kept = as_device(device), _read_weights(path)
    if not {"model", "config"} <= set(kept):
        raise UserError(f"{path} is no replicate's checkpoint (final.pt, best.pt); give --model for a state dict")
    try:
        config = TrialConfig.from_mapping(kept["config"])
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} holds a configuration that is none: {_one_line(error)}") from None
    known = load_dataset(config.dataset)
    if is_own(config.network) and config.network not in NETWORKS:
        refuse_foreign([config.network])
        load_plugins([config.network], str(Path.cwd()))
    model = build_network(
        config, num_classes=known.num_classes, image_shape=known.image_shape, mean=known.mean, deviation=known.deviation
    )
    _fill(model, kept["model"], path, "the configuration that it holds")
    seeds = {"seed": config.seed, "split_seed": config.split_seed}
    return measure_network(
        model.to(where), known, statistics, **seeds, batch_size=config.batch_size, validation=config.validation, say=say
    )


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
    return measure_network(load_own(model, path, device=device, say=say), known, statistics, say=say)


def as_device(name: str) -> torch.device:
    """The device called ``name`` ("cpu", "cuda", "cuda:1"). Raises ``UserError`` if it is missing, or has no float64."""
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it holds no values")
        # statistics are summed in float64, which mps lacks
        torch.zeros(1, dtype=torch.float64, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise UserError(f"device {name!r} cannot be used ({_one_line(error)}); here: {', '.join(there)}") from None
    return device


def load_own(function: str, weights: Path, *, device: str = "cpu", say: Say = lambda line: None) -> nn.Module:
    """The network that ``module:function`` makes, with the state dict at ``weights``, in evaluation mode.

    The module search path includes the current folder. The state dict may be wrapped and its names may have prefixes, as
    ``fit_state_dict`` says; ``say`` is told what else the file held. Importing the module runs its code. Raises ``UserError``
    if the function, the weights or the device do not fit.
    """
    where, module_and_name = as_device(device), function.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        made = getattr(importlib.import_module(module_and_name[0]), module_and_name[2])()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"--model {function!r}: expected module:function that gives a network ({error})") from None
    if not isinstance(made, nn.Module):
        raise UserError(f"--model {function!r} gives a {type(made).__name__}, not a torch.nn.Module")
    others = _fill(made, _read_weights(weights), weights, f"--model {function}")
    if others:
        say(f"left out of {weights}, as no part of the network: {few(others)}")
    return made.to(where).eval()


def _fill(model: nn.Module, held: Any, path: Path, what: str) -> list[str]:
    """``fit_state_dict`` with ``held``, which was read at ``path``. Raises ``UserError``: it does not fit ``what``."""
    where = f"{path} does not fit {what}"
    try:
        return fit_state_dict(model, held, where)
    except UserError:
        raise
    except (RuntimeError, TypeError, AttributeError, KeyError, ValueError) as error:
        raise UserError(f"{where}: {_one_line(error)}") from None


def _read_weights(path: Path) -> dict[str, Any]:
    """What ``torch.save`` wrote at ``path``: a dictionary, on the CPU. Raises ``UserError`` for anything else."""
    # not ``load_checkpoint``, which renames a damaged file: this one may be the user's own
    try:
        if zipfile.is_zipfile(path):
            check_archive(path)
        kept = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no checkpoint at {path}") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} cannot be read as weights alone: save a state dict, torch.save(model.state_dict(), path)"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise UserError(f"{path} cannot be read as weights: {_one_line(error)}") from None
    if not isinstance(kept, dict):
        raise UserError(f"{path} holds a {type(kept).__name__}, not a state dict")
    return dict(kept)


def _one_line(error: BaseException) -> str:
    """The message of ``error`` as one line of limited length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


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


def _left_as_trained(model: nn.Module, images: Tensor) -> list[str]:
    """Names of running statistics that cannot be estimated anew; none where the network does not pass in training mode."""
    try:
        return not_reestimated(model, images, images.flip(-1).square())
    except Exception:  # noqa: BLE001  it may want labels there, or give no tensor; nothing rests on this
        return []


@torch.no_grad()
def _check_fits(model: nn.Module, dataset: Dataset, images: Tensor) -> None:
    """Raise ``UserError`` unless ``model`` maps images of ``dataset`` to one logit per class."""
    try:
        with exact_evaluation(model):
            logits = model(images)
    except (RuntimeError, ValueError, TypeError) as error:
        shape = ", ".join(map(str, dataset.image_shape))
        raise UserError(
            f"the network does not take the images of {dataset.name}, (N, {shape}): {_one_line(error)}"
        ) from error
    if not isinstance(logits, Tensor):
        raise UserError(f"the network gives a {type(logits).__name__}, not a tensor of logits")
    expected = (len(images), dataset.num_classes)
    if logits.shape != expected:
        raise UserError(
            f"the network gives outputs of shape {tuple(logits.shape)} for {expected[0]} images; {dataset.name} has "
            f"{dataset.num_classes} classes, so ({expected[0]}, {dataset.num_classes}) was expected"
        )

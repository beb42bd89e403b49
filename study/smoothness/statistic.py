"""A statistic by name: its settings from plain values, its key, and its estimates on a network."""

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from study.config import measure_key
from study.errors import UserError, nearest
from study.registry import STATISTICS
from study.schema import SPLITS, Quantity
from study.smoothness.context import MeasureContext, exact_evaluation
from study.smoothness.estimate import Estimate
from study.smoothness.memory import halving
from study.smoothness.untouched import untouched

_CHECKED_IMAGES = 8
# The largest count that a setting may be, unless its field's metadata say ``most``; real numbers, items of a list.
MOST_COUNT = 100_000
_MOST_REAL, _MOST_ITEMS = 1e6, 100
_SAME = 1e-4  # relative difference of outputs that rounding explains


def parse_settings(name: str, mapping: Mapping[str, Any]) -> Any:
    """Settings dataclass of statistic ``name`` from plain values, as YAML gives them; missing settings have their default.

    Raises ``UserError`` for an unknown statistic or key, a value of the wrong type or not positive, and a list with two values
    of one name, naming the key, the value and the nearest known name.
    """
    kind = STATISTICS[name].traits["settings"]
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    most = {field.name: field.metadata.get("most", MOST_COUNT) for field in dataclasses.fields(kind)}
    values = {}
    for key, value in mapping.items():
        if key not in fields:
            raise UserError(f"statistic {name!r}: unknown setting {key!r}{nearest(key, fields)}")
        values[key] = _parsed(f"statistic {name!r}: setting {key!r}", key, fields[key], value, most[key])
    settings = kind(**values)
    names = estimate_names(name, settings)
    if len(set(names)) < len(names):  # two estimates of one name: a list holds numbers that are written alike
        for key, value in values.items():
            labels = (
                [f"{item:g}" for item in value if isinstance(item, (float, int))] if isinstance(value, tuple) else []
            )
            if len(set(labels)) < len(labels):
                raise UserError(f"statistic {name!r}: setting {key!r} holds a value twice: {list(value)}")
    return settings


def settings_in_key(name: str, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that differ from their defaults, as JSON values, for ``study.config.measure_key``. Raises ``UserError``."""
    settings = parse_settings(name, mapping)
    changed = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value != field.default:
            changed[field.name] = list(value) if isinstance(value, tuple) else value
    return changed


def statistic_key(
    trial_key: str,
    name: str,
    mapping: Mapping[str, Any],
    *,
    samples: bool = False,
    parts: Mapping[str, int] = MappingProxyType({}),
) -> str:
    """The ``measure_key`` of statistic ``name`` at these settings, in its ``revision`` (a registry trait, 1 by default).

    A statistic whose definition changes gets a higher revision and is measured anew on kept weights; so is one whose single
    values (``samples``) are to be kept from now on, and all statistics of networks with ``parts`` of a higher revision
    (``revised_parts``). Raises as ``parse_settings``.
    """
    settings, revision = settings_in_key(name, mapping), STATISTICS[name].traits.get("revision", 1)
    # no setting has such names
    settings |= {"@revision": revision} if revision != 1 else {}
    settings |= {f"@revision of {part}": number for part, number in parts.items()}
    return measure_key(trial_key, name, settings | ({"@samples": True} if samples else {}))


def on_validation(name: str, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with validation in place of test images. Raises ``UserError`` if ``mapping`` names the test split."""
    if mapping.get("split") == "test":
        raise UserError(f"statistic {name!r}: split 'test' is not read while training goes on; use 'val' or 'train'")
    reads_test = getattr(parse_settings(name, mapping), "split", "") == "test"
    return {**mapping, **({"split": "val"} if reads_test else {})}


def in_turn(names: Iterable[str]) -> list[str]:
    """``names`` of statistics, those whose passes serve most others (a registry trait) first. No order changes the numbers."""
    return sorted(names, key=lambda name: -len(STATISTICS[name].traits.get("serves", ())))


def quantities(name: str, settings: Any) -> list[Quantity]:
    """What statistic ``name`` estimates at these (parsed) settings: its trait ``outcomes``.

    A plug-in may give ``names`` alone; the statistic's formula then stands for what they mean.
    """
    entry = STATISTICS[name]
    if "outcomes" in entry.traits:
        found = entry.traits["outcomes"](settings)
    else:
        names = entry.traits["names"](settings)
        found = [Quantity(name=estimate, meaning=entry.formula, unit="of the statistic") for estimate in names]
    return [dataclasses.replace(quantity, statistic=name) for quantity in found]


def estimate_names(name: str, settings: Any) -> list[str]:
    """Names of the estimates of statistic ``name`` at these (parsed) settings: what a claim may refer to.

    Those of single layers are not among them, for networks differ in how many they have.
    """
    return [quantity.name for quantity in quantities(name, settings) if "{" not in quantity.name]


def fewest_classes(name: str, estimate: str) -> int:
    """How many classes a network needs for ``estimate`` of statistic ``name`` to say anything (a registry trait; 2).

    With fewer it is not converged. Centred logits of two classes and unit length are one vector or its negative, so nothing
    on their scale moves but at a change of the predicted class.
    """
    given = STATISTICS[name].traits.get("fewest_classes")
    return int(given(estimate)) if given else 2


def measure(name: str, settings: Any, context: MeasureContext) -> dict[str, Estimate]:
    """Estimates of statistic ``name`` by name, in the order of ``estimate_names``; ``settings`` as ``parse_settings`` gives.

    Meanwhile the model is in evaluation mode. Its parameters, gradients, buffers and modes are left as found, whatever the
    statistic does (``untouched``), and so is the global random state. When memory is out, the statistic starts again with
    half the chunk, down to single images. Raises ``UserError`` for outputs that are not finite, fewer than two classes, a
    network whose output for an image depends on the rest of its batch, and single images that do not fit into memory;
    ``IncompleteError`` with ``estimates`` if a part fails.
    """
    entry = STATISTICS[name]
    if not isinstance(settings, entry.traits["settings"]):
        raise TypeError(f"settings of {name!r} must come from parse_settings, not {type(settings).__name__}")
    if context.num_classes < 2:
        raise UserError(
            f"a network of {context.num_classes} class predicts one thing everywhere: smoothness needs two or more"
        )

    def attempt(chunk: int) -> dict[str, Estimate]:
        part = dataclasses.replace(context, chunk=chunk)
        context.shared.largest_part = 0
        if chunk < context.chunk:
            context.shared.clear()  # memory is out
        _refuse_batch_dependence(part)
        found: dict[str, Estimate] = entry.build(settings, part)
        ordered = {key: found[key] for key in estimate_names(name, settings) if key in found} | found
        return {key: each.provided(context.num_classes >= fewest_classes(name, key)) for key, each in ordered.items()}

    with untouched(context.model), exact_evaluation(context.model):
        return halving(context.chunk, attempt, f"statistic {name!r}", lambda: context.shared.largest_part)


def _refuse_batch_dependence(context: MeasureContext) -> None:
    """Raise ``UserError`` if an image's output depends on its batch: a placebo that mixes it is no function of one image."""
    split = next(iter(context.images))
    x = context.indexed(split)[0][: min(_CHECKED_IMAGES, context.chunk)]
    if len(x) < 2 or context.shared.get("batch_independent") is not None:
        return
    first = context.checked(context.model(x).detach())[0]
    moved = context.checked(context.model(torch.cat([1 - x[1:], x[:1]])).detach())[-1]
    if float((first - moved).abs().max()) > _SAME * float(first.abs().max()):
        raise UserError(
            "the network's output for an image depends on the rest of its batch (a shuffled or noise placebo), "
            "so its smoothness in the image is not defined"
        )
    context.shared.put("batch_independent", ())


def _parsed(where: str, key: str, kind: Any, value: Any, most: int) -> Any:
    if kind is int:
        if type(value) is not int or value < 1:
            raise UserError(f"{where} must be a positive whole number, not {value!r}")
        if value > most:
            raise UserError(f"{where} must be at most {most:,}, not {value:,}")
        return value
    if kind is float:
        if type(value) not in (int, float) or not value > 0:
            raise UserError(f"{where} must be a positive number, not {value!r}")
        if value > _MOST_REAL:
            raise UserError(f"{where} must be at most {_MOST_REAL:g}, not {value!r}")
        return float(value)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)) or not value:
            raise UserError(f"{where} must be a list of one value or more, not {value!r}")
        if len(value) > _MOST_ITEMS:
            raise UserError(f"{where} must be a list of at most {_MOST_ITEMS} values, not {len(value):,}")
        return tuple(_parsed(where, key, typing.get_args(kind)[0], item, most) for item in value)
    if not isinstance(value, str):
        raise UserError(f"{where} must be a name, not {value!r}")
    if key == "split" and value not in SPLITS:
        raise UserError(f"{where}: unknown split {value!r}{nearest(value, SPLITS)}")
    return value

"""A sampler, a scheduler and a space of one's own tried out at plan: built, asked, told made-up results.

A library looks at most of its settings only when it uses them, after the start-up trials: hours into a study. So it is asked
in the study's own search space, with no trial told and with many, and what it refuses is refused by the setting's name.
"""

import functools
import inspect
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from search_spaces import Spec
from search_spaces.strict import quoted
from search_spaces.trials import Budget, Named
from study.config import TrialConfig
from study.errors import UserError
from study.planning import search, space
from study.planning.lazily import can_search, optuna
from study.registry import SAMPLERS, SCHEDULERS
from study.schema import ReplicateRecord

# How often a plan asks a space of one's own, so that its branches are seen.
_SPACE_CHECKS = 16
# Made-up trials: a sampler may draw its first ones, as many as its settings say, without looking at any.
_FEW_TOLD, _MOST_TOLD = 24, 1_000
# The largest count among the settings.
_MOST_COUNT = 10_000
_PLAIN = {"bool": bool, "int": int, "float": float, "str": str, "None": type(None)}
_METRICS = [
    f"{part}/{what}" for part in ("val", "train") for what in ("loss", "accuracy", "loss_best", "accuracy_best")
]
Settings = Mapping[str, Any]


def check_parts(spec: Spec) -> None:
    """Build the sampler and the scheduler of ``spec`` once. Raises ``UserError`` for an unknown name or setting."""
    scheduler, sampler = SCHEDULERS[spec.scheduler.name].build, SAMPLERS[spec.sampler.name].build
    _check_types("scheduler", spec.scheduler, scheduler)
    _try("scheduler", spec.scheduler, functools.partial(_stop, scheduler))
    if not _searches(spec):
        return
    _check_types("sampler", spec.sampler, sampler)
    built: list[Any] = []
    _try("sampler", spec.sampler, lambda settings: built.append(sampler(0, **settings)))
    _check_types("sampler", spec.sampler, type(built[0]).__init__)


def _searches(spec: Spec) -> bool:
    """Whether the sampler can be looked at: without a search it need not be there."""
    return bool(spec.budget.search_trials) or can_search()


def check_sampler(spec: Spec, searches: Mapping[str, search.Cells]) -> None:
    """Both checks of sampler and scheduler."""
    check_parts(spec)
    check_search(spec, searches)


def check_search(spec: Spec, searches: Mapping[str, search.Cells]) -> None:
    """Ask the sampler in each search space of ``spec``. Raises ``UserError`` naming the setting that it refuses."""
    if not spec.nuisance or not _searches(spec):
        return
    # a space of one's own, and ranges by level, may differ from cell to cell; others do not
    for cells in list(searches.values()) if spec.space or spec.ranges else list(searches.values())[:1]:
        for settings in cells.values():
            check_space(spec, settings)
        own = spec.in_cell(next(iter(cells.values())))
        _try("sampler", spec.sampler, functools.partial(_ask, own, cells))


def check_space(spec: Spec, settings: Mapping[str, Any]) -> None:
    """Ask a space of one's own a few random times for a cell's ``settings``. Raises ``UserError`` as ``space.ask`` does."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(_SPACE_CHECKS if spec.space else 0):
        space.ask(spec, study.ask(), settings)


def _ask(spec: Spec, cells: search.Cells, settings: Settings) -> None:
    """Suggest with no trial told, and with more than the sampler draws by itself."""
    sampler = Named(name=spec.sampler.name, settings=dict(settings))
    tried = spec.model_copy(update={"sampler": sampler, "budget": Budget(search_trials=1, startup_trials=0)})
    counts = [value for value in settings.values() if type(value) is int]
    history = _made_up(spec, cells, min(max([_FEW_TOLD, *counts]) + 2, _MOST_TOLD))
    for num in (0, len(history)):
        search.suggest(tried, cells, 0, history[:num])


def _stop(scheduler: Callable[..., Any], settings: Settings) -> None:
    curves = [[1.0 + epoch + trial for epoch in range(3)] for trial in range(_FEW_TOLD)]
    for num in (0, 1, 5, _FEW_TOLD):
        tuple(map(float, scheduler(curves[:num], **settings)))


def _made_up(spec: Spec, cells: search.Cells, num: int) -> list[ReplicateRecord]:
    """``num`` trials: their values spread over the space, their losses all different."""
    units = itertools.cycle((i + 0.5) / 7 for i in (0, 3, 6, 1, 4, 2, 5))
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    history: list[ReplicateRecord] = []
    for number, (cell, settings) in zip(range(num), itertools.cycle(cells.items()), strict=False):
        if spec.space:
            values = space.ask(spec, drawn.ask(), settings)
        else:
            values = {name: search.from_unit(nuisance, next(units)) for name, nuisance in spec.nuisance.items()}
        config = TrialConfig.from_mapping({**settings, **values, "seed": 0, "split_seed": 0}).as_dict()
        loss = 1.0 + number / 8
        record: Any = {"cell": cell, "number": number, "config": config, "state": "completed"}
        record |= {"params": 1 + number, "flops": 2 + number, "metrics": dict.fromkeys(_METRICS, loss)}
        history.append(record | {"curves": {search.OBJECTIVE: [loss]}})
    return history


def _try(where: str, named: Named, call: Callable[[Settings], Any]) -> None:
    """Call with the settings. Raises ``UserError`` with the first setting that fails alone, or with all of them."""
    fault, several = _fault(call, named.settings), len(named.settings) > 1
    if fault is None:
        return
    if not named.settings or _fault(call, {}) is not None:
        raise UserError(f"{where} {named.name!r}: {fault}")
    for key, value in named.settings.items():
        alone = _fault(call, {key: value}) if several else fault
        if alone is not None:
            raise UserError(f"{where}.settings.{key} = {quoted(value)} of {named.name!r}: {alone}")
    raise UserError(f"{where}.settings of {named.name!r}: {fault}")


def _fault(call: Callable[[Settings], Any], settings: Settings) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call(settings)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  whatever a library raises for a setting that it cannot use
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None


def _check_types(where: str, named: Named, function: Callable[..., Any]) -> None:
    """Raise ``UserError`` for a setting of another type than ``function`` declares: a library takes many in silence."""
    declared = dict(_declared(function))
    for key, value in named.settings.items():
        if key not in declared:
            continue
        kinds = declared[key]
        fits = type(value) in kinds or (type(value) is int and float in kinds)
        large = type(value) is int and int in kinds and abs(value) > _MOST_COUNT
        if not fits or large:
            names = " or ".join("none" if kind is type(None) else kind.__name__ for kind in kinds)
            wanted = f"at most {_MOST_COUNT:,}" if large else names
            raise UserError(f"{where}.settings.{key} = {quoted(value)} of {named.name!r}: expected {wanted}")


def _declared(function: Callable[..., Any]) -> Iterator[tuple[str, list[type]]]:
    """Parameters whose declared type is plain: a boolean, a number, a text, or one of these or none."""
    for key, parameter in inspect.signature(function).parameters.items():
        kind = parameter.annotation
        names = [
            name.strip()
            for name in (kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))).split("|")
        ]
        if all(name in _PLAIN for name in names):
            yield key, [_PLAIN[name] for name in names]

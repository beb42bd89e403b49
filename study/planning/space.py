"""A conditional search space, defined by a function of the user's (``space: module:function``).

``function(trial, cell)`` asks ``trial.suggest_float`` and its like for nuisance hyperparameters by name, and returns the
values to train with. ``cell`` maps the cell's settings to their levels. So a hyperparameter may exist in some cells only, or
only where another one has some value. What the function does not return has its default from the specification, which
declares every hyperparameter and its range. Importing runs the module's code.

Source: https://arxiv.org/abs/1907.10902
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from search_spaces import Choice, Levels, Nuisance, Spec
from study.errors import UserError, nearest

Space = Callable[[Any, Mapping[str, Any]], Mapping[str, Any]]


@functools.cache
def load_space(reference: str) -> Space:
    """The function that ``module:function`` names. Raises ``UserError`` where it is missing or is no function."""
    # here, because it imports torch, and hardly any study has a space of its own
    from study.plugins import import_plugin

    module, _, name = reference.partition(":")
    found = getattr(import_plugin(module), name, None)
    if not callable(found):
        raise UserError(f"space = {reference!r}: module {module!r} has no function {name!r}")
    space: Space = found
    return space


def ask(spec: Spec, trial: Any, cell: Mapping[str, Any]) -> Levels:
    """Every nuisance value of a trial: the function's, and the defaults of what it leaves out.

    ``trial`` is Optuna's. Raises ``UserError`` where the function raises, returns no mapping, names an undeclared
    hyperparameter, leaves its range, or returns another value than it was suggested.
    """
    spec = spec.in_cell(cell)
    where = f"space = {spec.space!r} at {dict(cell).get('merge', '')!r}"
    try:
        returned = load_space(spec.space)(trial, dict(cell))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"space = {spec.space!r} raises {type(error).__name__}: {error}") from error
    if not isinstance(returned, Mapping):
        raise UserError(f"{where}: returns a {type(returned).__name__}, not a mapping of hyperparameters to values")
    values = spec.defaults
    for name, value in returned.items():
        if name not in spec.nuisance:
            raise UserError(f"{where}: returns {name!r}, which nuisance does not declare{nearest(name, spec.nuisance)}")
        _require_inside(spec.nuisance[name], name, value, where)
        values[name] = value
    # a trial is told to Optuna again from the values it was trained with
    for name, value in trial.params.items():
        if name not in returned or returned[name] != value:
            raise UserError(f"{where}: suggests {name!r} = {value!r} and does not return it")
    return values


def _require_inside(nuisance: Nuisance, name: str, value: Any, where: str) -> None:
    if isinstance(nuisance, Choice):
        if value not in nuisance.choices:
            raise UserError(f"{where}: {name} = {value!r} is none of {nuisance.choices}")
    elif type(value) not in (int, float) or not nuisance.low <= value <= nuisance.high:
        raise UserError(f"{where}: {name} = {value!r} lies outside [{nuisance.low:g}, {nuisance.high:g}]")

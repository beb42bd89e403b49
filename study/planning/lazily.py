"""Optuna, imported when it is first used: it takes a second, and a study without a search needs none."""

import functools
from typing import Any

from study.errors import UserError


class _Optuna:
    """Has what the package has. Raises ``UserError`` where it is not installed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_optuna(), name)


optuna: Any = _Optuna()


@functools.cache
def _optuna() -> Any:
    try:
        import optuna as package
    except ImportError as error:
        raise UserError(
            f"a search needs Optuna, which cannot be imported here ({error}): pip install optuna, or go without a search: "
            "--set budget.search_trials=0 --set budget.startup_trials=0"
        ) from None
    package.logging.set_verbosity(package.logging.WARNING)
    return package


def can_search() -> bool:
    """Whether Optuna can be had here."""
    try:
        _optuna()
    except UserError:
        return False
    return True

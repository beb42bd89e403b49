"""The package in Python, under a name that nothing else has: ``import fmm_study`` (docs/notebook.md).

What it offers is imported when it is first asked for.

Raises ``ImportError`` of one line where a module of the user's hides one of this project's generic names.
"""

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

_FOLDER = Path(__file__).resolve().parents[1]

for _name in ("study", "analysis", "search_spaces"):
    _found = importlib.util.find_spec(_name)
    if _found is not None and _found.origin is None and str(_FOLDER) not in sys.path:
        # a mere folder of that name comes before an editable install, and after any package on the path
        sys.path.append(str(_FOLDER))
        importlib.invalidate_caches()
        _found = importlib.util.find_spec(_name)
    if _found is not None and Path(_found.origin or "").resolve() != _FOLDER / _name / "__init__.py":
        raise ImportError(
            f"{_found.origin} hides fmm-study's package {_name!r}: rename it, or run Python from another folder"
        )

import study  # noqa: E402  after the check

if TYPE_CHECKING:
    # for editors
    from study.interface import *  # noqa: F403

__all__ = list(study.OFFERED)


def __getattr__(name: str) -> Any:
    return getattr(study, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

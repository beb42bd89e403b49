"""The package in Python, under a name that nothing else has: ``import fmm_study`` (docs/notebook.md).

Raises ``ImportError`` of one line where a module of the user's hides one of this project's generic names.
"""

import importlib.util
from pathlib import Path

for _name in ("study", "analysis", "search_spaces"):
    _found, _own = importlib.util.find_spec(_name), Path(__file__).resolve().parents[1] / _name / "__init__.py"
    if _found is not None and Path(_found.origin or "").resolve() != _own:
        _where = _found.origin or list(_found.submodule_search_locations or [])
        raise ImportError(f"{_where} hides fmm-study's package {_name!r}: rename it, or run Python from another folder")

from study import interface  # noqa: E402  after the check
from study.interface import *  # noqa: E402, F403

__all__ = interface.__all__

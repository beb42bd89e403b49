"""fmm-study: runs a study of feature map multiplication. Importing this package imports nothing heavy.

What ``fmm_study`` offers is had from here too, imported when it is first asked for.
"""

import importlib
from typing import Any

OFFERED = (
    "Plan", "Spec", "SpecError", "Study", "UserError", "load_spec", "measure_checkpoint", "measure_network", "open_study",
    "plan", "run",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in OFFERED:
        return getattr(importlib.import_module("study.interface"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *OFFERED])

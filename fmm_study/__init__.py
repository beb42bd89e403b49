"""The package in Python, under a name that nothing else has: ``import fmm_study`` (docs/notebook.md)."""

from study.interface import (
    Plan,
    Spec,
    SpecError,
    Study,
    UserError,
    load_spec,
    measure_checkpoint,
    measure_network,
    open_study,
    plan,
    run,
)

__all__ = [
    "Plan",
    "Spec",
    "SpecError",
    "Study",
    "UserError",
    "load_spec",
    "measure_checkpoint",
    "measure_network",
    "open_study",
    "plan",
    "run",
]

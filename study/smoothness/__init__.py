"""Smoothness statistics of a trained network in its input: one file per statistic, registered on import.

A statistic is a function ``(settings, context) -> dict[str, Estimate]`` registered in ``study.registry.STATISTICS`` with
``settings=`` (a frozen keyword-only dataclass whose fields all have defaults) and ``outcomes=`` (settings to the
estimates, each a ``Quantity``). Nothing here draws from a global random generator or knows of Ray, Optuna or MLflow.
"""

from study.registry import discover

discover(__name__)

from study.schema import Quantity  # noqa: E402
from study.smoothness.batchnorm import reestimated_batchnorm  # noqa: E402
from study.smoothness.context import MeasureContext  # noqa: E402
from study.smoothness.estimate import Estimate, IncompleteError  # noqa: E402
from study.smoothness.scales import fit_temperature, probabilities, tempered, unit_logits  # noqa: E402
from study.smoothness.statistic import (  # noqa: E402
    estimate_names,
    fewest_classes,
    in_turn,
    measure,
    on_validation,
    parse_settings,
    quantities,
    settings_in_key,
    statistic_key,
)

__all__ = [
    "Estimate",
    "IncompleteError",
    "MeasureContext",
    "Quantity",
    "estimate_names",
    "fewest_classes",
    "fit_temperature",
    "in_turn",
    "measure",
    "on_validation",
    "parse_settings",
    "probabilities",
    "quantities",
    "reestimated_batchnorm",
    "settings_in_key",
    "statistic_key",
    "tempered",
    "unit_logits",
]

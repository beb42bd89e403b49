"""What a contrast is read on: accuracies, losses, and every estimate, each with the scale of its differences."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.trials.table import estimate_names
from search_spaces.spec import Spec

Floats = NDArray[np.float64]
Scale = Literal["difference", "log ratio"]

# statistics that a figure, or a study without claims, is read on
_MOST = 3
METRIC_OUTCOMES = ("test/accuracy", "test/accuracy_best", "test/loss", "test/loss_best", "val/accuracy", "val/loss")

# Estimates that are positive by definition and compared as ratios. A name that ends in _log or _mean_log holds a
# logarithm already: its plain difference is the log ratio.
_POSITIVE = re.compile(
    r"""(
      ^jacobian_.*_(mean|rms)$                     # norms of the input Jacobian
    | (lipschitz|spectral_norm).*_(mean|p\d+)$     # local Lipschitz lower bounds
    | curvature.*_(mean|rms)$                      # norms of input curvature
    | excess_variation(_probabilities|_unit_logits)?$
    | (second_difference|linear_gap|length_ratio)$ # path statistics
    | ^noise_[^_]+_l1(_tempered)?$                 # L1 distance under noise
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True, kw_only=True)
class ReadOutcome:
    """A column of the trials table, and how pairs of it are subtracted."""

    name: str
    scale: Scale

    @property
    def is_estimate(self) -> bool:
        """Whether this is a smoothness statistic, no metric of a split."""
        return "/" not in self.name

    @property
    def is_composite(self) -> bool:
        """Whether a failed network has this outcome too: the accuracy that it ends with."""
        return "/accuracy" in self.name

    def scaled(self, values: Floats) -> Floats:
        """``values`` on the scale on which they are subtracted; NaN where a logarithm does not exist."""
        return np.log(np.where(values > 0, values, np.nan)) if self.scale == "log ratio" else values


def scale_of(name: str) -> Scale:
    """The scale on which two values of a column are compared."""
    return "log ratio" if _POSITIVE.search(name) else "difference"


def outcomes_of(spec: Spec, trials: pa.Table) -> list[ReadOutcome]:
    """Metrics, every estimate in the table, and whatever a claim names, also when it was never measured."""
    estimates = estimate_names(trials)
    names = dict.fromkeys([*METRIC_OUTCOMES, *estimates, *spec.claimed_outcomes])
    return [ReadOutcome(name=name, scale=scale_of(name)) for name in names]


def main_outcomes(spec: Spec, trials: pa.Table) -> list[ReadOutcome]:
    """What a study is mainly read on: outcomes that claims name, the same on their other scales, and test accuracy."""
    claimed = spec.claimed_outcomes
    wanted = {*claimed, *(other for name in claimed for other in other_scales(name)), METRIC_OUTCOMES[0]}
    return [outcome for outcome in outcomes_of(spec, trials) if outcome.name in wanted]


def explored_outcomes(spec: Spec, trials: pa.Table) -> list[ReadOutcome]:
    """Test accuracy and what claims name; without claims the first estimates."""
    names = dict.fromkeys(
        [METRIC_OUTCOMES[0], *(spec.claimed_outcomes or main_statistics(spec, estimate_names(trials)))]
    )
    return [ReadOutcome(name=name, scale=scale_of(name)) for name in names]


def main_statistics(spec: Spec, measured: Sequence[str]) -> list[str]:
    """The statistics among ``measured`` that claims name, else the first ones measured."""
    return ([name for name in spec.claimed_outcomes if name in measured] or list(measured))[:_MOST]


def other_scales(name: str) -> list[str]:
    """The same statistic on the other scales: probabilities, temperature-scaled ones, unit logits.

    Raw logits are left out: they grow with the norm of the logits, which is no smoothness. Shares of their power do not.
    """
    for family in _SCALE_FAMILIES:
        for pattern in family:
            if found := re.fullmatch(pattern.replace("*", "(.+)"), name):
                return [other.replace("*", found[1]) for other in family if other != pattern]
    return []


# One statistic on several scales; * is what the names of a family share. On a log scale all are compared as ratios.
_SCALE_FAMILIES = (
    ("jacobian_probabilities_*", "jacobian_unit_logits_*"),
    ("path_*_excess_variation_log", "path_*_excess_variation_probabilities", "path_*_excess_variation_unit_logits"),
    ("noise_*_l1_tempered", "noise_*_l1"),
    ("frequency_logits_*", "frequency_unit_logits_*", "frequency_tempered_*"),
    ("lipschitz_probabilities_*", "lipschitz_unit_logits_*"),
)

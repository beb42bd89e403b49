"""What a study has cost, in hours of the GPUs (or cores) that its trials held.

Counted is what records hold: training and measuring. Start-up, evaluation and waiting hosts come on top.
Source: https://arxiv.org/abs/1907.10597
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from search_spaces import Resources


def unit(resources: Resources) -> str:
    """Whose hours are counted: ``GPU`` or ``core``."""
    return "GPU" if resources.gpus else "core"


def device_hours(seconds: float, resources: Resources) -> float:
    """Hours of GPUs (of cores, where trials hold no GPU) in ``seconds`` of trials; of a shared GPU, the share."""
    return seconds / 3600 * (resources.gpus or resources.cpus)


def trial_seconds(records: Iterable[Mapping[str, Any]]) -> float:
    """Seconds of training and measuring in ``records`` of the ledger, of either kind."""
    return math.fsum(record.get("train_seconds", 0.0) + record.get("measure_seconds", 0.0) for record in records)


def spent_words(seconds: float, resources: Resources, price: float | None = None) -> str:
    """``2.3 GPU hours (5.75 at 2.5 a GPU hour)``; without a price the money is left out."""
    hours, name = device_hours(seconds, resources), unit(resources)
    words = f"{hours:,.1f} {name} hours" if hours >= 1 else f"{60 * hours:.1f} {name} minutes"
    return f"{words} ({price * hours:,.2f} at {price:g} a {name} hour)" if price is not None else words

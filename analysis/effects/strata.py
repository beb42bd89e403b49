"""Which strata of a contrast are worth showing to people, and what they are called there."""

from collections.abc import Iterable, Mapping
from typing import Any

from analysis.effects.readings import POOLED

MAX_STRATA = 4


def contrast_key(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What names a contrast on a dataset in the effects and differences tables."""
    return row["arm"], row["reference"], row["dataset"]


def shown_strata(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, ...], dict[str, str]]:
    """Contrast -> its strata to show and their short names, the pooled one first.

    Strata are shown where there are two to ``MAX_STRATA`` of them: a single one is the pooled reading itself. Levels that
    all strata of a contrast share are left out of the names: ``attention=none depth=8`` is ``depth 8``.
    """
    found: dict[tuple[str, ...], dict[str, None]] = {}
    for row in rows:
        strata = found.setdefault(contrast_key(row), {})
        if row["stratum"] != POOLED:
            strata[row["stratum"]] = None
    return {
        key: {POOLED: POOLED} | (_short(list(strata)) if 2 <= len(strata) <= MAX_STRATA else {})
        for key, strata in found.items()
    }


def _short(strata: list[str]) -> dict[str, str]:
    split = [stratum.split(" ") for stratum in strata]
    shared = set.intersection(*map(set, split))
    texts = [" ".join(part.replace("=", " ") for part in parts if part not in shared) for parts in split]
    return dict(zip(strata, texts, strict=True))

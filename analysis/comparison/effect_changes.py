"""How the effects of two studies differ: each contrast and outcome that both have, pooled over strata.

Two studies are independent samples, so the difference of their effects has the variances' sum and Welch's degrees of freedom
(https://doi.org/10.1093/biomet/34.1-2.28). Where both hold the same networks (equal trial keys: one spec run twice, or one
study and its extension) the differences are paired by block and replicate instead, on the pairs that both have.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats

from analysis.effects.compare import subtract
from analysis.effects.readings import POOLED
from analysis.inputs import Inputs
from analysis.stats.spread import mean_interval, sd
from analysis.trials.table import rows_of
from analysis.words.rows import Rows, grouped, where

_KEY = ("dataset", "arm", "reference", "outcome", "scale")
Key = tuple[str, ...]


def effect_changes(a: Inputs, b: Inputs, refused: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row per contrast and outcome of both: either effect and its number of pairs, B minus A with its interval.

    ``low`` and ``high`` hold at 1 - alpha of ``a``; ``how`` is ``paired`` or ``independent``. ``refused`` maps a dataset or an
    outcome to why it cannot be compared, which then stands under ``note``, and nothing is subtracted. ``main``: whether either
    study makes claims about it, or it is test accuracy.
    """
    ours, theirs = _pooled(a.effects), _pooled(b.effects)
    pairs = _pairs(a.differences), _pairs(b.differences)
    same = _same_networks(a.trials, b.trials)
    rows = []
    for key in ours:
        if key not in theirs:
            continue
        named = dict(zip(_KEY, key, strict=True))
        one, two = ours[key][0], theirs[key][0]
        row: dict[str, Any] = {**named, "a": one["mean_difference"], "b": two["mean_difference"]}
        row |= {"n_a": one["n_pairs"], "n_b": two["n_pairs"], "main": key in pairs[0] or key in pairs[1]}
        row |= {"how": "", "n": 0, **dict.fromkeys(("difference", "low", "high"))}
        row["note"] = refused.get(named["dataset"], "") or refused.get(named["outcome"], "")
        if not row["note"] and row["a"] is not None and row["b"] is not None:
            shared = sorted(pairs[0].get(key, {}).keys() & pairs[1].get(key, {}).keys()) if same else []
            if shared:
                row |= _paired(pairs[0][key], pairs[1][key], shared, a.spec.alpha)
            else:
                row |= _welch(one, two, a.spec.alpha)
        rows.append(row)
    return rows


def _paired(a: Mapping[Any, float], b: Mapping[Any, float], shared: list[Any], alpha: float) -> dict[str, Any]:
    d = subtract(np.array([b[pair] for pair in shared]), np.array([a[pair] for pair in shared]))
    mean, spread = float(d.mean()), sd(d)
    low, high = (None, None) if spread is None else mean_interval(mean, spread, len(d), alpha)
    return {"difference": mean, "low": low, "high": high, "how": "paired", "n": len(d)}


def _welch(one: Mapping[str, Any], two: Mapping[str, Any], alpha: float) -> dict[str, Any]:
    mean = two["mean_difference"] - one["mean_difference"]
    found = {"difference": mean, "low": None, "high": None}
    if one["sd_difference"] is not None and two["sd_difference"] is not None:
        squares = [row["sd_difference"] ** 2 / row["n_pairs"] for row in (one, two)]
        terms = [square**2 / (row["n_pairs"] - 1) for square, row in zip(squares, (one, two), strict=True)]
        degrees = sum(squares) ** 2 / sum(terms) if sum(terms) else np.inf
        half = float(stats.t.ppf(1 - alpha / 2, degrees) * np.sqrt(sum(squares)))
        found |= {"low": mean - half, "high": mean + half}
    return found | {"how": "independent", "n": min(one["n_pairs"], two["n_pairs"])}


def _pooled(table: pa.Table) -> dict[Key, Rows]:
    return grouped(where(table.to_pylist(), stratum=POOLED), *_KEY)


def _pairs(differences: pa.Table) -> dict[Key, dict[tuple[int, int], float]]:
    return {
        key: {(row["block"], row["replicate"]): row["difference"] for row in rows}
        for key, rows in _pooled(differences).items()
    }


def _same_networks(a: pa.Table, b: pa.Table) -> bool:
    """Whether the confirmed networks of one study are all among those of the other."""
    ours, theirs = ({row["trial_key"] for row in rows_of(t, ["trial_key"], phase="confirm")} for t in (a, b))
    return bool(ours) and bool(theirs) and (ours <= theirs or theirs <= ours)

"""How wide the good region of the nuisance hyperparameters is.

An operator that is good only where it was tuned to the hair may lose a comparison by the luck of its search. Per cell: the
share of search trials within some points of the best of their block, and the range of learning rates they cover. Start-up
points are the same Sobol set for every cell, so their share estimates the good part of the searched volume and compares
between cells. Of all trials the sampler chose most, so every share of them is larger.
"""

from typing import Any

import numpy as np

from analysis.effects.controls import DEFAULT_MARGIN
from analysis.inputs import Inputs
from analysis.stats.spread import jackknife_ratio
from analysis.tables.best_of_n import Searched, by_cell, search_counts
from analysis.words.columns import Column, floats, number, shared
from analysis.words.rows import Rows
from search_spaces import FloatRange, Spec
from study.registry import TABLES
from study.schema import FRACTION

_RATE = "lr"


def _interval(name: str, unit: str, heading: str, meaning: str) -> list[Column]:
    low, high = f"{name}_low", f"{name}_high"
    limits = {
        low: "lower limit of its interval, by the jackknife",
        high: "upper limit of its interval, by the jackknife",
    }
    return [number(name, unit, heading, "interval", meaning=meaning, low=low, high=high), *floats(limits, unit)]


@TABLES.register(
    "sensitivity",
    formula="how wide the good region is: share of search trials whose validation accuracy is within the accuracy margin of "
    "the best of their block, of the start-up points (an even sample of the space) and of all, and the powers of ten from "
    "the lowest to the highest learning rate among them; over blocks, intervals by the jackknife",
    source="https://github.com/google-research/tuning_playbook",
    title="Sensitivity to the nuisance hyperparameters",
    place=4.9,
    columns=(
        *shared("study cell dataset arm depth n_blocks n_trials n_diverged"),
        number(
            "within",
            FRACTION,
            "Within",
            "percent",
            meaning="how far below the best of its block a trial may be to count as good",
        ),
        *_interval("share", "fraction of trials", "Share of all", "share of all search trials that are good"),
        *_interval(
            "share_startup",
            "fraction of trials",
            "Share of start-up points",
            "share of the start-up points that are good",
        ),
        *_interval(
            "lr_decades",
            "powers of ten",
            "Learning rate, powers of ten",
            "from the lowest to the highest learning rate of good trials",
        ),
        number(
            "lr_decades_searched",
            "powers of ten",
            "Searched",
            meaning="powers of ten that the searched range of the learning rate covers",
        ),
    ),
    main="cell n_blocks n_trials n_diverged within share_startup share lr_decades lr_decades_searched",
    row="one cell; over its blocks, intervals by the jackknife",
)
def sensitivity_rows(inputs: Inputs) -> Rows:
    """One row per cell with search trials. ``within`` is the largest accuracy margin that a claim declares, else a point.

    The best is that of the block, for every block has validation images of its own. Shares may be compared between cells of
    one study; the learning rate's columns are null where it is not searched on a log scale.
    """
    spec = inputs.spec
    names = (_RATE,) if _searched_range(spec) is not None else ()
    margins = [o.margin for claim in spec.claims.values() for o in claim.outcomes if "/accuracy" in o.name]
    within = max(margins, default=DEFAULT_MARGIN)
    rows = []
    for cell, blocks in by_cell(inputs, names).items():
        searched = _searched_range(spec.in_cell(inputs.heads[cell]["levels"]))
        good = [near_best(block, within) for block in blocks]
        row = inputs.heads[cell] | search_counts(blocks) | {"within": within, "lr_decades_searched": searched}
        every = [len(block.accuracy) for block in blocks]
        row |= _numbers("share", [g.sum() for g in good], every, spec.alpha, most=1.0)
        hits = [(g & block.startup).sum() for g, block in zip(good, blocks, strict=True)]
        row |= _numbers("share_startup", hits, [block.startup.sum() for block in blocks], spec.alpha, most=1.0)
        rates = [block.settings[name][g] for g, block in zip(good, blocks, strict=True) for name in names]
        covered = [float(np.log10(found.max() / found.min())) for found in rates if len(found)]
        row |= _numbers("lr_decades", covered, [1] * len(covered), spec.alpha, most=searched)
        rows.append(row)
    return rows


def near_best(searched: Searched, within: float) -> np.ndarray:
    """Which trials of a block lie within ``within`` of its best and did not diverge; rounding counts as inside."""
    near = searched.accuracy >= searched.accuracy.max() - within - 1e-9
    return np.asarray(near & ~searched.diverged)


def _numbers(name: str, parts: list[Any], wholes: list[Any], alpha: float, *, most: float | None) -> dict[str, Any]:
    """A ratio over blocks with its limits, which lie no further out than the quantity itself can."""
    ratio, low, high = jackknife_ratio(parts, wholes, alpha)
    if low is not None and high is not None:
        low, high = max(low, 0.0), high if most is None else min(high, most)
    return {name: ratio, f"{name}_low": low, f"{name}_high": high}


def _searched_range(spec: Spec) -> float | None:
    """Powers of ten between the ends of the learning rate's range."""
    found = spec.nuisance.get(_RATE)
    return float(np.log10(found.high / found.low)) if isinstance(found, FloatRange) and found.log else None

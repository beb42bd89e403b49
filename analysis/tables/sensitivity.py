"""https://github.com/google-research/tuning_playbook: how wide the good region of the nuisance hyperparameters is.

An operator that is good only where it was tuned to the hair may lose a comparison by the luck of its search. For each
cell: the share of search trials within some points of the best of their block, and the range of learning rates they
cover. Start-up points are the same Sobol set for every cell, so their share estimates the good part of the searched volume
and compares between cells; of all trials the sampler chose most, which makes every share larger.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from analysis.effects.control import accuracy_margin
from analysis.inputs import Inputs
from analysis.stats.spread import jackknife_ratio
from analysis.tables.searched import Searched, by_cell, search_counts, search_fields
from analysis.trials.arms import cell_heads
from analysis.words.export import Column
from search_spaces import FloatRange, Spec
from study.registry import TABLES

_RATE = "lr"
_SHARES = ("share", "share_startup")
_DECADES = {"unit": "powers of ten"}


def _interval(name: str, unit: dict[str, str]) -> list[pa.Field]:
    return [pa.field(column, pa.float64(), metadata=unit) for column in (name, f"{name}_low", f"{name}_high")]


SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("study", "cell", "dataset", "arm")),
        ("depth", pa.int64()),
        *search_fields(),
        pa.field("within", pa.float64(), metadata={"unit": "fraction of images"}),
        *(field for name in _SHARES for field in _interval(name, {"unit": "fraction of trials"})),
        *_interval("lr_decades", _DECADES),
        pa.field("lr_decades_searched", pa.float64(), metadata=_DECADES),
    ],
    metadata={"row": "one cell; over its blocks, intervals by the jackknife"},
)


@TABLES.register(
    "sensitivity",
    formula="how wide the good region is: share of search trials whose validation accuracy is within the accuracy margin of "
    "the best of their block, of the start-up points (an even sample of the space) and of all, and the powers of ten from "
    "the lowest to the highest learning rate among them; over blocks, intervals by the jackknife",
    source="https://github.com/google-research/tuning_playbook",
    title="Sensitivity to the nuisance hyperparameters",
    place=4.9,
    optional=True,
    columns=(
        Column(heading="Cell", name="cell"),
        Column(heading="Blocks", name="n_blocks", kind="number"),
        Column(heading="Trials", name="n_trials", kind="number"),
        Column(heading="Diverged", name="n_diverged", kind="number"),
        Column(heading="Within", name="within", kind="percent"),
        Column(
            heading="Share of start-up points",
            name="share_startup",
            kind="interval",
            low="share_startup_low",
            high="share_startup_high",
        ),
        Column(heading="Share of all", name="share", kind="interval", low="share_low", high="share_high"),
        Column(
            heading="Learning rate, powers of ten",
            name="lr_decades",
            kind="interval",
            low="lr_decades_low",
            high="lr_decades_high",
        ),
        Column(heading="Searched", name="lr_decades_searched", kind="number"),
    ),
)
def sensitivity_table(inputs: Inputs) -> pa.Table:
    """One row a cell with search trials. ``within`` is the largest accuracy margin that a claim declares, else a point.

    The best is that of the block, for every block has validation images of its own. Shares may be compared between cells of
    one study; the learning rate's columns are null where it is not searched on a log scale.
    """
    spec = inputs.spec
    searched = _searched_range(spec)
    names = (_RATE,) if searched is not None else ()
    heads, within = cell_heads(spec, inputs.trials), accuracy_margin(spec)
    rows = []
    for cell, blocks in by_cell(inputs, names).items():
        good = [near_best(block, within) for block in blocks]
        row = heads[cell] | search_counts(blocks) | {"within": within, "lr_decades_searched": searched}
        every = [len(block.accuracy) for block in blocks]
        row |= _numbers("share", [g.sum() for g in good], every, spec.alpha, most=1.0)
        hits = [(g & block.startup).sum() for g, block in zip(good, blocks, strict=True)]
        row |= _numbers("share_startup", hits, [block.startup.sum() for block in blocks], spec.alpha, most=1.0)
        rates = [block.settings[name][g] for g, block in zip(good, blocks, strict=True) for name in names]
        covered = [float(np.log10(found.max() / found.min())) for found in rates if len(found)]
        row |= _numbers("lr_decades", covered, [1] * len(covered), spec.alpha, most=searched)
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=SCHEMA)


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
    if not isinstance(found, FloatRange) or not found.log:
        return None
    return float(np.log10(found.high / found.low))

"""Interactions: does an effect depend on another factor? A difference of differences.

For a contrast and another factor: within a replicate, the effect at one level minus the effect at the first level, averaged
over the levels of what is left. Where the factor is a number of three levels or more, also the least-squares slope of the
effect over log2 of the level (over the level itself where one is not positive). On the log scale of a smoothness statistic an
interaction is a ratio of ratios. Exploratory: p is not adjusted for how many are looked at.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.effects.compare import subtract
from analysis.effects.differences import main_outcomes
from analysis.effects.paired import cell_values, exploratory, left_out, slope_weights, tested, weighted_sum
from analysis.effects.readings import POOLED, equal_budgets
from analysis.trials.grid import ConfirmGrid, Floats, Stratum, context_label, label, strata_of
from analysis.trials.outcomes import ReadOutcome
from search_spaces import Contrast, Level

_LEAST_TREND = 3


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """A factor that a contrast is crossed with: its levels in order, and by context the stratum at each level.

    ``strata[context][level]`` is a position in the list of all strata of the contrast.
    """

    factor: str
    dataset: str
    levels: list[Level]
    strata: dict[str, dict[Level, int]]


def interaction_rows(grid: ConfirmGrid) -> list[dict[str, Any]]:
    """Rows of the tables of interactions."""
    spec, outcomes = grid.spec, main_outcomes(grid.spec, grid.confirm)
    rows: list[dict[str, Any]] = []
    for contrast in spec.all_contrasts():
        strata = [stratum for found in strata_of(grid, contrast).values() for stratum in found]
        crossings = list(_crossings(grid, contrast, strata)) if contrast != spec.control else []
        for outcome in outcomes if crossings else []:
            effects = _effects(grid, outcome, contrast, strata)
            head = {"study": spec.name, "arm": label(contrast.arm), "reference": label(contrast.reference)}
            head |= {"outcome": outcome.name, "scale": outcome.scale, "label": exploratory(spec)}
            for crossing in crossings:
                rows += [head | row for row in _crossed(grid, crossing, strata, effects)]
    return rows


def _effects(grid: ConfirmGrid, outcome: ReadOutcome, contrast: Contrast, strata: list[Stratum]) -> Floats:
    """Arm minus reference, one row per stratum, one column per pair; NaN where the pair is not eligible."""
    arm = cell_values(grid, outcome, [s.arm for s in strata])
    reference = cell_values(grid, outcome, [s.reference for s in strata])
    return np.where(equal_budgets(grid, contrast, strata), subtract(arm, reference), np.nan)


def _crossings(grid: ConfirmGrid, contrast: Contrast, strata: list[Stratum]) -> Iterator[Crossing]:
    """Factors outside the contrast with two levels or more, by dataset; the dataset itself as a factor last."""
    levels = [_levels(grid, contrast, stratum) for stratum in strata]
    for factor in dict.fromkeys(itertools.chain.from_iterable(levels)):
        within: dict[str, dict[str, dict[Level, int]]] = {}
        for i, named in enumerate(levels):
            if factor in named:
                others = {name: level for name, level in named.items() if name not in (factor, "dataset")}
                dataset = "all datasets" if factor == "dataset" else grid.cells[strata[i].arm].dataset
                within.setdefault(dataset, {}).setdefault(context_label(others), {})[named[factor]] = i
        for dataset, contexts in within.items():
            known = _ordered(list(dict.fromkeys(itertools.chain.from_iterable(contexts.values()))))
            if len(known) > 1:
                yield Crossing(factor=factor, dataset=dataset, levels=known, strata=contexts)


def _levels(grid: ConfirmGrid, contrast: Contrast, stratum: Stratum) -> dict[str, Level]:
    """The levels of a stratum outside the contrast; attention and its form go together, so they are one factor."""
    cell = grid.cells[stratum.arm]
    named = {name: cell.levels[name] for name in grid.spec.factor_names() if name not in contrast.arm}
    named = {name: level for name, level in named.items() if level is not None}
    form = named.get("attention_form")
    if "attention" in named and form is not None:
        del named["attention_form"]
        if form != "none":
            named["attention"] = f"{named['attention']}.{form}"
    return named


def _ordered(levels: list[Level]) -> list[Level]:
    """Numbers by size; names as the study lists them."""
    return sorted(levels, key=float) if all(_is_number(level) for level in levels) else levels


def _is_number(level: Level) -> bool:
    return isinstance(level, int | float) and not isinstance(level, bool)


def _crossed(grid: ConfirmGrid, crossing: Crossing, strata: list[Stratum], effects: Floats) -> Iterator[dict[str, Any]]:
    base, *others = crossing.levels
    for level in others:
        yield from _contrasted(grid, crossing, strata, effects, [base, level], np.array([-1.0, 1.0]))
    if len(crossing.levels) >= _LEAST_TREND and all(map(_is_number, crossing.levels)):
        x = [float(level) for level in crossing.levels]
        weights = slope_weights([math.log2(value) for value in x] if min(x) > 0 else x)
        yield from _contrasted(grid, crossing, strata, effects, crossing.levels, weights)


def _contrasted(
    grid: ConfirmGrid,
    crossing: Crossing,
    strata: list[Stratum],
    effects: Floats,
    levels: Sequence[Level],
    weights: Floats,
) -> Iterator[dict[str, Any]]:
    """One weighted sum of the effects at ``levels``: over the contexts that have them all, then in each of them."""
    whole = {
        context: [at[level] for level in levels] for context, at in crossing.strata.items() if set(levels) <= {*at}
    }
    trend = len(levels) > 2
    x_is_log = _is_number(levels[0]) and float(levels[0]) > 0
    named = {
        "dataset": crossing.dataset,
        "factor": crossing.factor,
        "kind": ("slope per doubling" if x_is_log else "slope") if trend else "difference",
        "level": ("per doubling" if x_is_log else "per unit") if trend else str(levels[-1]),
        "base": "" if trend else str(levels[0]),
    }
    groups = [(POOLED, list(whole.values()))] if whole else []
    groups += [(context, [rows]) for context, rows in whole.items()] if len(whole) > 1 else []
    for stratum, members in groups:
        at_level = effects[np.array(members)].mean(axis=0)  # one row per level; NaN unless eligible in every context
        summed = weighted_sum(at_level, weights)
        used = np.isfinite(summed)
        numbers = tested(summed, grid.spec.alpha)
        cells = [cell for i in np.unique(members) for cell in (strata[i].arm, strata[i].reference)]
        shown = used.any() and not trend
        yield {
            **named,
            "stratum": stratum,
            "effect_level": float(at_level[-1][used].mean()) if shown else None,
            "effect_base": float(at_level[0][used].mean()) if shown else None,
            **numbers,
            **left_out(grid, cells, numbers["n_pairs"]),
            "n_strata": len(members),
        }

"""Interactions: does an effect depend on another factor? A difference of differences.

For a contrast and another factor: within a replicate, the effect at one level minus the effect at the first level, averaged
over the levels of what is left. Where the factor is a number of three levels or more, also the least-squares slope of the
effect over log2 of the level (over the level itself where one is not positive). On the log scale of a smoothness statistic an
interaction is a ratio of ratios. Exploratory: p is not adjusted for how many are tested.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from analysis.effects.compare import subtract
from analysis.effects.paired import cell_values, exploratory, left_out, slope_weights, tested, weighted_sum
from analysis.effects.readings import POOLED, equal_budgets
from analysis.stats.spread import mean
from analysis.trials.grid import ConfirmGrid, Floats, Stratum, context_label, label, strata_of
from analysis.trials.outcomes import ReadOutcome, main_outcomes
from search_spaces import Contrast, Level

_LEAST_TREND = 3
# Context -> level of the crossed factor -> the stratum there, a position in the list of all strata of the contrast.
_Contexts = dict[str, dict[Level, int]]


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
            for named, contexts in crossings:
                for asked, levels, weights in _sums(contexts):
                    found = _summed(grid, strata, effects, contexts, levels, weights)
                    rows += [head | named | asked | row for row in found]
    return rows


def _effects(grid: ConfirmGrid, outcome: ReadOutcome, contrast: Contrast, strata: list[Stratum]) -> Floats:
    """Arm minus reference, one row per stratum, one column per pair; NaN where the pair is not eligible."""
    arm = cell_values(grid, outcome, [s.arm for s in strata])
    reference = cell_values(grid, outcome, [s.reference for s in strata])
    return np.where(equal_budgets(grid, contrast, strata), subtract(arm, reference), np.nan)


def _crossings(
    grid: ConfirmGrid, contrast: Contrast, strata: list[Stratum]
) -> Iterator[tuple[dict[str, str], _Contexts]]:
    """Factors outside the contrast with two levels or more, by dataset; the dataset itself as a factor last."""
    levels = [_levels(grid, contrast, stratum) for stratum in strata]
    for factor in dict.fromkeys(itertools.chain.from_iterable(levels)):
        within: dict[str, _Contexts] = {}
        for i, named in enumerate(levels):
            if factor in named:
                others = {name: level for name, level in named.items() if name not in (factor, "dataset")}
                dataset = "all datasets" if factor == "dataset" else grid.cells[strata[i].arm].dataset
                within.setdefault(dataset, {}).setdefault(context_label(others), {})[named[factor]] = i
        for dataset, contexts in within.items():
            if len(set(itertools.chain.from_iterable(contexts.values()))) > 1:
                yield {"dataset": dataset, "factor": factor}, contexts


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


def _sums(contexts: _Contexts) -> Iterator[tuple[dict[str, str], list[Level], Floats]]:
    """What is asked of a factor: each level against the first; of numbers the trend too. Levels, and their weights.

    Numbers are in order of size, names as the study lists them.
    """
    levels = list(dict.fromkeys(itertools.chain.from_iterable(contexts.values())))
    are_numbers = all(isinstance(level, int | float) and not isinstance(level, bool) for level in levels)
    base, *others = sorted(levels, key=float) if are_numbers else levels
    for level in others:
        yield {"kind": "difference", "level": str(level), "base": str(base)}, [base, level], np.array([-1.0, 1.0])
    if are_numbers and len(levels) >= _LEAST_TREND:
        x = [float(level) for level in (base, *others)]
        if x[0] > 0:
            named, weights = {"kind": "slope per doubling", "level": "per doubling"}, slope_weights(np.log2(x))
        else:
            named, weights = {"kind": "slope", "level": "per unit"}, slope_weights(x)
        yield named | {"base": ""}, [base, *others], weights


def _summed(
    grid: ConfirmGrid, strata: list[Stratum], effects: Floats, contexts: _Contexts, levels: list[Level], weights: Floats
) -> Iterator[dict[str, Any]]:
    """One weighted sum of the effects at ``levels``: over the contexts that have them all, then in each of them."""
    whole = {context: [at[level] for level in levels] for context, at in contexts.items() if set(levels) <= {*at}}
    groups = [(POOLED, list(whole.values()))] if whole else []
    groups += [(context, [rows]) for context, rows in whole.items()] if len(whole) > 1 else []
    for stratum, members in groups:
        at_level = effects[np.array(members)].mean(axis=0)  # one row per level; NaN unless eligible in every context
        summed = weighted_sum(at_level, weights)
        used = np.isfinite(summed)
        numbers = tested(summed, grid.spec.alpha)
        cells = [cell for i in np.unique(members) for cell in (strata[i].arm, strata[i].reference)]
        trend = len(levels) > 2
        yield {
            "stratum": stratum,
            "effect_level": None if trend else mean(at_level[-1][used]),
            "effect_base": None if trend else mean(at_level[0][used]),
            **numbers,
            **left_out(grid, cells, numbers["n_pairs"]),
            "n_strata": len(members),
        }

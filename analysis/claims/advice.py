"""Why networks are left out of a claim that cannot be estimated: each by name, with the reason and the setting that helps."""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from analysis.claims.judgement import Judgement
from analysis.claims.part import ClaimPart
from analysis.trials.arms import arm_name, context_name
from analysis.trials.grid import NO_RECORD, ConfirmGrid, label, strata_of
from analysis.trials.outcomes import ReadOutcome, scale_of
from analysis.trials.records import agrees
from analysis.trials.table import setting_column
from analysis.words.rows import Row, Rows, grouped
from analysis.words.wording import number_text
from search_spaces import LevelClaim
from study.schema import STATES

# The setting of a statistic that makes an estimate converge: it is of more samples, lines, orders or steps.
MORE = {
    **dict.fromkeys(("adaptive_sharpness", "attention_importance", "input_curvature", "input_jacobian"), "num_samples"),
    **dict.fromkeys(("local_lipschitz", "noise_accuracy", "noise_stability"), "num_samples"),
    **dict.fromkeys(("path", "path_picture"), "num_pairs"),
    **dict.fromkeys(("frequency", "linear_regions"), "num_steps"),
    "attention_shapley": "num_orders",
    "decision_regions": "num_planes",
    "hessian": "max_steps",
    "loss_slices": "num_directions",
}
# An estimate that converges only where another one is high enough, which is told beside it.
_BESIDE = (("attention_importance_ratio_", "attention_importance_ceiling_", "noise ceiling"),)
_COMPLETED = "completed"
_TRAIN = "trainings that do not fail (other learning rates, warm-up, more epochs)"
_RETRY = "fmm-study retry --failed"
_MOST_NAMED = 3


def advice(grid: ConfirmGrid, judgement: Judgement, statistics: Mapping[str, str]) -> str:
    """``replicate 0 of mul at depth 14: noise ceiling 0.19, not converged: more attention_importance.num_samples``.

    Of a claim that too many networks are left out of; empty for any other. ``statistics`` maps an estimate to what gives it.
    """
    if judgement.why != "not estimable" or judgement.num_missing:
        return ""
    held: dict[tuple[int, str], Rows] = {}
    for part in judgement.parts:
        if any(obstacle.kind == "not estimable" for obstacle in part.forbidden):
            for cell in _cells(grid, judgement, part):
                held[cell, part.outcome] = list(_left_out(grid, cell, part.outcome, statistics))
    rows = [row for found in held.values() for row in found]
    texts = [f"{_whose(same)}: {helps}" for helps, same in grouped(rows, "helps").items()]
    return "; ".join([*texts, "more blocks alone do not help"] if texts else [])


def _whose(rows: Rows) -> str:
    """Networks that fail are counted by cell; the first of those that an estimate is missing of are named."""
    # one that several outcomes of a claim lack counts once
    networks = list({(row["where"], row["replicate"]): row for row in rows}.values())
    failed = [row for row in networks if row["reason"] in STATES]
    texts = [
        f"{len(same)} of {same[0]['num']} networks of {where} {reason}"
        for (where, reason), same in grouped(failed, "where", "reason").items()
    ]
    others = [row for row in networks if row["reason"] not in STATES]
    texts += [f"replicate {row['replicate']} of {row['where']}: {row['reason']}" for row in others[:_MOST_NAMED]]
    more = len(others) - _MOST_NAMED
    return "; ".join(texts) + (f" ({more} more like {'these' if more > 1 else 'it'})" if more > 0 else "")


def _cells(grid: ConfirmGrid, judgement: Judgement, part: ClaimPart) -> list[int]:
    """The cells that a comparison or a level rests on."""
    claim, row = judgement.claim, part.row
    if isinstance(claim, LevelClaim):
        arms = [arm for arm in claim.all_arms if label(arm) == row["arm"]]
        return [
            i
            for i, cell in enumerate(grid.cells)
            if cell.dataset == row["dataset"] and any(agrees(cell.levels, arm) for arm in arms)
        ]
    strata = [
        stratum
        for contrast in claim.contrasts()
        if (label(contrast.arm), label(contrast.reference)) == (row["arm"], row["reference"])
        for stratum in strata_of(grid, contrast).get(row["dataset"], [])
    ]
    return list(dict.fromkeys(i for stratum in strata for i in (stratum.arm, stratum.reference)))


def _left_out(grid: ConfirmGrid, cell: int, name: str, statistics: Mapping[str, str]) -> Iterator[Row]:
    """The networks of a cell that were trained and do not count: which, why, and what would help."""
    outcome, where = ReadOutcome(name=name, scale=scale_of(name)), _called(grid, cell)
    there = grid.rows[cell] != NO_RECORD
    counts = grid.counted(outcome, [cell])[0] & np.isfinite(grid.values(outcome, [cell])[0])
    states, converged = grid.states([cell])[0], grid.converged(name, [cell])[0]
    statistic = statistics.get(name, "")
    more = f"more {statistic}.{MORE[statistic]}" if statistic in MORE else f"a larger sample of {statistic or name}"
    for i in np.flatnonzero(there & ~counts).tolist():
        reason, helps = "no value", f"a value of {name}: fmm-study audit says which measurement failed"
        if (state := STATES[states[i]]) != _COMPLETED:
            reason, helps = state, _RETRY if state == "failed" else _TRAIN
        elif not converged[i]:
            reason, helps = f"{_beside(grid, cell, i, name)}not converged", more
        row = {"where": where, "replicate": int(grid.pairs[i, 1]), "num": int(there.sum())}
        yield row | {"reason": reason, "helps": helps}


def _called(grid: ConfirmGrid, cell: int) -> str:
    """``add/se.native at depth 8``."""
    spec, held = grid.spec, grid.cells[cell]
    levels = dict.fromkeys(spec.factor_names()) | held.levels
    arm = arm_name(spec, {"cell": held.name, **{setting_column(name): level for name, level in levels.items()}})
    context = context_name({"depth": held.levels.get("depth", spec.fixed.get("depth"))})
    return f"{arm} at {context}" if context else arm


def _beside(grid: ConfirmGrid, cell: int, pair: int, name: str) -> str:
    """``noise ceiling 0.19, ``."""
    for ratio, other, called in _BESIDE:
        value = float(grid.floats(name.replace(ratio, other), [cell])[0, pair]) if name.startswith(ratio) else math.nan
        if math.isfinite(value):
            return f"{called} {number_text(value, 2)}, "
    return ""

"""One paired comparison: from the values and states of two arms to an effect, its interval, and what was left out.

Arrays have one row per stratum and one column per replicate. Strata are averaged within a replicate first, and a replicate
counts only if it is eligible in every stratum, so that the replicate stays the unit.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from scipy import stats

from analysis.effects.readings import Reading, Side
from analysis.stats.signflip import sign_flip_test, smallest_p
from analysis.stats.spread import mean_interval, sd
from analysis.trials.grid import Flags, Floats
from analysis.trials.outcomes import ReadOutcome

COUNTED_STATES = ("completed", "collapsed", "diverged", "failed")
FAILURES = ("collapsed", "diverged")
MAX_INELIGIBLE = 0.1
# A difference smaller than this share of what was subtracted is rounding: equal values differ by exactly zero.
_ROUNDING = 1e-12


def compare(reading: Reading, alpha: float) -> dict[str, Any]:
    """All numbers of one row of the effects table, and a note on what was left out. Intervals hold at 1 - ``alpha``."""
    arm, reference, outcome = reading.arm, reading.reference, reading.outcome
    both = arm.present & reference.present
    unusable = arm.counted & reference.counted & ~(np.isfinite(arm.values) & np.isfinite(reference.values))
    a, b = pair_up(reading)
    used = np.isfinite(a)
    a, b = a[used], b[used]
    num_started = int(np.count_nonzero((arm.present | reference.present).any(axis=0)))

    row: dict[str, Any] = {"n_pairs": len(a), "n_excluded": num_started - len(a)}
    row |= _moments(a, b, outcome, alpha)
    row["mcnemar_p"] = _mcnemar(arm, reference)
    row["mean_difference_survivors"] = _survivors(reading) if outcome.is_composite else None
    row |= {f"n_arm_{state}": arm.count(state) for state in COUNTED_STATES}
    row |= {f"n_reference_{state}": reference.count(state) for state in COUNTED_STATES}

    failures = _failures(arm, reference)
    against = []
    if outcome.is_estimate and row["n_excluded"] > MAX_INELIGIBLE * num_started:
        share = f"{row['n_excluded']} of {num_started} pairs ineligible, more than {MAX_INELIGIBLE:.0%}"
        against.append(f"no mean-difference verdict: {share}")
    if failures and not (outcome.is_estimate or outcome.is_composite):
        against.append(f"no mean-difference verdict: {failures}")
    row["n_unequal"] = unequal = int(np.count_nonzero(both & ~reading.equal))
    if unequal:
        against.append(f"no mean-difference verdict: unequal budgets in {unequal} pairs")
    row["mean_verdict"] = bool(len(a)) and not against
    missing = "missing or not positive" if outcome.scale == "log ratio" else "missing"
    row["n_waiting"] = waiting = max(reading.planned - int(np.count_nonzero(_in_all(both))), 0)
    remarks = {
        "estimates not converged, left out": sum(int((s.completed & ~s.converged).sum()) for s in (arm, reference)),
        f"{'pairs' if outcome.is_composite else 'completed pairs'} with a value {missing}, left out": np.count_nonzero(
            unusable
        ),
        "failed runs": arm.count("failed") + reference.count("failed"),
        f"pairs not run of {reading.planned} planned": waiting,
    }
    notes = against + [f"{what}: {count}" for what, count in remarks.items() if count]
    if failures and (outcome.is_estimate or outcome.is_composite):
        notes.append(failures)
    if len(a) and smallest_p(len(a)) > alpha:
        notes.append(f"{len(a)} pairs cannot reach alpha {alpha:g}")
    row["note"] = "; ".join(notes)
    return row


def failure_counts(row: Mapping[str, Any], side: str) -> tuple[int, int]:
    """How many networks of ``arm`` or ``reference`` collapsed or diverged, and of how many, in a row of ``compare``."""
    failed = sum(row[f"n_{side}_{state}"] for state in FAILURES)
    return failed, failed + row[f"n_{side}_completed"]


def pair_up(reading: Reading) -> tuple[Floats, Floats]:
    """Each replicate's value on both sides, on the outcome's scale, averaged over strata; NaN where it is not eligible.

    A replicate is eligible if in every stratum both networks count, within equal budgets, and both values exist.
    """
    a, b = reading.arm.values, reading.reference.values
    ok = reading.arm.counted & reading.reference.counted & reading.equal & np.isfinite(a) & np.isfinite(b)
    return _per_replicate(a, ok), _per_replicate(b, ok)


def subtract(a: Floats, b: Floats) -> Floats:
    """``a - b``, exactly zero where the two are equal but for rounding; NaN stays."""
    d = np.asarray(a - b)
    d[np.abs(d) <= _ROUNDING * np.maximum(np.abs(a), np.abs(b))] = 0.0
    return d


def _failures(arm: Side, reference: Side) -> str:
    """Collapsed and diverged networks of both sides; empty when there are none."""
    return ", ".join(
        f"{side.count(state)} of {np.count_nonzero(side.present)} {name} runs {state}"
        for name, side in (("arm", arm), ("reference", reference))
        for state in FAILURES
        if side.count(state)
    )


def _moments(a: Floats, b: Floats, outcome: ReadOutcome, alpha: float) -> dict[str, Any]:
    names = ("mean_arm", "mean_reference", "mean_difference", "sd_difference", "ci_low", "ci_high", "t_low", "t_high")
    row: dict[str, Any] = dict.fromkeys((*names, "p_sign_flip", "pairing_gain"))
    n, d = len(a), subtract(a, b)
    if not n:
        return row
    back = np.exp if outcome.scale == "log ratio" else np.asarray
    row["mean_arm"], row["mean_reference"] = float(back(a.mean())), float(back(b.mean()))
    row["mean_difference"] = mean = float(d.mean())
    row["p_sign_flip"], (row["ci_low"], row["ci_high"]) = sign_flip_test(d, alpha)
    row["sd_difference"] = spread = sd(d)
    if spread is not None:
        row["t_low"], row["t_high"] = mean_interval(mean, spread, n, alpha)
        apart = float(a.var(ddof=1) + b.var(ddof=1))
        row["pairing_gain"] = 1 - spread**2 / apart if apart > 0 else None
    return row


def _mcnemar(arm: Side, reference: Side) -> float | None:
    """Exact McNemar p on failure (collapsed or diverged), a replicate failing if it does in any stratum."""
    judged = _in_all(arm.judged & reference.judged)
    fails_arm, fails_reference = (np.asarray(side.failure.any(axis=0))[judged] for side in (arm, reference))
    if not (fails_arm.any() or fails_reference.any()):
        return None
    only_arm = int(np.count_nonzero(fails_arm & ~fails_reference))
    only_reference = int(np.count_nonzero(fails_reference & ~fails_arm))
    discordant = only_arm + only_reference
    return _even_odds(only_arm, discordant) if discordant else 1.0


@cache
def _even_odds(count: int, of: int) -> float:
    """Exact two-sided p of ``count`` of ``of`` at even odds. Kept: a study asks for the same few thousands of times."""
    return float(stats.binomtest(count, of, 0.5).pvalue)


def _survivors(reading: Reading) -> float | None:
    """Mean difference among replicates whose networks all completed: how far apart those are that train."""
    a, b = reading.arm.values, reading.reference.values
    d = _per_replicate(a - b, reading.completed & np.isfinite(a - b))
    d = d[np.isfinite(d)]
    return float(d.mean()) if len(d) else None


def _per_replicate(values: Floats, ok: Flags) -> Floats:
    """Mean over strata of each replicate, NaN unless it is ``ok`` in every stratum."""
    if not len(values):
        return np.zeros(0)
    return np.asarray(np.where(ok, values, np.nan).mean(axis=0))


def _in_all(flags: Flags) -> Flags:
    """Replicates for which ``flags`` hold in every stratum; none when there is no stratum."""
    return np.asarray(flags.all(axis=0) & bool(len(flags)), dtype=np.bool_)

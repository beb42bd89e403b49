"""One comparison of a claim, its effect and limits turned so that positive is what the claim says.

A claim on differences compares an arm with a reference, and its margin is above zero. A claim on a level compares the outcome
with two numbers: its effect is ``below`` less the outcome, its margin ``below - above``, so that one verdict rule serves both.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from analysis.claims.rule import Rule
from analysis.effects.compare import MAX_INELIGIBLE, failure_counts
from analysis.effects.image_variance import images_interval
from analysis.effects.levels import LevelReading
from analysis.stats.power import pairs_needed, smallest_detectable, smallest_detectable_t
from analysis.stats.spread import sd
from analysis.stats.verdicts import Limits, Verdict, comparison_verdict, oriented
from analysis.trials.grid import label
from analysis.trials.outcomes import other_scales
from analysis.words.wording import levels_text, outcome_text
from search_spaces import Outcome

Interval = tuple[float, float]
LEVEL = "level"


@dataclass(frozen=True, kw_only=True)
class ClaimPart:
    """Numbers of one comparison of a claim on a dataset; ``None`` where there are no pairs.

    ``row`` is the effects table's, or one like it with scale ``level``, whose mean and limits are of the outcome itself.
    ``effect``, the limits and ``at_chance`` (failed networks counted at chance) are in the outcome's unit (logarithms where
    ``scale`` is log ratio), in the claim's direction and less ``zero``; ``low`` and ``high`` hold at ``level``, ``high_of_k``
    at ``level_of_k``. Of the interval ``sign_flip`` and the one that counts test images too (if there is one) the wider is
    ``low`` to ``high``. ``obstacles`` say in words what forbids a verdict,
    ``failures`` which networks collapsed or diverged. ``num_datasets`` counts what a part over datasets is a mean of;
    ``None`` on one dataset.
    """

    row: Mapping[str, Any]
    better: Literal["higher", "lower"]
    margin: float
    level: float
    level_of_k: float
    obstacles: tuple[str, ...]
    zero: float = 0.0
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    high_of_k: float | None = None
    at_chance: float | None = None
    smallest_detectable: float | None = None
    sign_flip: Interval | None = None
    images: Interval | None = None
    failures: str = ""
    num_datasets: int | None = None

    @property
    def outcome(self) -> str:
        """The name of what is compared."""
        return str(self.row["outcome"])

    @property
    def counts_images(self) -> bool:
        """Whether the wider interval, which decides, is the one that counts test images."""
        return self.images is not None and (self.low, self.high) == self.images

    @property
    def limits(self) -> Limits | None:
        """What the verdict rule reads; ``None`` where a verdict is forbidden."""
        if self.obstacles or self.low is None or self.high is None or self.high_of_k is None:
            return None
        return Limits(low=self.low, high=self.high, high_of_k=self.high_of_k, margin=self.margin)

    @property
    def lost(self) -> bool:
        """Whether no further pair can bring a verdict: a failure or an unequal budget stays in the comparison."""
        return bool(self.row["n_unequal"] or ("/" in self.outcome and self.failures))

    @property
    def verdict(self) -> Verdict:
        """The verdict of this comparison alone."""
        return comparison_verdict(self.limits) if self.limits else "undecided"

    def support(self) -> tuple[int, float]:
        """A key by which the comparison that holds a claim back comes first."""
        order = {"refuted": 0, "undecided": 2 if self.limits else 1, "supported": 3}[self.verdict]
        return order, (self.effect or 0.0) / self.margin

    def pairs_to(self, verdict: str) -> int | None:
        """About how many pairs reach ``verdict`` four times in five if effect and spread stay; ``None`` if none would.

        ``None`` too where test images count: more pairs do not make them more.
        """
        spread, effect = self.row["sd_difference"], self.effect
        if self.limits is None or self.counts_images or spread is None or effect is None or self.num_datasets:
            return None
        distance = effect if verdict == "supported" else self.margin - effect
        if distance <= 0:
            return None
        try:
            return pairs_needed(distance, spread, self.level if verdict == "supported" else self.level_of_k)
        except ValueError:  # more pairs than anyone will run
            return None


def claim_part(
    row: Mapping[str, Any],
    outcome: Outcome,
    differences: Mapping[int, float],
    scales: Mapping[str, float | None],
    level: float,
    num_parts: int,
    planned: int,
    rule: Rule,
) -> ClaimPart:
    """From a primary row of the effects table and the differences behind it, one per block or replicate.

    ``scales`` maps other outcomes of the same contrast to their mean differences; ``level`` is the claim's,
    ``planned`` the number of pairs the study plans, ``rule`` gives the intervals.
    """
    turn = 1.0 if outcome.better == "higher" else -1.0
    chance, spread = row["mean_difference_failures_at_chance"], row["sd_difference"]
    part = ClaimPart(
        row=row,
        better=outcome.better,
        margin=outcome.margin,
        level=level,
        level_of_k=level / num_parts,
        at_chance=None if chance is None else turn * chance,
        obstacles=tuple(_obstacles(row, scales, planned)),
        failures=failures_text(row),
    )
    if not differences:
        return part
    by_now, detectable = rule.level_by_now(level), None
    flips, images = _intervals(row, outcome, differences, level, rule)
    low, high = _wider(flips, images)
    of_k = (flips, images) if num_parts == 1 else _intervals(row, outcome, differences, part.level_of_k, rule)
    if (low, high) == images:
        detectable = smallest_detectable_t(row["images_se"], row["images_df"], by_now)
    elif spread is not None:
        detectable = smallest_detectable(len(differences), by_now, spread)
    return replace(
        part,
        effect=turn * row["mean_difference"] + 0.0,
        low=low,
        high=high,
        high_of_k=_wider(*of_k)[1],
        sign_flip=flips,
        images=images,
        smallest_detectable=detectable,
    )


def level_part(reading: LevelReading, level: float, rule: Rule) -> ClaimPart:
    """The one part of a level claim."""
    claim, values = reading.claim, reading.values
    row: dict[str, Any] = {
        "dataset": reading.dataset,
        "arm": label(claim.arm),
        "outcome": claim.outcome,
        "scale": LEVEL,
    }
    row |= {"reference": f"below {claim.below:g}, above {claim.above:g}", "sd_difference": sd(values)}
    row |= {"n_pairs": len(values), "n_excluded": reading.num_left_out}
    row |= {"n_waiting": reading.num_waiting, "n_unequal": 0}
    row |= dict.fromkeys(("mean_difference", "ci_low", "ci_high"))
    part = ClaimPart(
        row=row,
        better="lower",
        margin=claim.below - claim.above,
        zero=claim.below,
        level=level,
        level_of_k=level,
        obstacles=reading.obstacles,
    )
    if not values:
        return part
    row["mean_difference"] = average = float(np.mean(values))
    row["ci_low"], row["ci_high"] = limits = rule.interval(values, reading.replicates, level)
    low, high = oriented(*limits, part.better, part.zero)
    return replace(part, effect=part.zero - average, low=low, high=high, high_of_k=high)


def _intervals(
    row: Mapping[str, Any], outcome: Outcome, differences: Mapping[int, float], level: float, rule: Rule
) -> tuple[Interval, Interval | None]:
    """The sign-flip interval at ``level`` and the one that counts test images, in the claim's direction.

    The latter knows of one look: it holds at what of the level is spent by now.
    """
    images = images_interval(row, rule.level_by_now(level))
    flips = oriented(*rule.interval(list(differences.values()), list(differences), level), outcome.better)
    return flips, None if images is None else oriented(*images, outcome.better)


def _wider(flips: Interval, images: Interval | None) -> Interval:
    return flips if images is None or images[1] - images[0] <= flips[1] - flips[0] else images


def _obstacles(row: Mapping[str, Any], scales: Mapping[str, float | None], planned: int) -> Iterator[str]:
    if row["n_waiting"]:
        yield f"{row['n_waiting']} of {planned} pairs have not run yet"
    if row["n_unequal"]:
        yield f"budgets are unequal in {row['n_unequal']} pairs"
    failures, is_estimate = failures_text(row), "/" not in row["outcome"]
    started = row["n_pairs"] + row["n_excluded"]
    if failures and not is_estimate:
        yield f"{failures}, and a mean over survivors decides nothing"
    elif not row["n_waiting"] and row["n_excluded"] > MAX_INELIGIBLE * started:
        yield f"{row['n_excluded']} of {started} pairs are ineligible, more than {MAX_INELIGIBLE:.0%}"
    elif not row["n_waiting"] and not row["n_pairs"]:
        yield "there are no pairs"
    against = [
        outcome_text(name)
        for name in other_scales(row["outcome"])
        if (scales.get(name) or 0.0) * (row["mean_difference"] or 0.0) < 0
    ]
    if against:
        yield f"the effect has the opposite sign on another scale ({', '.join(against)})"


def failures_text(row: Mapping[str, Any]) -> str:
    """``merge mul fails in 15 of 16 trainings, merge add in 0 of 16``; empty when none failed."""
    (arm, of_arm), (reference, of_reference) = (failure_counts(row, side) for side in ("arm", "reference"))
    if not (arm or reference):
        return ""
    ours, theirs = levels_text(row["arm"]), levels_text(row["reference"])
    return f"{ours} fails in {arm} of {of_arm} trainings, {theirs} in {reference} of {of_reference}"

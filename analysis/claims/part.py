"""One comparison of a claim, its effect and limits turned so that positive is what the claim says.

A claim on differences compares an arm with a reference, and its margin is above zero. A claim on a level compares the outcome
with two numbers: its effect is ``below`` less the outcome, its margin ``below - above``, so that one verdict rule serves both.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from analysis.claims.rule import Rule
from analysis.effects.compare import MAX_INELIGIBLE, failure_counts
from analysis.effects.image_variance import hull, images_interval, row_hull
from analysis.effects.levels import LevelReading
from analysis.effects.obstacles import Obstacle
from analysis.stats.power import pairs_needed, smallest_detectable, smallest_detectable_t
from analysis.stats.spread import sd, symmetry
from analysis.stats.verdicts import Limits, Verdict, comparison_verdict, oriented
from analysis.trials.grid import label
from analysis.trials.outcomes import ReadOutcome, other_scales
from analysis.words.wording import levels_text, outcome_text
from search_spaces import Outcome

Interval = tuple[float, float]
LEVEL = "level"


@dataclass(frozen=True, kw_only=True)
class ClaimPart:
    """Numbers of one comparison of a claim on a dataset; ``None`` where there are no pairs.

    ``row`` is the effects table's, or one like it with scale ``level``, whose mean and limits are of the outcome itself.
    ``effect``, the limits and ``survivors`` (the mean among pairs that both completed) are in the outcome's unit (logarithms
    where ``scale`` is log ratio), in the claim's direction and less ``zero``. ``low`` and ``high`` hold at ``level``, at which
    the claim is supported, ``high_refute`` at ``level_refute``. Each is the hull of the ``sign_flip`` interval and of the one
    that counts test images too (if there is one). ``failures`` says in words which networks collapsed or diverged.
    ``skewness`` and ``p_symmetry`` are of the differences: sign flips assume them symmetric. ``num_datasets`` counts what a
    part over datasets is a mean of; ``None`` on one dataset.
    """

    row: Mapping[str, Any]
    better: Literal["higher", "lower"]
    margin: float
    level: float
    level_refute: float
    obstacles: tuple[Obstacle, ...]
    zero: float = 0.0
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    high_refute: float | None = None
    survivors: float | None = None
    smallest_detectable: float | None = None
    sign_flip: Interval | None = None
    images: Interval | None = None
    failures: str = ""
    skewness: float | None = None
    p_symmetry: float | None = None
    num_datasets: int | None = None

    @property
    def outcome(self) -> str:
        """The name of what is compared."""
        return str(self.row["outcome"])

    @property
    def counts_images(self) -> bool:
        """Whether the interval that counts test images is the wider one: more pairs alone hardly narrow the hull."""
        images, flips = self.images, self.sign_flip
        return images is not None and flips is not None and images[1] - images[0] > flips[1] - flips[0]

    @property
    def forbidden(self) -> tuple[Obstacle, ...]:
        """The obstacles that forbid any verdict; the others bar support alone."""
        return tuple(obstacle for obstacle in self.obstacles if not obstacle.bars_support)

    @property
    def limits(self) -> Limits | None:
        """What the verdict rule reads; ``None`` where a verdict is forbidden."""
        if self.forbidden or self.low is None or self.high is None or self.high_refute is None:
            return None
        return Limits(
            low=self.low,
            high=self.high,
            high_refute=self.high_refute,
            margin=self.margin,
            barred=bool(self.obstacles),
        )

    @property
    def lost(self) -> bool:
        """Whether no further pair can bring a verdict: an unequal budget stays in the comparison, as a failure in a loss."""
        return bool(self.row["n_unequal"]) or bool(self.failures and _needs_survivors(self.outcome))

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
        if verdict == "supported" and self.limits.barred:
            return None
        distance = effect if verdict == "supported" else self.margin - effect
        if distance <= 0:
            return None
        try:
            return pairs_needed(distance, spread, self.level if verdict == "supported" else self.level_refute)
        except ValueError:  # more pairs than anyone will run
            return None


def claim_part(
    row: Mapping[str, Any],
    outcome: Outcome,
    differences: Mapping[int, float],
    beside: Sequence[Mapping[str, Any]],
    level: float,
    level_refute: float,
    planned: int,
    rule: Rule,
) -> ClaimPart:
    """From a primary row of the effects table and the differences behind it, one per block or replicate.

    ``beside`` are the rows of the same contrast and dataset: its strata, and other outcomes. The claim is supported at
    ``level`` and refuted at ``level_refute``; ``planned`` is the number of pairs planned, ``rule`` gives the intervals.
    """
    turn = 1.0 if outcome.better == "higher" else -1.0
    survivors, spread = row["mean_difference_survivors"], row["sd_difference"]
    part = ClaimPart(
        row=row,
        better=outcome.better,
        margin=outcome.margin,
        level=level,
        level_refute=level_refute,
        survivors=None if survivors is None else turn * survivors,
        obstacles=(*_obstacles(row, planned), *_contradictions(row, outcome, beside)),
        failures=failures_text(row),
    )
    if not differences:
        return part
    by_now, detectable = rule.level_by_now(level), None
    flips, images = _intervals(row, outcome, differences, level, rule)
    low, high = hull(flips, images)
    skewness, p_symmetry = symmetry(list(differences.values()))
    part = replace(
        part,
        effect=turn * row["mean_difference"] + 0.0,
        low=low,
        high=high,
        high_refute=hull(*_intervals(row, outcome, differences, level_refute, rule))[1],
        sign_flip=flips,
        images=images,
        skewness=None if skewness is None else turn * skewness,
        p_symmetry=p_symmetry,
    )
    if part.counts_images:
        detectable = smallest_detectable_t(row["images_se"], row["images_df"], by_now)
    elif spread is not None:
        detectable = smallest_detectable(len(differences), by_now, spread)
    return replace(part, smallest_detectable=detectable)


def level_part(reading: LevelReading, level: float, level_refute: float, rule: Rule) -> ClaimPart:
    """One arm of a level claim."""
    claim, values = reading.claim, reading.values
    row: dict[str, Any] = {
        "dataset": reading.dataset,
        "arm": label(reading.arm),
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
        level_refute=level_refute,
        obstacles=reading.obstacles,
    )
    if not values:
        return part
    row["mean_difference"] = average = float(np.mean(values))
    row["ci_low"], row["ci_high"] = limits = rule.interval(values, reading.replicates, level)
    low, high = oriented(*limits, part.better, part.zero)
    refuting = oriented(*rule.interval(values, reading.replicates, level_refute), part.better, part.zero)
    return replace(part, effect=part.zero - average, low=low, high=high, high_refute=refuting[1])


def _intervals(
    row: Mapping[str, Any], outcome: Outcome, differences: Mapping[int, float], level: float, rule: Rule
) -> tuple[Interval, Interval | None]:
    """The sign-flip interval at ``level`` and the one that counts test images, in the claim's direction.

    The latter knows of one look: it holds at what of the level is spent by now.
    """
    images = images_interval(row, rule.level_by_now(level))
    flips = oriented(*rule.interval(list(differences.values()), list(differences), level), outcome.better)
    return flips, None if images is None else oriented(*images, outcome.better)


def _obstacles(row: Mapping[str, Any], planned: int) -> Iterator[Obstacle]:
    """What forbids any verdict on a comparison."""
    if row["n_waiting"]:
        yield Obstacle("waiting", f"{row['n_waiting']} of {planned} pairs have not run yet")
    if row["n_unequal"]:
        yield Obstacle("refused", f"refused: budgets are unequal in {row['n_unequal']} pairs")
    failures = failures_text(row)
    started = row["n_pairs"] + row["n_excluded"]
    if failures and _needs_survivors(row["outcome"]):
        yield Obstacle("not estimable", f"not estimable: {failures}, and a mean over survivors decides nothing")
    elif not (row["n_waiting"] or row["n_unequal"]) and row["n_excluded"] > MAX_INELIGIBLE * started:
        ineligible = f"{row['n_excluded']} of {started} pairs are ineligible, more than {MAX_INELIGIBLE:.0%}"
        yield Obstacle("not estimable", f"not estimable: {ineligible}")
    elif not (row["n_waiting"] or row["n_unequal"] or row["n_pairs"]):
        yield Obstacle("not estimable", "not estimable: there are no pairs")


def _contradictions(
    row: Mapping[str, Any], outcome: Outcome, beside: Sequence[Mapping[str, Any]]
) -> Iterator[Obstacle]:
    """What bars support: another scale, or a stratum, whose own interval lies on the other side of zero."""

    def against(other: Mapping[str, Any], better: str) -> bool:
        limits = row_hull(other)
        return limits is not None and oriented(*limits, better)[1] < 0

    pooled, wanted = row["stratum"], other_scales(row["outcome"])
    # one statistic on several scales: all point the same way where it falls or rises
    scales = [other for other in beside if other["stratum"] == pooled and other["outcome"] in wanted]
    if names := list(dict.fromkeys(outcome_text(o["outcome"]) for o in scales if against(o, outcome.better))):
        yield Obstacle(
            "contradiction",
            f"on another scale the interval lies on the other side ({', '.join(names)})",
            bars_support=True,
        )
    strata = [other for other in beside if other["stratum"] != pooled and other["outcome"] == row["outcome"]]
    names = list(dict.fromkeys(levels_text(o["stratum"]) for o in strata if against(o, outcome.better)))
    # of one stratum the pooled reading itself is the interval
    if names and len(strata) > 1:
        yield Obstacle("contradiction", f"the whole interval lies below zero at {', '.join(names)}", bars_support=True)


def _needs_survivors(outcome: str) -> bool:
    """Whether the outcome is a metric that a failed network does not have: a loss."""
    return "/" in outcome and not ReadOutcome(name=outcome, scale="difference").is_composite


def failures_text(row: Mapping[str, Any]) -> str:
    """``merge mul fails in 15 of 16 trainings, merge add in 0 of 16``; empty when none failed."""
    (arm, of_arm), (reference, of_reference) = (failure_counts(row, side) for side in ("arm", "reference"))
    if not (arm or reference):
        return ""
    ours, theirs = levels_text(row["arm"]), levels_text(row["reference"])
    return f"{ours} fails in {arm} of {of_arm} trainings, {theirs} in {reference} of {of_reference}"

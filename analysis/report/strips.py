"""A claim's comparisons as a forest plot beside it: effect and interval in margins, drawn by the page itself."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.claims.judgement import Judgement
from analysis.claims.part import LEVEL, ClaimPart
from analysis.words.wording import effect_text, interval_text, levels_text, minus_text, number_text, outcome_text

# margins to either side of none, and the size of the drawing in pixels
REACH, WIDTH, HEIGHT = 3.0, 220, 16


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One comparison: what it is of, its numbers, and the places of its parts in pixels; ``None`` for what is not there.

    ``low`` and ``high`` are the ends of the line; ``before`` and ``after`` say that something lies beyond the drawing.
    """

    what: str
    outcome: str
    numbers: str
    verdict: str
    margin: float
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    before: bool = False
    after: bool = False


def strips(judgement: Judgement) -> list[Strip]:
    """The claim's comparisons, in its direction: right of none speaks for it."""
    return [_strip(part) for part in judgement.parts]


def _strip(part: ClaimPart) -> Strip:
    row, size = part.row, abs(part.margin)
    level = row["scale"] == LEVEL
    arm, reference = _gated(row["arm"]), _gated(row["reference"])
    what = levels_text(arm) if level else minus_text(arm, reference, part.better)
    held: dict[str, float | None] = {"effect": part.effect, "low": part.low, "high": part.high}
    beyond = [value is not None and not abs(value / size) <= REACH for value in (part.low, part.high, part.effect)]
    return Strip(
        what=what,
        outcome=outcome_text(part.outcome),
        numbers=_numbers(part, level) or "not estimable",
        verdict=part.verdict,
        margin=_place(math.copysign(1.0, part.margin)),
        before=any(gone and (value or 0.0) < 0 for gone, value in zip(beyond, _ends(part), strict=True)),
        after=any(gone and (value or 0.0) > 0 for gone, value in zip(beyond, _ends(part), strict=True)),
        **{name: None if value is None else _place(value / size) for name, value in held.items()},
    )


def _gated(label: str) -> str:
    """A gate with its form as one level: ``attention=se.mul``; no gate has no form."""
    return re.sub(
        r"attention=(\S+) attention_form=(\S+)",
        lambda found: f"attention={found[1]}" + ("" if found[2] == "none" else f".{found[2]}"),
        label,
    )


def _ends(part: ClaimPart) -> Sequence[float | None]:
    return part.low, part.high, part.effect


def _numbers(part: ClaimPart, level: bool) -> str:
    row = part.row
    if not level:
        return effect_text(part.outcome, row["scale"], part.effect, part.low, part.high)
    mean, low, high = row["mean_difference"], row["ci_low"], row["ci_high"]
    if mean is None:
        return ""
    whole = math.isfinite(low) and math.isfinite(high)
    return interval_text(mean, low, high) if whole else f"{number_text(mean, 3)} (no interval)"


def _place(margins: float) -> float:
    """Pixels from the left, within the drawing."""
    inside = min(max(margins, -REACH), REACH)
    return round((inside + REACH) / (2 * REACH) * (WIDTH - 12) + 6, 1)

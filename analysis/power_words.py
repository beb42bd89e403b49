"""What a planned study can see, in words, before anything has run: no spread is known yet, so it is the unknown."""

from analysis.power import smallest_detectable
from analysis.signflip import smallest_p
from analysis.wording import outcome_text, size_text
from search_spaces.spec import Spec

# A spread of paired accuracy differences to show power at before anything has run: 1 point.
_ASSUMED_SD = 0.01


def power_lines(spec: Spec) -> list[str]:
    """The smallest detectable effect, and for each claim's outcome the largest spread at which its margin would be seen.

    Both at a power of four in five; claims at alpha over their number, Holm's first and strictest step.
    """
    pairs = spec.blocks if spec.blocks > 1 else spec.replicates
    effect = smallest_detectable(pairs, spec.alpha, _ASSUMED_SD)
    found = f"differences of {100 * effect:.2f} points are found 4 times in 5" if effect < 1 else "nothing can be found"
    lines = [
        f"power: {pairs} pairs; the sign-flip p cannot go below {smallest_p(pairs):.4g}; at alpha {spec.alpha:g} and a "
        f"spread of {100 * _ASSUMED_SD:g} points, {found}"
    ]
    num_claims = len(spec.claims) + len(spec.level_claims)
    for name, claim in spec.claims.items():
        for outcome in claim.outcomes:
            # detectable effects are proportional to the spread, so one of spread 1 says all
            unit = smallest_detectable(pairs, spec.alpha / num_claims, 1.0)
            margin = size_text(outcome.name, "difference", outcome.margin)
            if unit == float("inf"):
                seen = "cannot be seen with so few pairs"
            else:
                spread = size_text(outcome.name, "difference", outcome.margin / unit)
                seen = f"is seen 4 times in 5 if the pairs' differences spread by {spread} or less ({unit:.2f} spreads)"
            lines.append(f"{name}: an effect of its margin, {margin} in {outcome_text(outcome.name)}, {seen}")
    return lines

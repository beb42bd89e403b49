"""What a planned study can see, in words, before anything has run: no spread is known yet, so it is the unknown."""

from analysis.stats.power import expected_blocks, pairs_for_verdict, pairs_needed, smallest_detectable
from analysis.stats.sequential import spent
from analysis.stats.signflip import smallest_p
from analysis.trials.grid import label
from analysis.words.wording import levels_text, outcome_text, size_text
from search_spaces.claims import Claim, LevelClaim
from search_spaces.spec import Spec

# A spread of paired accuracy differences to show power at before anything has run: 1 point.
_ASSUMED_SD = 0.01
# Spreads in margins at which a plan is worked out, and what they are called.
_SPREADS = {"half the margin": 0.5, "the margin": 1.0, "twice the margin": 2.0}


def power_lines(spec: Spec) -> list[str]:
    """The smallest detectable effect, and for each claim's outcome the largest spread at which its margin would be seen.

    Both at a power of four in five; claims at alpha over their number, Holm's first and strictest step (Bonferroni's in a
    sequential study, whose looks and expected numbers of blocks follow).
    """
    pairs = spec.blocks if spec.blocks > 1 else spec.replicates
    effect = smallest_detectable(pairs, spec.alpha, _ASSUMED_SD)
    found = f"differences of {100 * effect:.2f} points are found 4 times in 5" if effect < 1 else "nothing can be found"
    lines = [
        f"power: {pairs} pairs; the sign-flip p cannot go below {smallest_p(pairs):.4g}; at alpha {spec.alpha:g} and a "
        f"spread of {100 * _ASSUMED_SD:g} points, {found}"
    ]
    num_claims = len(spec.all_claims)
    for name, claim in spec.claims.items():
        for outcome in claim.outcomes:
            # detectable effects are proportional to the spread, so one of spread 1 says all
            unit = smallest_detectable(pairs, spec.alpha / num_claims / len(claim.all_arms), 1.0)
            margin = size_text(outcome.name, "difference", outcome.margin)
            if unit == float("inf"):
                seen = "cannot be seen with so few pairs"
            else:
                spread = size_text(outcome.name, "difference", outcome.margin / unit)
                seen = f"is seen 4 times in 5 if the pairs' differences spread by {spread} or less ({unit:.2f} spreads)"
            lines.append(f"{name}: an effect of its margin, {margin} in {outcome_text(outcome.name)}, {seen}")
        lines += _family_lines(spec, name, claim)
    if spec.claims:
        level = spec.alpha / num_claims
        needed = [f"{pairs_needed(1.0, spread, level)} at a spread of {name}" for name, spread in _SPREADS.items()]
        lines.append(
            f"pairs needed to see an effect of the margin 4 times in 5 at level {level:.3g}: {', '.join(needed)}"
        )
    return lines + _looks(spec, num_claims)


def _family_lines(spec: Spec, name: str, claim: Claim) -> list[str]:
    """How a claim of several arms or comparisons is decided, and what it presupposes."""
    num_arms, num_parts, level = len(claim.all_arms), claim.num_parts, spec.alpha / len(spec.all_claims)
    each = f" in all {num_parts} comparisons" if num_parts > 1 else ""
    lines = []
    if num_arms > 1:
        arms = ", ".join(levels_text(label(arm)) for arm in claim.arms)
        lines.append(
            f"{name}: a family of {num_arms} arms ({arms}): any of them supports it{each}, at level {level / num_arms:.2g}; "
            f"all must fall to refute it, at level {level / num_parts:.2g}"
        )
    elif num_parts > 1:
        lines.append(f"{name}: holds if it holds{each}; any one refutes it, at level {level / num_parts:.2g}")
    if claim.presupposes:
        lines.append(f"{name}: presupposes {claim.presupposes}; if that is refuted, its sentence says so")
    return lines


def undecidable(spec: Spec) -> str:
    """Which claims so few pairs cannot support, or cannot refute, whatever the data; why, and how many would do.

    Support needs a p of alpha / (m A) for m claims and A arms of a family, refutation one of alpha / (m k) for k comparisons.
    Empty where there are enough, and for one block, which gives no verdict in any case.
    """
    num_claims, least = len(spec.all_claims), smallest_p(spec.blocks)
    demands = {name: _demand(claim) for name, claim in spec.all_claims.items()}
    lost = [name for name, (_, num, _) in demands.items() if least > spec.alpha / num_claims / num]
    if spec.blocks == 1 or not lost:
        return ""
    worst = max(lost, key=lambda name: demands[name][1])
    verb, num, what = demands[worst]
    shared = f" over {num} {what}" if num > 1 else ""
    level, enough = spec.alpha / num_claims / num, pairs_for_verdict(spec.alpha, num_claims * num, num_against=0)
    return (
        f"{spec.blocks} blocks cannot decide {', '.join(lost)}: {spec.blocks} pairs give no p below {least:.2g}, and to "
        f"{verb} {worst} takes {level:.2g} ({spec.alpha:g} over {num_claims} claims{shared}); blocks: {enough} would do, and "
        "blocks: 1 runs without verdicts"
    )


def _demand(claim: Claim | LevelClaim) -> tuple[str, int, str]:
    """What takes the smallest p of a claim, over how many its level is shared, and what they are."""
    num_arms = len(claim.all_arms) if isinstance(claim, Claim) else 1
    if num_arms > claim.num_parts:
        return "support", num_arms, "arms"
    return "refute", claim.num_parts, "comparisons"


def verdict_warning(spec: Spec) -> str:
    """Why so few blocks give no sure verdict, and how many would; empty where there are enough, or nothing to decide.

    A sequential study's first look need not be sure of one, though it should be able to give one.
    """
    num_claims = len(spec.all_claims)
    if not num_claims or spec.blocks == 1:
        return ""
    pairs = spec.looks[0]
    # the strictest level in use: a family shares its claim's among its arms, refutation among its comparisons
    shares = max(_demand(claim)[1] for claim in spec.all_claims.values())
    level = spent(pairs / spec.blocks, spec.alpha) / num_claims / shares
    possible = smallest_p(pairs) <= level
    if spec.sequential:
        early = f"the first look decides nothing: {pairs} pairs cannot reach the level spent by then, {level:.2g}"
        return "" if possible else early
    sure = pairs_for_verdict(spec.alpha, num_claims * shares)
    if pairs >= sure:
        return ""
    gives = "give one only when almost every pair agrees" if possible else "cannot give one at all"
    if possible and pairs < pairs_for_verdict(spec.alpha, num_claims * shares, num_against=1):
        gives = "give one only when every pair agrees, the most extreme pattern"
    most = f" of up to {shares} arms or comparisons" if shares > 1 else ""
    return f"too few blocks for a sure verdict: with {num_claims} claims{most} {pairs} pairs {gives}; blocks: {sure} would do"


def _looks(spec: Spec, num_claims: int) -> list[str]:
    """Of a sequential study: what may be spent by each look, and how many blocks a comparison is expected to take."""
    if spec.sequential is None:
        return []
    level, looks = spec.alpha / num_claims, spec.looks
    by_then = ", ".join(f"{spent(n / looks[-1], level):.2g}" for n in looks)
    lines = [
        f"looks at {', '.join(map(str, looks))} blocks, each only for cells that an undecided claim needs (trainings and time "
        f"above: all of them); level of a claim {level:.3g} (Bonferroni over {num_claims}), spent by then: {by_then} "
        "(Lan-DeMets)"
    ]
    for name, spread in _SPREADS.items():
        null, margin = (expected_blocks(looks, level, effect, spread) for effect in (0.0, 1.0))
        lines.append(
            f"at a spread of {name} a comparison takes {null.blocks:.1f} blocks without an effect (refuted "
            f"{null.refuted:.0%}) and {margin.blocks:.1f} at an effect of the margin (supported "
            f"{margin.supported:.0%}), expected by simulation"
        )
    return lines

"""Numbers, contrasts, outcomes and effects as people read them; accuracy in percentage points wherever it is read.

Of a number with an interval, two significant digits of the half width decide how many are shown.

Tables for machines (parquet, csv) keep the outcome's own unit: accuracy as a fraction of images.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_MOST_DECIMALS = 6
# An interval narrower than this share of its value is rounding error around a constant.
_EXACT = 1e-9
# Beyond it, a rise on a log scale is said as a factor.
_DOUBLED = math.log(2)
_NAMES = {
    "jacobian_unit_logits_mean_log": "near (log Jacobian)",
    "path_different_excess_variation_log": "between (log variation)",
    "attention_importance_ratio_zero": "correlation of gate and importance over its noise ceiling",
}
# The same for a sentence that speaks of the quantity itself, not of its logarithm.
_PLAIN = {
    "jacobian_unit_logits_mean_log": "the sensitivity near samples (input Jacobian)",
    "path_different_excess_variation_log": "the variation between samples",
    "attention_importance_ratio_zero": "the agreement of gate and importance, as a share of what noise allows,",
}


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What a value is multiplied by to be read, the symbol of a difference, and that of a level."""

    factor: float = 1.0
    difference: str = ""
    level: str = ""


def unit_of(outcome: str, scale: str = "difference") -> Unit:
    """Percentage points for accuracy, natural logarithms for ratios, nats for losses."""
    if "/accuracy" in outcome or re.match("noise_.*accuracy", outcome):
        return Unit(factor=100.0, difference="pp", level="%")
    if scale == "log ratio" or outcome.endswith("_log"):
        return Unit(difference="log")
    return Unit(difference="nat", level=" nat") if "/loss" in outcome else Unit()


def outcome_text(outcome: str) -> str:
    """``test accuracy``, ``near (log Jacobian)``; other names with spaces."""
    return _NAMES.get(outcome, outcome.replace("_", " ").replace("/", " "))


def plain_outcome(outcome: str) -> str:
    """The quantity that an outcome measures, as one speaks of it."""
    return _PLAIN.get(outcome, outcome_text(outcome.removesuffix("_log")))


def difference_words(outcome: str, scale: str, value: float) -> str:
    """A difference as one speaks of it: ``1.2 points higher``, ``33% lower``, ``0.014 lower``, ``no different``."""
    if not value:
        return "no different"
    if unit_of(outcome, scale).difference == "log" and value > _DOUBLED:
        return f"{number_text(math.exp(value), 2)} times higher"
    return f"{size_words(outcome, scale, abs(value), falling=value < 0)} {'higher' if value > 0 else 'lower'}"


def change_words(outcome: str, scale: str, value: float) -> str:
    """By how much a difference differs: ``-75.8 points``; of a logarithm a factor."""
    unit = unit_of(outcome, scale)
    if unit.difference == "pp":
        return f"{100 * value:+.1f} points"
    return f"a factor of {math.exp(value):.2f}" if unit.difference == "log" else f"{value:+.2g}"


def size_words(outcome: str, scale: str, size: float, *, falling: bool = True) -> str:
    """The size of a difference: ``1.2 points``; of a logarithm the change in percent, ``falling`` or rising."""
    unit = unit_of(outcome, scale)
    if unit.difference == "pp":
        points = f"{100 * size:.2g}" if size < 0.1 else f"{100 * size:.1f}"
        return f"{points} point{'' if points == '1' else 's'}"
    if unit.difference == "log":
        return f"{100 * abs(math.expm1(-size if falling else size)):.2g}%"
    return f"{number_text(size, 2)} {unit.difference}".rstrip()


def effect_text(
    outcome: str, scale: str, value: float | None, low: float | None = None, high: float | None = None
) -> str:
    """A difference with its unit and, where there are limits, its interval: ``-1.20 pp [-2.31, 0.04]``."""
    unit = unit_of(outcome, scale)
    if value is None:
        return ""
    value = unit.factor * value
    limits = [] if low is None or high is None else [unit.factor * low, unit.factor * high]
    if unit.level == "%":  # two decimals always, so that accuracies line up
        number, *shown = (f"{x:.2f}" for x in (value, *limits))
        number = "0.00" if number == "-0.00" else number
        interval = f"[{', '.join('0.00' if x == '-0.00' else x for x in shown)}]" if shown else ""
    else:
        text = interval_text(value, *limits) if limits else number_text(value, 3)
        number, _, interval = text.partition(" ")
    if any(map(math.isinf, limits)):
        interval = "(no interval)"
    return " ".join(filter(None, (number, unit.difference, interval)))


def axis_text(outcome: str, scale: str = "difference") -> str:
    """What an axis is labelled with: the outcome's name, and what its values are in."""
    unit = unit_of(outcome, scale)
    shown = {"%": " (%)", " nat": " (nat)"}.get(unit.level, ", natural log" if unit.difference == "log" else "")
    return f"{outcome_text(outcome)}{shown}"


def size_text(outcome: str, scale: str, value: float | None) -> str:
    """A margin or a detectable effect, to two significant digits: ``1 pp``, ``0.095 log``."""
    unit = unit_of(outcome, scale)
    if value is None:
        return ""
    size = unit.factor * value
    return f"{number_text(size, 2) if abs(size) < 10 else f'{size:.0f}'} {unit.difference}".rstrip()


def level_text(outcome: str, value: float | None) -> str:
    """A mean: ``97.1%``, ``1.234``. Smoothness levels have no unit, also where their logarithms are compared."""
    unit = unit_of(outcome)
    if value is None:
        return ""
    return f"{unit.factor * value:.1f}%" if unit.level == "%" else f"{number_text(value)}{unit.level}"


def capitalised(text: str) -> str:
    """``text`` with a capital first letter; the others stay."""
    return text[:1].upper() + text[1:]


def contrast_text(arm: str, reference: str) -> str:
    """``merge: mul - add`` from the labels ``merge=mul`` and ``merge=add``."""
    return _joined(arm, reference, "{name}: {arm} - {reference}", " - ")


def minus_text(arm: str, reference: str, better: str = "higher") -> str:
    """``merge mul minus add``, turned round where lower is better, so that positive is what a claim says."""
    pair = (arm, reference) if better == "higher" else (reference, arm)
    return _joined(*pair, "{name} {arm} minus {reference}", " minus ")


def levels_text(label: str) -> str:
    """``merge mul`` from the label ``merge=mul``; the pooled stratum is ``all``."""
    return label.replace("=", " ")


def _joined(arm: str, reference: str, form: str, between: str) -> str:
    ours, theirs = _levels(arm), _levels(reference)
    if not ours or list(ours) != list(theirs):
        return f"{arm}{between}{reference}"
    return ", ".join(form.format(name=name, arm=ours[name], reference=theirs[name]) for name in ours)


def _levels(label: str) -> dict[str, str]:
    """Factor -> level of a label; nothing where a level holds a space, and the label is shown as it is."""
    parts = [item.partition("=") for item in label.split(" ")]
    return {name: level for name, _, level in parts} if all(name and sign for name, sign, _ in parts) else {}


def interval_text(value: float | None, low: float | None, high: float | None) -> str:
    """``-0.012 [-0.034, 0.010]``; digits follow the half width of the interval where that is finite."""
    if value is None:
        return ""
    if low is None or high is None:
        return number_text(value)
    half = (high - low) / 2
    known = math.isfinite(half) and half > _EXACT * abs(value)
    decimals = _decimals(half, 2) if known else _decimals(abs(value), 3)
    return f"{_fixed(value, decimals)} [{_fixed(low, decimals)}, {_fixed(high, decimals)}]"


def number_text(value: float | None, digits: int = 4) -> str:
    """``digits`` significant digits; nothing for no value."""
    return "" if value is None else f"{value:.{digits}g}"


def pairs_text(num: int) -> str:
    """``1 pair``, ``10 pairs``."""
    return f"{num} pair{'' if num == 1 else 's'}"


def p_text(value: float | None) -> str:
    """A p-value to two significant digits, below one in a thousand as a bound."""
    if value is None:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _decimals(size: float, digits: int) -> int:
    if size == 0:
        return digits
    return min(max(digits - 1 - math.floor(math.log10(size)), 0), _MOST_DECIMALS)


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def listed(items: Iterable[Any]) -> str:
    """``a, b and c``."""
    *most, last = [str(item) for item in items] or [""]
    return f"{', '.join(most)} and {last}" if most else last

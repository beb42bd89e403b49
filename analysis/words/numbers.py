"""Numbers as people read them: two significant digits of the uncertainty decide how many are shown."""

import math

_MOST_DECIMALS = 6
# An interval narrower than this share of its value is rounding error around a constant.
_EXACT = 1e-9


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

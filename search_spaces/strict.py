"""What the models of a specification share: no unknown keys, bounded values, and one form for values that are equal."""

import difflib
import math
import reprlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

# Of a whole specification: how deep it goes, and how many values it holds (what an alias stands for counts each time).
MOST_DEPTH, MOST_VALUES = 20, 50_000
# Characters of a text, and of a name: of a level, a setting, a claim.
MOST_TEXT, MOST_NAME = 2_000, 100
# Real numbers and whole ones, by absolute value; what is counted has narrower bounds of its own.
MOST_NUMBER, MOST_WHOLE = 1e12, 2**63 - 1
# Characters of a value that a message quotes.
_MOST_QUOTED = 200

_short = reprlib.Repr()
_short.maxlevel, _short.maxdict, _short.maxlist = 4, 8, 20
_short.maxstring = _short.maxother = _MOST_QUOTED


def quoted(value: Any) -> str:
    """``value`` as a message shows it: at most 200 characters, however large it is."""
    text = _short.repr(value)
    return text if len(text) <= _MOST_QUOTED else f"{text[: _MOST_QUOTED - 3]}..."


def found(value: Any) -> str:
    """``value`` as written where another one is due; with a hint where nothing is written."""
    hint = " (nothing, or null; for the word put it in quotes, for no attention and the like write none)"
    return f"got {quoted(value)}{hint if value is None else ''}"


def nearest(name: str, known: Sequence[str]) -> str:
    """The known name nearest to ``name``, as the end of a message; all of them where none is near."""
    matches = difflib.get_close_matches(name[:200], known, n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else f" (known: {', '.join(known)})" if known else ""


def canonical(values: Any) -> Any:
    """A copy of a specification's ``values`` in which equal values are written alike: ``0.0`` as ``0``, tuples as lists.

    Raises ``ValueError`` naming the place of a number that is not finite or too large, of a text that is too long or holds
    control characters, of what is neither text, number, boolean, list nor mapping, and for too many or too deep values.
    """
    left = MOST_VALUES

    def copied(value: Any, where: tuple[str, ...]) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(
                f"a specification of more than {MOST_VALUES:,} values (what an alias stands for counts each time)"
            )
        if len(where) > MOST_DEPTH:
            raise ValueError(f"{'.'.join(where[:3])}: lies more than {MOST_DEPTH} levels deep")
        if value is None or isinstance(value, bool | BaseModel):
            return value
        if isinstance(value, Mapping):
            return {_key(key, where): copied(item, (*where, str(key))) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [copied(item, (*where, str(i))) for i, item in enumerate(value)]
        try:
            return _scalar(value)
        except ValueError as error:
            raise ValueError(f"{'.'.join(where[:-1]) or where[-1]}: {error}, got {where[-1]}={quoted(value)}") from None

    return copied(values, ())


def _scalar(value: Any) -> int | float | str:
    if isinstance(value, str):
        return _text(value, MOST_TEXT)
    if isinstance(value, int):
        if abs(value) > MOST_WHOLE:
            raise ValueError("needs whole numbers below 2^63")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("needs finite numbers")
        if abs(value) > MOST_NUMBER:
            raise ValueError(f"needs numbers of at most {MOST_NUMBER:g}")
        return int(value) if value == int(value) else value
    raise ValueError(f"needs text, numbers, booleans, lists and mappings, not a {type(value).__name__}")


def _key(key: Any, where: tuple[str, ...]) -> str:
    place = f"{'.'.join(where)}: " if where else ""
    if not isinstance(key, str):
        raise ValueError(f"{place}a key is text, got {quoted(key)}; put it in quotes")
    try:
        return _text(key, MOST_NAME)
    except ValueError as error:
        raise ValueError(f"{place}a key {error}, got {quoted(key)}") from None


def _text(text: str, most: int) -> str:
    if len(text) > most:
        raise ValueError(f"needs text of at most {most:,} characters")
    if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in text):
        raise ValueError("needs text without control characters")
    return text


def _level(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise ValueError(f"needs a name, a number or a boolean, {found(value)}")
    if isinstance(value, str) and (len(value) > MOST_NAME or "\n" in value):
        raise ValueError(f"needs a name in one line of at most {MOST_NAME} characters, got {quoted(value)}")
    return value if isinstance(value, bool) else _scalar(value)


Number = Annotated[float, Field(ge=-MOST_NUMBER, le=MOST_NUMBER)]
Level = Annotated[bool | int | float | str, BeforeValidator(_level)]
Levels = dict[str, Level]
Grid = dict[str, list[Level]]


class Strict(BaseModel):
    """A model that refuses unknown keys and changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def once(values: list[Any]) -> list[Any]:
    """``values`` of a list that holds each once. Raises ``ValueError`` naming one that stands twice, in whatever spelling."""
    seen: set[str] = set()
    for value in values:
        if repr(value) in seen:
            raise ValueError(f"lists {quoted(value)} twice: {quoted(values)}")
        seen.add(repr(value))
    return values

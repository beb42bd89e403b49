"""Errors a user can mend: one clear line, no traceback, exit status 2."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user asked for cannot be done; the message is one line that says what would be right."""


def nearest(name: object, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the known name nearest to ``name``, or the known names when none is near."""
    names = sorted(known)
    matches = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else f" (known: {', '.join(names)})"

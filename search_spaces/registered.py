"""What a study fixes before its first confirmed replicate, and how a later specification departs from it.

Fixed are each claim with its estimand (the cells that it is averaged over), contrast, comparators, margins and test, and
what all claims share (level, family, looks, control).

Source: https://doi.org/10.1073/pnas.1708274114
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.claims import Claim, LevelClaim
from search_spaces.spec import Spec
from search_spaces.strict import Level, Levels

Registered = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One departure, and the claims that replicates from before it can no longer confirm."""

    text: str
    claims: tuple[str, ...]


def registered(spec: Spec) -> dict[str, Any]:
    """The part of ``spec`` that is fixed before its confirm phase, as plain JSON. Wording is no part of it."""
    return {
        "alpha": spec.alpha,
        "looks": list(spec.sequential.looks) if spec.sequential else None,
        "control": spec.control.model_dump(mode="json") if spec.control else None,
        # absent where there is none, so that what was registered before this key existed keeps its digest
        **({"assay": spec.assay.model_dump(mode="json")} if spec.assay else {}),
        "claims": {name: _fixed(spec, claim) for name, claim in spec.all_claims.items()},
        "blocks": spec.blocks * spec.replicates,
        "statistics": spec.model_dump(mode="json")["measure"]["statistics"],
    }


def digest(content: Registered) -> str:
    """The first 12 hexadecimal digits of a SHA-256 over what is fixed."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def changes(before: Registered, now: Registered) -> list[Change]:
    """Every way in which ``now`` departs from ``before``.

    A changed level, family, control or series of looks touches all claims; so does a claim left out, which would make the
    levels of the others easier. More blocks alone touch none, since the interval is that of its own number of pairs; they
    are reported because they were added with the first ones known. A new statistic is no change.
    """
    everyone = tuple(now["claims"])
    found = [Change(text=_was(k, before, now), claims=everyone) for k in _SHARED if before.get(k) != now.get(k)]
    if before["blocks"] != now["blocks"] and before["looks"] == now["looks"]:
        found.append(Change(text=_was("blocks", before, now), claims=()))
    for name, claim in before["claims"].items():
        if name not in now["claims"]:
            found.append(Change(text=f"{name} was left out", claims=everyone))
        else:
            found += [Change(text=f"{name}: {text}", claims=(name,)) for text in _differs(claim, now["claims"][name])]
    found += [Change(text=f"{name} was added", claims=(name,)) for name in everyone if name not in before["claims"]]
    for name, settings in before["statistics"].items():
        if settings != now["statistics"].get(name, settings):
            reads = tuple(claim for claim in everyone if any("/" not in o for o in _outcomes(now["claims"][claim])))
            text = f"settings of {name} were {settings}, now {now['statistics'][name]}"
            found.append(Change(text=text, claims=reads))
    return found


_SHARED = ("alpha", "looks", "control", "assay")
# Wording, and keys that came later and are left out where they are not given: what was registered before keeps its digest.
_WORDING, _LATER = {"text", "presupposes"}, ("arm", "arms", "each", "control")


def _fixed(spec: Spec, claim: Claim | LevelClaim) -> dict[str, Any]:
    test, references = ("paired difference", claim.references) if isinstance(claim, Claim) else ("level", [])
    fixed = claim.model_dump(mode="json", exclude=_WORDING)
    fixed = {key: value for key, value in fixed.items() if value or key not in _LATER}
    return {"test": test, **fixed, "cells": _cells(spec, [*claim.all_arms, *references])}


def _cells(spec: Spec, sides: list[Levels]) -> list[str]:
    """The cells on either side of a claim, in an order that does not depend on how the factors are written down."""
    return sorted(
        " ".join(f"{name}={level}" for name, level in sorted(cell.items()))
        for cell in spec.cells()
        if any(all(cell.get(name) == level for name, level in side.items()) for side in sides)
    )


def _outcomes(claim: Registered) -> list[str]:
    return [claim["outcome"]] if claim["test"] == "level" else [outcome["name"] for outcome in claim["outcomes"]]


def _differs(before: Registered, now: Registered) -> Iterator[str]:
    if before["test"] != now["test"]:
        yield _was("test", before, now)
        return
    for key in dict.fromkeys((*before, *now)):
        if key == "outcomes" and _outcomes(before) == _outcomes(now):
            for old, new in zip(before[key], now[key], strict=True):
                yield from (f"{_was(name, old, new)} ({old['name']})" for name in old if old[name] != new[name])
        elif key == "cells" and set(map(_cell, before[key])) != set(map(_cell, now[key])):
            yield f"read in {len(before[key])} cells, now in {len(now[key])}"
        elif key != "cells" and before.get(key) != now.get(key):
            yield _was(key, before, now)


def _cell(text: str) -> frozenset[tuple[str, Level]]:
    """A cell as ``_cells`` writes it; equal for levels that are equal in another spelling, such as 0.0 and 0."""
    parts = (part.partition("=") for part in text.split(" "))
    return frozenset((name, _value(level)) for name, _, level in parts)


def _value(level: str) -> Level:
    try:
        return float(level)
    except ValueError:
        return level


def _was(key: str, before: Registered, now: Registered) -> str:
    return f"{key} was {before.get(key)}, now {now.get(key)}"

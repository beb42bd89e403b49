"""Levels that a specification names beside its factors: each is one of a cell, and each comparison has a pair of cells.

A level that no cell has would leave a claim without a pair, and a misspelt control would silence the check for one.
"""

from collections.abc import Iterator
from typing import Any

from analysis.trials.arms import cells_of
from analysis.trials.grid import label
from analysis.trials.records import agrees
from analysis.words.wording import levels_text
from search_spaces import Levels, Spec
from study.errors import nearest

_Cells = list[dict[str, Any]]


def misnamed(spec: Spec) -> str:
    """The first claim, control, assay or contrast that no cells of the study could show, and why; empty if there is none."""
    cells = cells_of(spec)
    for where, arm, reference in _named(spec):
        contexts = []
        for levels in (arm, reference):
            there = [cell for cell in cells if agrees(cell, levels)]
            if not there:
                return f"{where}: {missing(levels, cells) or f'no cell of this study has {_text(levels)} together'}"
            contexts.append([{name: cell[name] for name in cell if name not in arm} for cell in there])
        arms, references = contexts
        if not any(context in references for context in arms):
            apart = [
                name for name in arms[0] if not {repr(c[name]) for c in arms} & {repr(c[name]) for c in references}
            ]
            told = (
                f"{where}: no cell with {_text(arm)} has its like with {_text(reference)}: all other factors must agree"
            )
            return told + (f", and {' and '.join(apart)} cannot" if apart else "")
    return ""


def missing(levels: Levels, cells: _Cells) -> str:
    """What no cell has, with the nearest level that one has; empty where each level is that of some cell."""
    for name, level in levels.items():
        known = list(dict.fromkeys(str(cell[name]) for cell in cells))
        if str(level) not in known:
            return f"no cell of this study has {name} {level!r}{nearest(level, known)}"
    return ""


def _named(spec: Spec) -> Iterator[tuple[str, Levels, Levels]]:
    """Where cells are named, and the levels of both sides."""
    listed = [(name, contrast) for name, claim in spec.claims.items() for contrast in claim.contrasts()]
    listed += [("control", spec.control)] if spec.control else []
    listed += [(f"contrasts[{i}]", contrast) for i, contrast in enumerate(spec.contrasts)]
    yield from ((where, contrast.arm, contrast.reference) for where, contrast in listed)
    if assay := spec.assay:
        yield "assay", assay.side(assay.arm), assay.side(assay.reference)
    for name, claim in spec.level_claims.items():
        yield from ((name, arm, arm) for arm in claim.all_arms)


def _text(levels: Levels) -> str:
    return levels_text(label(levels))

"""Every level against that of the control's reference, all else equal: comparisons that nobody declared, for exploration.

They join no family of claims and change no level or verdict.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from analysis.trials.arms import cells_of
from analysis.trials.records import agrees
from search_spaces import Contrast, Levels, Spec

_Cell = dict[str, Any]
_DATASET = "dataset"


def level_contrasts(spec: Spec) -> list[Contrast]:
    """Each level of each factor against the reference's, in the order of the cells; those left out that a study declares.

    The reference is the first cell that the A/A control compares with, without a control the study's first cell. A level that
    no cell has on top of all else equal (a gate, with which its form comes) is compared together with the fewest other factors
    that it takes. Empty for a joint search, which shows no effect.
    """
    cells = [] if spec.joint else cells_of(spec)
    if not cells:
        return []
    reference = _reference(spec, cells)
    pairs: dict[tuple[Any, ...], tuple[Contrast, list[tuple[_Cell, _Cell]]]] = {}
    for cell in cells:
        for names, other in _compared(cell, reference, cells):
            levels = [{name: each[name] for name in names} for each in (cell, other)]
            # a keyword that another grid leaves out has no level
            if any(None in each.values() for each in levels):
                continue
            contrast = Contrast(arm=levels[0], reference=levels[1])
            pairs.setdefault(_identity(levels[0]), (contrast, []))[1].append((cell, other))
    declared = spec.all_contrasts()
    return [
        contrast
        for contrast, compared in pairs.values()
        if not any(all(_reads(each, *pair) for pair in compared) for each in declared)
    ]


def _reference(spec: Spec, cells: Sequence[_Cell]) -> _Cell:
    """The first cell of the control's reference that has its like in the control's arm; else the first cell."""
    for cell in cells if spec.control else ():
        assert spec.control is not None
        if agrees(cell, spec.control.reference) and any(_reads(spec.control, other, cell) for other in cells):
            return cell
    return cells[0]


def _compared(cell: _Cell, reference: _Cell, cells: Sequence[_Cell]) -> Iterator[tuple[tuple[str, ...], _Cell]]:
    """Cells that have the reference's level of some factors and all else equal, with these: for each factor the fewest."""
    nearer = []
    for other in cells:
        names = tuple(name for name in cell if other[name] != cell[name])
        if names and _DATASET not in names and all(other[name] == reference[name] for name in names):
            nearer.append((names, other))
    nearer.sort(key=lambda found: len(found[0]))
    fewest = [next((found for found in nearer if name in found[0]), None) for name in cell]
    yield from dict(found for found in fewest if found).items()


def _identity(levels: Levels) -> tuple[Any, ...]:
    return tuple((name, repr(level)) for name, level in levels.items())


def _reads(contrast: Contrast, cell: _Cell, other: _Cell) -> bool:
    """Whether ``contrast`` pairs the two cells, either of them its arm."""
    if any(cell[name] != other[name] for name in cell if name not in contrast.arm):
        return False
    return any(agrees(a, contrast.arm) and agrees(b, contrast.reference) for a, b in ((cell, other), (other, cell)))

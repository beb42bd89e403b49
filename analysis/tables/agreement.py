"""Do networks draw the same decision regions? The reproducibility score.

The score is the share of grid points, on planes that all networks share, to which two networks give one label.
Source: https://arxiv.org/abs/2203.08124
"""

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.inputs import Inputs
from analysis.stats.spread import mean, sd
from analysis.tables.kept import kept_tables
from analysis.trials.grid import NO_RECORD, ConfirmGrid, strata_of
from analysis.words.columns import count, counts, number, shared, text
from analysis.words.rows import Row, Rows
from study.registry import TABLES

_POINTS = "fraction of grid points"


@dataclass(frozen=True, kw_only=True)
class _Networks:
    """Completed networks of a cell by replicate (a column of the grid): their labels (planes, points); the others, counted."""

    name: str
    dataset: str
    labels: dict[int, NDArray[np.int16]]
    num_failed: int
    num_missing: int


@TABLES.register(
    "decision_agreement",
    formula="share of points, on planes through three samples that all networks share, to which two networks give one label; "
    "over pairs of replicates of a cell, or of two cells that are compared",
    source="https://arxiv.org/abs/2203.08124",
    title="Agreement of decision regions",
    place=3.5,
    columns=(
        *shared("study dataset cell"),
        text("other", "With", meaning="the other cell; the same one within a cell"),
        text(
            "replicates",
            "Replicates",
            meaning="different: two networks differ in seed and split; same: in the arm alone",
        ),
        *counts({"n_networks": "networks of the cell", "n_other": "networks of the other cell"}),
        count("n_pairs", "Pairs", meaning="pairs of networks that are compared"),
        count("n_planes", "Planes", meaning="planes through three samples that all networks share"),
        number(
            "agreement",
            _POINTS,
            "Agreement",
            "percent",
            meaning="mean over pairs of the share of grid points with one label",
        ),
        number(
            "agreement_sd",
            _POINTS,
            "Spread",
            "percent",
            meaning="standard deviation over pairs, which share networks: no standard error",
        ),
        number("agreement_low", _POINTS, "Least", "percent", meaning="the pair that agrees least"),
        number(
            "agreement_stderr", _POINTS, "Error by planes", "percent", meaning="standard error of the mean over planes"
        ),
        count("n_failed", "Failed", meaning="networks that did not complete, left out"),
        count("n_missing", "Not measured", meaning="completed networks that kept no grid, or another one"),
    ),
    main="cell other replicates n_pairs agreement agreement_sd agreement_low n_planes agreement_stderr n_failed n_missing",
    row="a cell with itself, or two cells that a contrast compares; over pairs of completed networks",
)
def agreement_rows(inputs: Inputs) -> Rows:
    """One row per cell with itself, then two rows per contrast and stratum: different replicates, and the same ones.

    ``replicates`` is ``different`` where two networks differ in seed and split, and ``same`` where they differ in the arm
    alone. Within a cell replicates always differ, so a cell compares with the ``different`` row of a contrast. Pairs share
    networks: ``agreement_sd`` is their spread, no standard error. ``agreement_stderr`` is over planes; all rows share the
    planes, so much of it cancels where rows are compared. Failed networks are counted and left out: a constant answer agrees
    with itself. So are networks that kept no grid, or another one than most. Empty where no network kept one.
    """
    grids = _grids(inputs)
    if not grids:
        return []
    grid = inputs.grid
    cells = [_networks(grid, i, grids) for i in range(len(grid.cells))]
    rows = [_row(cell, cell, "different", itertools.combinations(cell.labels, 2)) for cell in cells if cell.name]
    for contrast in inputs.spec.all_contrasts():
        for stratum in (s for strata in strata_of(grid, contrast).values() for s in strata):
            arm, reference = cells[stratum.arm], cells[stratum.reference]
            pairs = list(itertools.product(arm.labels, reference.labels))
            if pairs:
                rows.append(_row(arm, reference, "different", ((i, j) for i, j in pairs if i != j)))
                rows.append(_row(arm, reference, "same", ((i, j) for i, j in pairs if i == j)))
    return rows


def _grids(inputs: Inputs) -> dict[str, NDArray[np.int16]]:
    """Trial key -> labels (planes, points), of networks whose planes are those that most of their dataset have."""
    statistic = "decision_regions"
    corners = {row["trial_key"]: t["label"].to_pylist() for row, t in kept_tables(inputs, statistic, "corners")}
    found: dict[str, dict[str, tuple[Any, NDArray[np.int16]]]] = {}
    for row, table in kept_tables(inputs, statistic, "labels"):
        # the samples' classes tell one draw of planes from another
        planes = (table.num_rows, *corners.get(row["trial_key"], []))
        num_planes = len(table["plane"].unique())
        labels = table["label"].to_numpy().reshape(num_planes, -1)
        found.setdefault(row["dataset"], {})[row["trial_key"]] = planes, labels
    grids: dict[str, NDArray[np.int16]] = {}
    for networks in found.values():
        common = Counter(planes for planes, _ in networks.values()).most_common(1)[0][0]
        grids |= {key: labels for key, (planes, labels) in networks.items() if planes == common}
    return grids


def _networks(grid: ConfirmGrid, cell: int, grids: dict[str, NDArray[np.int16]]) -> _Networks:
    labels, name, completed, failed = {}, "", 0, 0
    for pair, at in enumerate(grid.rows[cell].tolist()):
        if at == NO_RECORD:
            continue
        key, state, name = (grid.confirm[column][at].as_py() for column in ("trial_key", "state", "cell"))
        completed += state == "completed"
        failed += state != "completed"
        if state == "completed" and key in grids:
            labels[pair] = grids[key]
    dataset, missing = grid.cells[cell].dataset, completed - len(labels)
    return _Networks(name=name, dataset=dataset, labels=labels, num_failed=failed, num_missing=missing)


def _row(one: _Networks, other: _Networks, replicates: str, pairs: Iterable[tuple[int, int]]) -> Row:
    # (pairs, planes)
    by_plane = np.array([np.mean(one.labels[i] == other.labels[j], axis=1) for i, j in pairs])
    shares = by_plane.mean(1) if len(by_plane) else by_plane
    num_planes = by_plane.shape[1] if len(by_plane) else 0
    over_planes = sd(by_plane.mean(0)) if num_planes > 1 else None
    both = [one] if one is other else [one, other]
    return {
        "dataset": one.dataset,
        "cell": one.name,
        "other": other.name,
        "replicates": replicates,
        "n_networks": len(one.labels),
        "n_other": len(other.labels),
        "n_pairs": len(shares),
        "n_planes": num_planes,
        "agreement": mean(shares),
        "agreement_sd": sd(shares),
        "agreement_low": float(shares.min()) if len(shares) else None,
        "agreement_stderr": None if over_planes is None else over_planes / num_planes**0.5,
        "n_failed": sum(networks.num_failed for networks in both),
        "n_missing": sum(networks.num_missing for networks in both),
    }

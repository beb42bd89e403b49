"""The tables that statistics keep, and which networks' stand side by side in pictures.

Pictured are the arms of a comparison, in each stratum, in the first replicate.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from analysis.inputs import Inputs
from analysis.trials.grid import NO_RECORD, ConfirmGrid, strata_of
from analysis.trials.records import current_measures
from analysis.words.columns import texts
from analysis.words.rows import Rows
from search_spaces import Contrast, Levels, Spec
from study.results.files import kept_path
from study.results.kept_tables import read_kept

PICTURED = texts("context arm trial_key note")
# What a picture says in place of a network that it cannot show.
NOT_TRAINED, NOT_KEPT = "not trained yet", "not measured"


def kept_tables(inputs: Inputs, statistic: str, table: str) -> Iterator[tuple[dict[str, Any], pa.Table]]:
    """Per completed, confirmed network, in the order of the trials table: its row, and what ``statistic`` kept of it.

    Nothing where a network has no such table, or where only an MLflow server is read (``inputs.folder`` is ``None``). Raises
    ``UserError`` for a damaged one.
    """
    paths = kept_paths(inputs, statistic, table)
    for row in inputs.trials.to_pylist() if paths else []:
        if row["trial_key"] in paths and (row["phase"], row["state"]) == ("confirm", "completed"):
            yield row, read_kept(*paths[row["trial_key"]])


def kept_paths(inputs: Inputs, statistic: str, table: str) -> dict[str, tuple[Path, str]]:
    """Trial key -> the file of what ``statistic`` kept of it and that file's checksum, for those that are there."""
    if inputs.folder is None:
        return {}
    paths = {
        trial_key: (
            kept_path(inputs.folder, trial_key, found[statistic]["measure_key"], table),
            found[statistic].get("kept_checksums", {}).get(table, ""),
        )
        for trial_key, found in current_measures(inputs.contents).items()
        if statistic in found and table in found[statistic].get("kept", [])
    }
    return {trial_key: (path, checksum) for trial_key, (path, checksum) in paths.items() if path.exists()}


@dataclass(frozen=True, kw_only=True)
class Pictured:
    """A network's place in a picture: ``row`` of the trials table, ``None`` where there is no such replicate yet."""

    context: str
    arm: str
    row: dict[str, Any] | None

    @property
    def trial_key(self) -> str | None:
        """The network's key."""
        return None if self.row is None else str(self.row["trial_key"])

    @property
    def note(self) -> str:
        """Empty for a completed network, else its state."""
        if self.row is None:
            return NOT_TRAINED
        return "" if self.row["state"] == "completed" else str(self.row["state"])


def pictured_contrasts(spec: Spec) -> list[Contrast]:
    """Those of the claims on the merge operator alone; else the first contrast, the control last."""
    claimed = [contrast for claim in spec.claims.values() for contrast in claim.contrasts()]
    merges = [contrast for contrast in claimed if set(contrast.arm) == {"merge"}]
    return merges or [*claimed, *spec.contrasts, *([spec.control] if spec.control else [])][:1]


def pictured(inputs: Inputs) -> list[Pictured]:
    """By stratum the references, then the arms, in the first block and replicate on record; each network once."""
    grid = inputs.grid
    rows = grid.confirm.to_pylist()
    several = len({cell.dataset for cell in grid.cells}) > 1
    found: dict[str, dict[str, Pictured]] = {}
    for side in ("reference", "arm"):
        for contrast in pictured_contrasts(inputs.spec):
            arm = arm_text(getattr(contrast, side))
            for stratum in (s for strata in strata_of(grid, contrast).values() for s in strata):
                cell = getattr(stratum, side)
                row = grid.rows[cell, 0] if len(grid.pairs) else NO_RECORD
                context = _context(grid, cell, contrast, several)
                shown = Pictured(context=context, arm=arm, row=None if row == NO_RECORD else rows[row])
                found.setdefault(context, {}).setdefault(arm, shown)
    return [network for networks in found.values() for network in networks.values()]


def arm_text(levels: Levels) -> str:
    """``mul``: the levels alone, their factors being the same on both sides."""
    return "/".join(map(str, levels.values()))


def pictured_rows(inputs: Inputs, statistic: str, table: str) -> Rows:
    """Every row that the pictured networks kept, with ``context``, ``arm``, ``trial_key`` and ``note``.

    A collapsed network is shown too, under that name. A network without the table has one row whose ``note`` says why, so that
    it leaves a visible gap. Empty where no pictured network kept the table.
    """
    networks = pictured(inputs)
    paths = kept_paths(inputs, statistic, table)
    read = {n.trial_key: read_kept(*paths[n.trial_key]).to_pylist() for n in networks if n.trial_key in paths}
    kept = {trial_key: found for trial_key, found in read.items() if found}
    rows: Rows = []
    for network in networks if kept else []:
        head = {"context": network.context, "arm": network.arm, "trial_key": network.trial_key, "note": network.note}
        if network.trial_key in kept:
            rows += [{**head, **row} for row in kept[network.trial_key]]
        else:
            missing = "" if network.row is None else NOT_KEPT
            rows.append({**head, "note": ", ".join(filter(None, (network.note, missing)))})
    return rows


def scale_losses(rows: Rows) -> list[float]:
    """Losses of completed networks, which give a picture its scale: a failed network may be anywhere."""
    drawn = [row for row in rows if row["loss"] and row["loss"] > 0 and math.isfinite(row["loss"])]
    return [row["loss"] for row in drawn if not row["note"]] or [row["loss"] for row in drawn] or [1.0]


def _context(grid: ConfirmGrid, cell: int, contrast: Contrast, several: bool) -> str:
    """``depth 8``, with the dataset where there are several; what is ``none`` is not told."""
    levels = {name: level for name, level in grid.cells[cell].levels.items() if name not in (*contrast.arm, "dataset")}
    parts = [grid.cells[cell].dataset] if several else []
    return ", ".join([*parts, *(f"{name} {level}" for name, level in levels.items() if level not in (None, "none"))])

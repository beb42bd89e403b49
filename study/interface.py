"""The package in Python: a specification planned and run, results opened and asked again, a network measured.

What a notebook needs, and no more; ``import fmm_study`` has it. What the user can mend raises ``UserError`` or ``SpecError``
in one line, as the command line prints it.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from matplotlib.figure import Figure

import search_spaces
from analysis.claims.named import misnamed
from analysis.figures.build import draw_figure, figure_names
from analysis.inputs import Inputs
from analysis.tables.build import build_table, table_names
from search_spaces import Levels, Spec, SpecError, check_spec
from study.commands import run as driver
from study.commands import show
from study.commands.claimed import checked_plan
from study.commands.start import RunOptions, refuse_undecidable
from study.errors import UserError
from study.measuring.network import measure_checkpoint, measure_network
from study.planning.layout import Plan
from study.printing.console import open_console
from study.printing.describe import print_plan
from study.results.workspace import Workspace, storage_folder

__all__ = [
    "Plan",
    "Spec",
    "SpecError",
    "Study",
    "UserError",
    "load_spec",
    "measure_checkpoint",
    "measure_network",
    "open_study",
    "plan",
    "run",
]
# A specification, or what one is read from: a preset's name, the path of a YAML file, a mapping as YAML would give it.
Source = Spec | str | os.PathLike[str] | Mapping[str, Any]
Place = str | os.PathLike[str]
# What asks for comparisons: a contrast of one's own is asked without them.
_ASKING: Mapping[str, Any] = {
    "claims": {}, "level_claims": {}, "doses": {}, "control": None, "assay": None, "sequential": None,
}  # fmt: skip


def load_spec(source: Source, *overrides: str) -> Spec:
    """The specification of ``source`` with ``dotted.key=value`` overrides. Raises ``SpecError``."""
    if isinstance(source, Spec):
        source = source.model_dump(mode="json")
    return search_spaces.load_spec(source if isinstance(source, Mapping) else os.fspath(source), overrides)


def plan(source: Source, *, price: float | None = None) -> Plan:
    """Print what ``fmm-study plan`` prints, for which some steps are timed; the checked plan, with its cells.

    ``price`` of a GPU hour (a core's without GPUs). Raises ``SpecError`` and ``UserError``.
    """
    planned = checked_plan(load_spec(source))
    print_plan(planned, open_console(), price)
    return planned


def run(source: Source, storage: Place = "results", **options: Any) -> "Study":
    """Run a study, or continue it, in this process; its results as far as they go.

    ``options``: those of ``RunOptions``, such as ``max_hours``; ``in_process=False`` runs on Ray. The first interrupt (the
    notebook's stop button) finishes the group at work, the second raises ``KeyboardInterrupt``: both lose nothing, and the
    same call continues. Raises ``SpecError`` and ``UserError``.
    """
    spec = load_spec(source)
    workspace = Workspace(storage_folder(Path(storage)) / spec.name)
    workspace.check(reading=False)
    spec = workspace.as_begun(spec)
    if not workspace.ledger.exists():
        refuse_undecidable(spec)
    driver.run(spec, workspace, RunOptions(**{"in_process": True} | options))
    return Study(show.in_folder(workspace, spec).inputs, str(workspace.root))


def open_study(place: Place, storage: Place = "results") -> "Study":
    """The results in a folder, of a study under ``storage`` by its name, or at ``URI#NAME`` in an MLflow store.

    They may be of a study at work, or from another machine. Raises ``UserError`` where there are none.
    """
    held = show.anywhere(os.fspath(place), Path(storage))
    return Study(held.inputs, held.where)


class Study:
    """Results of a study. Tables are Arrow's: ``.to_pandas()`` makes frames of them, where pandas is installed."""

    def __init__(self, inputs: Inputs, where: str) -> None:
        self._inputs, self.where = inputs, where

    def __repr__(self) -> str:
        return f"<Study {self.spec.name}: {self.trials.num_rows} trainings, {self.where}>"

    @property
    def spec(self) -> Spec:
        """What was run."""
        return self._inputs.spec

    @property
    def trials(self) -> pa.Table:
        """One row a training: its settings, state, metrics and what was measured on it."""
        return self.table("trials")

    @property
    def effects(self) -> pa.Table:
        """One row a contrast, dataset, outcome and stratum: arm minus reference, with interval and p."""
        return self.table("effects")

    @property
    def claims(self) -> pa.Table:
        """One row a claim and dataset: the verdict, why, and the comparison it hangs on."""
        return self.table("claims")

    @property
    def tables(self) -> list[str]:
        """Names of all tables."""
        return table_names()

    @property
    def figures(self) -> list[str]:
        """Names of all figures."""
        return figure_names()

    def table(self, name: str) -> pa.Table:
        """One of ``tables``. Raises ``UserError`` for another name."""
        return build_table(self._inputs, name)

    def figure(self, name: str = "effects") -> Figure:
        """One of ``figures``, as the report shows it. Raises ``UserError`` for another name."""
        return draw_figure(self._inputs, name)

    def contrast(self, arm: Levels, reference: Levels) -> "Study":
        """The same results, asked for this comparison alone: see its ``effects``, or ``figure()``.

        ``arm`` and ``reference`` give levels of the same factors, as under ``contrasts`` of a specification. It was named
        after the results were seen, so it is exploratory, and has no verdict. Raises ``UserError`` or ``SpecError`` for
        factors and levels that the study has not.
        """
        asked = {"contrasts": [{"arm": dict(arm), "reference": dict(reference)}]}
        spec = check_spec({**self.spec.model_dump(mode="json"), **_ASKING, **asked}, "contrast")
        if told := misnamed(spec):
            raise UserError(told.replace("contrasts[0]", "contrast"))
        return Study(dataclasses.replace(self._inputs, spec=spec, registration=None), self.where)

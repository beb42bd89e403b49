"""``report``, ``audit`` and ``export``: what a study has found, read from its folder or an MLflow store, and shown.

It may have run on another machine. Neither place needs the images or the user's own plug-ins: of a dataset, tables need the
number of classes, which the study noted when it ran.
"""

import dataclasses
import functools
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.claims.rejudged import earlier_verdicts, keep_earlier
from analysis.inputs import Inputs
from analysis.report import page
from analysis.tables.build import build_tables
from search_spaces import Spec, load_spec, with_changes, write_yaml
from study.checks.audit import LOOKED_AT, NOT_LOOKED_AT, audit, audit_view
from study.commands.recorded import recorded_plan
from study.config import Execution
from study.data import dataset_facts
from study.errors import UserError, nearest
from study.planning.agenda import Agenda
from study.planning.exported import export_searches
from study.planning.importance import importances
from study.planning.layout import Plan, lay_out
from study.planning.plan import load_levels
from study.printing.console import open_console, say
from study.printing.outcomes import measured_quantities
from study.results.files import SPECIFICATION
from study.results.ledger import Contents, is_compressed, read_ledger, segments
from study.results.revisions import up_to_date
from study.results.sessions import accepted_changes, read_sessions, session_tags
from study.results.workspace import Workspace, opened, read_registration, studies, study_folder
from study.tracking.reading import ReadStudy, read_study
from study.tracking.sqlite import is_missing
from study.tracking.store import masked, tracking_uri
from study.tracking.summaries import cell_runs
from study.tracking.view import as_user_error


@dataclass(frozen=True, kw_only=True)
class Recorded(ReadStudy):
    """A study's records; ``where`` they were read, without credentials; ``folder``: ``None`` where only a store was read."""

    where: str
    folder: Path | None = None

    @property
    def session(self) -> Mapping[str, Any]:
        """The last of ``sessions``; empty if none is known."""
        return (self.sessions or [{}])[-1]

    @property
    def earlier(self) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        """Claim and dataset -> how earlier rules judged it; empty where its folder tells of none."""
        return earlier_verdicts(Workspace(self.folder).tables) if self.folder else {}

    @functools.cached_property
    def inputs(self) -> Inputs:
        """What its tables are made from. Raises ``UserError`` for a dataset of which nothing is known."""
        noted = {name: facts for session in self.sessions for name, facts in session.get("datasets", {}).items()}
        names = dict.fromkeys(
            str(levels.get("dataset", self.spec.fixed.get("dataset"))) for levels in self.spec.cells()
        )
        classes = {
            name: noted[name]["num_classes"] if name in noted else dataset_facts(name).num_classes for name in names
        }
        return Inputs(
            spec=self.spec,
            contents=up_to_date(self.contents),
            chance={name: 1 / num for name, num in classes.items()},
            folder=self.folder,
            importance_of=importances,
            quantities_of=lambda spec: measured_quantities(spec, self.sessions),
            registration=self.registration,
            price=next((session["price"] for session in reversed(self.sessions) if "price" in session), None),
        )


def in_folder(workspace: Workspace, spec: Spec | None = None) -> Recorded:
    """A study read from its folder; ``spec`` replaces the one it was run with. Raises ``UserError`` if nothing was run."""
    contents = read_ledger(workspace.ledger)
    if not contents.replicates:
        name = workspace.root.name if spec is None else spec.name
        raise UserError(f"{workspace.ledger} holds no results; first: fmm-study run {name}")
    if spec is None:
        spec = workspace.specification()
        if spec is None:
            raise UserError(f"{workspace.root / SPECIFICATION} is missing: the folder does not say what was run")
    return held_by(workspace, spec, contents)


def held_by(workspace: Workspace, spec: Spec, contents: Contents) -> Recorded:
    """A study's ``contents``, and what its folder notes beside them."""
    root = workspace.root
    return Recorded(
        spec=spec,
        contents=contents,
        sessions=read_sessions(root),
        where=str(root),
        registration=read_registration(root),
        folder=root,
    )


def anywhere(place: str, storage: Path) -> Recorded:
    """A study at a folder, by its name under ``storage``, or as ``URI#NAME`` in an MLflow store. Raises ``UserError``."""
    uri, _, name = place.rpartition("#")
    if "://" in uri:
        return in_store(uri, name)
    if root := study_folder(place, storage):
        return in_folder(Workspace(root))
    known = studies(storage)
    hint = nearest(place, known) if known else ""
    raise UserError(
        f"{place!r} is no folder of a study, nor one under {storage}, nor URI#NAME in an MLflow store{hint}"
    )


def in_store(uri: str, name: str, folder: Path | None = None) -> Recorded:
    """A study read from an MLflow store, with the specification noted there. Raises ``UserError``.

    ``folder``: where the tables that statistics kept are copied to; ``None`` leaves them in the store.
    """
    uri = tracking_uri(uri, Path())
    found = read_study(uri, name, folder)
    if not found.contents.replicates:
        raise UserError(f"MLflow at {masked(uri)} holds no finished replicate of {name!r}")
    where = f"{masked(uri)}#{name}"
    if found.num_unwritten:
        where += f" ({found.num_unwritten} being written left out)"
    return Recorded(**vars(found), where=where, folder=folder)


def agenda_of(
    plan: Plan,
    contents: Contents,
    workspace: Workspace,
    *,
    retry_failed: bool = False,
    execution: Mapping[str, Execution] | None = None,
) -> Agenda:
    """What is left to run; in a sequential study the looks at ``contents`` decide which blocks follow."""

    def go_on(held: Contents, num_blocks: int) -> list[str]:
        course = held_by(workspace, plan.spec, held).inputs.course
        return [name for name, num in course.further.items() if num > num_blocks] if course else []

    looks = go_on if plan.spec.sequential else None
    return Agenda(plan, contents, retry_failed=retry_failed, execution=execution, go_on=looks)


def recorded(name: str, override: list[str], storage: Path, from_mlflow: str | None) -> tuple[Recorded, Workspace]:
    """What ``report`` and ``export`` show, and where they write: a preset's or file's results under ``storage``, or a store's.

    For a store ``name`` is a YAML file's path, or the study's name there, whose own specification is then taken. Raises
    ``UserError`` or ``SpecError``.
    """
    if from_mlflow is None:
        spec, workspace = opened(name, override, storage, reading=True)
        held = in_folder(workspace, spec)
        recorded_plan(spec, workspace, held.contents)
        return held, workspace
    Workspace(storage / "any").check(reading=False)
    if name.endswith((".yaml", ".yml")):
        spec = load_spec(name, override)
        held = in_store(from_mlflow, spec.name, storage / spec.name)
    else:
        held = in_store(from_mlflow, name, storage / name)
        spec = with_changes(held.spec, override, name)
    return dataclasses.replace(held, spec=spec), Workspace(storage / held.spec.name)


def report(held: Recorded, workspace: Workspace) -> Path:
    """Write tables, figures and ``report.html`` into the study's folder; the page's path. Raises ``UserError``."""
    keep_earlier(workspace.tables)
    write_tables = functools.cache(lambda: build_tables(held.inputs, workspace.tables))
    text = write_yaml(held.spec.model_dump(mode="json"))
    noted = session_tags(held.session) | {page.SPECIFICATION: text}
    if accepted := accepted_changes(held.sessions):
        noted["accepted changes"] = "; ".join(accepted)
    path = page.build_report(held.inputs, workspace.root, noted, write_tables)
    write_tables()  # unless it was done while figures were drawn
    return path


def export_to_optuna(held: Recorded, uri: str) -> None:
    """Write a study's searches into a database of Optuna's, and say what is there. Raises ``UserError``."""
    console = open_console()
    if held.spec.space:
        load_levels(held.spec)
    plan = lay_out(held.spec).continuing(held.contents)
    say(console, f"writing the searches of {held.spec.name} to {masked(uri)} (some 30 ms a trial)")
    try:
        num_studies, num_trials, num_new = export_searches(plan, held.contents, uri)
    except UserError as error:
        raise UserError(f"--optuna {masked(uri)!r}: {error}") from None
    say(console, f"{num_studies} studies, one a search and block; {num_trials} trials, {num_new} of them new")
    say(console, f"to look at them: pip install optuna-dashboard && optuna-dashboard {shlex.quote(masked(uri))}")


def check(spec: Spec, workspace: Workspace, *, tracking: str | None) -> tuple[list[str], str]:
    """Faults that an audit finds, one line each, and a line that says what was checked. Raises ``UserError`` before a run."""
    spec = workspace.as_begun(spec)
    held = in_folder(workspace, spec)
    contents = held.contents
    plan = recorded_plan(spec, workspace, contents, levels=True)
    uri = tracking_uri(tracking, workspace.root.parent)
    faults = list(audit(plan, contents, workspace))
    if workspace.holder():
        where = "not MLflow, which the driver at work is writing"
    elif tracking is None and all(map(is_compressed, segments(workspace.ledger))):
        where = "not weights and not MLflow, which are not published"
    elif held.session.get("in_process") and is_missing(uri):
        where = f"not MLflow, which nothing was written to yet (fmm-study ui {workspace.argument})"
    else:
        with as_user_error(uri):
            faults += audit_view(spec, contents, uri, cell_runs(held.inputs), workspace.argument)
        where = f"MLflow at {masked(uri)}"
    counted = f"{len(contents.replicates)} replicates, {len(contents.measures)} measurements"
    if accepted := accepted_changes(held.sessions):
        counted += f"; {'; '.join(accepted)}"
    return faults, f"{counted}; looked at {LOOKED_AT} and {where}; not at {NOT_LOOKED_AT}: {len(faults)} faults"

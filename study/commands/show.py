"""``report``, ``export``, ``audit`` and ``ui``: what a study has found, shown without running anything."""

import dataclasses
import signal
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import yaml

from analysis.report.page import SPECIFICATION, build_report
from analysis.tables.build import build_tables
from search_spaces import Spec, load_spec
from study.checks.audit import audit, audit_view
from study.commands.recorded import Recorded, agenda_of, in_folder, in_store
from study.planning.plan import make_plan
from study.printing.console import open_console, say
from study.results.provenance import session_tags
from study.results.workspace import Workspace
from study.tracking.pages import addresses
from study.tracking.reading import with_changes
from study.tracking.runs import headlines
from study.tracking.server import serving
from study.tracking.store import masked, tracking_uri
from study.tracking.view import Shown, as_user_error, find_view, replay


def recorded(name: str, override: list[str], storage: Path, from_mlflow: str | None) -> tuple[Recorded, Workspace]:
    """What ``report`` and ``export`` show, and where they write: a preset's or file's results under ``storage``, or a store's.

    For a store ``name`` is a YAML file's path, or the study's name there, whose own specification is then taken. Raises
    ``UserError`` or ``SpecError``.
    """
    if from_mlflow is None:
        spec = load_spec(name, override)
        make_plan(spec, needs_data=False)
        workspace = Workspace(storage / spec.name)
        return in_folder(workspace, spec), workspace
    if name.endswith((".yaml", ".yml")):
        spec = load_spec(name, override)
        held = in_store(from_mlflow, spec.name, storage / spec.name)
    else:
        held = in_store(from_mlflow, name, storage / name)
        spec = with_changes(held.spec, override, name)
    return dataclasses.replace(held, spec=spec), Workspace(storage / held.spec.name)


def report(held: Recorded, workspace: Workspace) -> Path:
    """Write tables, figures and ``report.html`` into the study's folder; the page's path. Raises ``UserError``."""
    build_tables(held.inputs, workspace.tables)
    text = yaml.safe_dump(held.spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return build_report(held.inputs, workspace.root, {**session_tags(held.session), SPECIFICATION: text})


def export(
    held: Recorded, workspace: Workspace, names: Sequence[str] = (), formats: Sequence[str] = ()
) -> dict[str, list[Path]]:
    """Write tables into the study's folder. Raises ``UserError``."""
    return build_tables(held.inputs, workspace.tables, names, formats)


def check(spec: Spec, workspace: Workspace, *, tracking: str | None) -> tuple[list[str], str]:
    """Faults that an audit finds, one line each, and a line that says what was checked. Raises ``UserError`` before a run."""
    plan, contents = make_plan(spec), in_folder(workspace, spec).contents
    uri = tracking_uri(tracking, workspace.root.parent)
    faults = list(audit(plan, contents, workspace))
    if workspace.holder() is None:
        with as_user_error(uri):
            faults += audit_view(spec, contents, uri)
        where = f"MLflow at {masked(uri)}"
    else:
        where = "not MLflow, which the driver at work is writing"
    counted = f"{len(contents.replicates)} replicates, {len(contents.measures)} measurements"
    return faults, f"{counted}; ledger, Optuna, tables, checkpoints, {where}: {len(faults)} faults"


def ui(spec: Spec, workspace: Workspace, *, tracking: str | None, host: str, port: int, browse: bool) -> None:
    """Bring the MLflow view up to the ledger, then serve it until Ctrl-C. Raises ``UserError``."""
    console = open_console()
    uri = tracking_uri(tracking, workspace.root.parent)
    held = in_folder(workspace, spec)
    say(console, f"bringing the view at {masked(uri)} up to {len(held.contents.replicates)} replicates")
    there = _up_to_date(held, workspace, uri)
    with serving(uri, host=host, port=port) as base:
        pages = addresses(base, there.experiment_id, there.block)
        for what, where in pages.items():
            say(console, f"{what}: {where}")
        if browse:
            webbrowser.open(next(iter(pages.values())))
        say(console, "Ctrl-C ends the server")
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        ended.wait()


def _up_to_date(held: Recorded, workspace: Workspace, uri: str) -> Shown:
    plan, contents = make_plan(held.spec), held.contents
    if workspace.holder():
        # the driver at work keeps the view itself
        return find_view(held.spec, workspace.root, contents, uri)
    with workspace.locked():
        effects = headlines(held.inputs.effects.to_pylist())
        done = agenda_of(plan, contents, workspace).done
        return replay(held.spec, workspace.root, contents, uri, effects, done=done)

"""What ``run``, ``report``, ``export`` and ``ui`` do, from a checked specification to what a user sees."""

import signal
import threading
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml
from rich.console import Console

from analysis.report import SPECIFICATION, build_report
from analysis.tables import Inputs, build_tables
from search_spaces import Spec
from study import describe
from study.agenda import Agenda
from study.audit import audit
from study.console import open_console, say
from study.data import load_dataset
from study.errors import UserError
from study.execution import frozen_groups
from study.importance import importances
from study.ledger import Contents, Ledger, read_ledger
from study.live import LiveView
from study.plan import Plan, make_plan
from study.plugins import plugin_sources
from study.provenance import note_session, read_sessions, session_tags
from study.schema import Record
from study.tracking.audit import audit_view
from study.tracking.pages import addresses
from study.tracking.runs import headlines
from study.tracking.server import serving
from study.tracking.store import masked, tracking_uri
from study.tracking.view import MlflowView, Shown, as_user_error, look, replay
from study.training.loop import Progress
from study.trial import discard_outcome, outcomes
from study.workspace import Workspace


def run(
    spec: Spec,
    workspace: Workspace,
    *,
    address: str | None = None,
    num_cpus: int | None = None,
    tracking: str | None = None,
    retry_failed: bool = False,
) -> bool:
    """Run or continue a study; ``False`` when it was interrupted. Raises ``UserError`` before anything starts."""
    console = open_console()
    plan = make_plan(spec)
    uri = tracking_uri(tracking, workspace.root.parent)
    with workspace.locked():
        workspace.freeze(spec)
        with Ledger(workspace.ledger) as ledger:
            contents = ledger.contents
            _collect(ledger, workspace.root)
            describe.print_start(plan, contents, workspace, console)
            together = frozen_groups(plan, workspace.root, started=bool(contents.replicates))
            agenda = Agenda(plan, contents, retry_failed=retry_failed, together=together)
            if not agenda.done:
                sources = plugin_sources(spec.plugins)
                note_session(workspace.root, _datasets(plan), gpus=spec.resources.gpus, plugins=sources)
            with MlflowView(spec, workspace.root, contents, uri, _warner(console)) as view:
                if not agenda.done:
                    # ray takes seconds to import, and a finished study needs none of it
                    from study.tune import run_agenda

                    with LiveView(plan, contents, console) as live:
                        listen = _both(live, view)
                        run_agenda(agenda, ledger, workspace.root, listen, address=address, num_cpus=num_cpus)
                for record in _collect(ledger, workspace.root):
                    view.tell(record)
                inputs = _inputs(plan, contents, workspace)
                _write(inputs, workspace)
                if agenda.done:
                    describe.print_results(inputs, console)
                whole = view.finish(headlines(inputs.effects.to_pylist()), done=agenda.done)
    describe.print_places(workspace, f"{masked(uri)}{'' if whole else ' (incomplete)'}", console)
    return agenda.done


def report(spec: Spec, workspace: Workspace) -> Path:
    """Write tables, figures and ``report.html`` from the ledger as it stands; its path. Raises ``UserError`` as ``export``."""
    plan = make_plan(spec)
    return _write(_inputs(plan, _held(workspace, spec), workspace), workspace)


def export(
    spec: Spec, workspace: Workspace, names: Sequence[str] = (), formats: Sequence[str] = ()
) -> dict[str, list[Path]]:
    """Write tables from the ledger as it stands. Raises ``UserError`` when nothing has been run."""
    contents = _held(workspace, spec)
    return build_tables(_inputs(make_plan(spec), contents, workspace), workspace.tables, names, formats)


def check(spec: Spec, workspace: Workspace, *, tracking: str | None) -> tuple[list[str], str]:
    """Faults found by an audit, a line each, and what was looked at. Raises ``UserError`` when nothing has been run."""
    plan, contents = make_plan(spec), _held(workspace, spec)
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
    contents = _held(workspace, spec)
    console.print(f"bringing the view at {masked(uri)} up to {len(contents.replicates)} replicates", highlight=False)
    shown = _shown(make_plan(spec), workspace, contents, uri)
    with serving(uri, host=host, port=port) as base:
        pages = addresses(base, shown.experiment_id, shown.block)
        for what, where in pages.items():
            say(console, f"{what}: {where}")
        if browse:
            webbrowser.open(next(iter(pages.values())))
        console.print("Ctrl-C ends the server")
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        ended.wait()


def _collect(ledger: Ledger, root: Path) -> list[Record]:
    """Take in what workers finished and no driver took: one was killed between a worker's end and its own append, or before
    it removed the hand-over file; or a worker outlived its driver by some seconds. Returns what was new to the ledger."""
    taken: list[Record] = []
    for key, records in outcomes(root):
        taken += [finished for finished in records if ledger.append(finished)]
        discard_outcome(root, key)
    for path in root.glob("checkpoints/*/state.pt"):
        record = ledger.contents.replicates.get(path.parent.name)
        if record is not None and record["state"] != "failed":
            path.unlink(missing_ok=True)
            discard_outcome(root, path.parent.name)
    return taken


def _shown(plan: Plan, workspace: Workspace, contents: Contents, uri: str) -> Shown:
    spec, root = plan.spec, workspace.root
    if workspace.holder():
        # the driver at work keeps the view itself
        return look(spec, root, contents, uri)
    with workspace.locked():
        effects = headlines(_inputs(plan, contents, workspace).effects.to_pylist())
        return replay(spec, root, contents, uri, effects, done=Agenda(plan, contents).done)


def _held(workspace: Workspace, spec: Spec) -> Contents:
    contents = read_ledger(workspace.ledger)
    if not contents.replicates:
        raise UserError(f"{workspace.ledger} holds no results; first: fmm-study run {spec.name}")
    return contents


def _write(inputs: Inputs, workspace: Workspace) -> Path:
    build_tables(inputs, workspace.tables)
    session = (read_sessions(workspace.root) or [{}])[-1]
    text = yaml.safe_dump(inputs.spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return build_report(inputs, workspace.root, {**session_tags(session), SPECIFICATION: text})


def _datasets(plan: Plan) -> set[str]:
    return {cell.settings["dataset"] for cell in plan.cells}


def _inputs(plan: Plan, contents: Contents, workspace: Workspace) -> Inputs:
    chance = {name: 1 / load_dataset(name).num_classes for name in _datasets(plan)}
    return Inputs(spec=plan.spec, contents=contents, chance=chance, folder=workspace.root, importance_of=importances)


def _warner(console: Console) -> Callable[[str], None]:
    return lambda line: say(console, f"warning: {line}")


def _both(live: LiveView, view: MlflowView) -> Callable[[Record | Progress], None]:
    def listen(event: Record | Progress) -> None:
        live.tell(event)
        if not isinstance(event, Progress):
            view.tell(event)

    return listen

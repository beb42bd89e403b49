"""What ``run``, ``report``, ``export`` and ``ui`` do, from a checked specification to what a user sees."""

import contextlib
import dataclasses
import functools
import signal
import threading
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from analysis.report import SPECIFICATION, build_report
from analysis.tables import Inputs, build_tables
from search_spaces import Spec, load_spec
from study import describe
from study.agenda import Agenda
from study.allowance import Allowance, Purse
from study.audit import audit
from study.console import open_console, say
from study.execution import frozen_execution
from study.gpu import asking
from study.ledger import Contents, Ledger
from study.live import LiveView
from study.plan import Plan, make_plan
from study.plugins import plugin_sources
from study.provenance import note_session, session_tags
from study.recorded import Recorded, held_by, in_folder, in_store
from study.registration import note_confirm, register
from study.schema import Record
from study.sharing import sharing_gpus
from study.task import Execution
from study.tracking.audit import audit_view
from study.tracking.pages import addresses
from study.tracking.reading import with_changes
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
    allowance: Allowance | None = None,
    retry_failed: bool = False,
    connection: contextlib.AbstractContextManager[Any] | None = None,
) -> bool:
    """Run or continue a study, as far as ``allowance`` goes; ``False`` when it was interrupted.

    ``connection``: to Ray, where it is made already (``study.start``); else one to ``address`` is made where it is needed.
    Raises ``UserError`` before any training starts.
    """
    console = open_console()
    plan = make_plan(spec)
    uri = tracking_uri(tracking, workspace.root.parent)
    with workspace.locked():
        before = workspace.freeze(spec)
        with Ledger(workspace.ledger) as ledger:
            contents = ledger.contents
            _collect(ledger, workspace.root)
            register(workspace.root, spec, before, contents.num_confirmed)
            describe.print_start(plan, contents, workspace, console)
            with asking(spec, address, functools.partial(say, console)) as ask:
                execution = frozen_execution(plan, workspace.root, ask, started=bool(contents.replicates))
                agenda = _agenda(plan, contents, workspace, retry_failed=retry_failed, execution=execution)
                if not agenda.done:
                    together = {name: chosen.together for name, chosen in execution.items()}
                    agenda.plan, shared = sharing_gpus(plan, workspace.root, together, ask)
                    if shared:
                        say(console, shared)
            allowance = allowance or Allowance()
            if not agenda.done:
                sources = plugin_sources(spec.plugins)
                note_session(
                    workspace.root, _datasets(plan), gpus=spec.resources.gpus, price=allowance.price, plugins=sources
                )
            purse = Purse(allowance, agenda.plan.spec.resources, contents)
            with MlflowView(spec, workspace.root, contents, uri, _warner(console)) as view:
                if not agenda.done and not purse.is_empty():
                    # ray takes seconds to import, and a finished study needs none of it
                    from study.cluster import connected
                    from study.tune import run_agenda

                    with LiveView(plan, contents, console) as live:
                        told = (view.tell, _noting(workspace.root), purse.tell)
                        listen = _all(live.tell, *map(_finished, told))
                        run_agenda(
                            agenda,
                            ledger,
                            workspace.root,
                            listen,
                            connection=connection or connected(address, num_cpus),
                            enough=purse.is_empty,
                        )
                for record in _collect(ledger, workspace.root):
                    view.tell(record)
                held = held_by(workspace, spec, contents)
                inputs = held.inputs()
                _write(inputs, workspace, held.session)
                if agenda.done:
                    describe.print_results(inputs, console)
                whole = view.finish(headlines(inputs.effects.to_pylist()), done=agenda.done)
    describe.print_places(workspace, f"{masked(uri)}{'' if whole else ' (incomplete)'}", console)
    if purse.is_empty() and not agenda.done:
        say(console, f"Stopped at its budget: {purse.words}. A higher --max-hours continues; nothing is lost.")
    return agenda.done or purse.is_empty()


def recorded(name: str, override: list[str], storage: Path, from_mlflow: str | None) -> tuple[Recorded, Workspace]:
    """What ``report`` and ``export`` show, and where they write: a preset's or file's results under ``storage``, or a store's.

    In a store ``name`` is a YAML file's path or the study's name there, whose own specification is then taken. Raises
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
    """Write tables, figures and ``report.html`` into the study's folder; its path. Raises ``UserError``."""
    return _write(held.inputs(), workspace, held.session)


def export(
    held: Recorded, workspace: Workspace, names: Sequence[str] = (), formats: Sequence[str] = ()
) -> dict[str, list[Path]]:
    """Write tables into the study's folder. Raises ``UserError``."""
    return build_tables(held.inputs(), workspace.tables, names, formats)


def check(spec: Spec, workspace: Workspace, *, tracking: str | None) -> tuple[list[str], str]:
    """Faults found by an audit, a line each, and what was looked at. Raises ``UserError`` when nothing has been run."""
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
    contents = held.contents
    console.print(f"bringing the view at {masked(uri)} up to {len(contents.replicates)} replicates", highlight=False)
    shown = _shown(make_plan(spec), workspace, held, uri)
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


def _shown(plan: Plan, workspace: Workspace, held: Recorded, uri: str) -> Shown:
    spec, root, contents = plan.spec, workspace.root, held.contents
    if workspace.holder():
        # the driver at work keeps the view itself
        return look(spec, root, contents, uri)
    with workspace.locked():
        effects = headlines(held.inputs().effects.to_pylist())
        return replay(spec, root, contents, uri, effects, done=_agenda(plan, contents, workspace).done)


def _write(inputs: Inputs, workspace: Workspace, session: Mapping[str, Any]) -> Path:
    build_tables(inputs, workspace.tables)
    text = yaml.safe_dump(inputs.spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return build_report(inputs, workspace.root, {**session_tags(session), SPECIFICATION: text})


def _datasets(plan: Plan) -> set[str]:
    return {cell.settings["dataset"] for cell in plan.cells}


def _agenda(
    plan: Plan,
    contents: Contents,
    workspace: Workspace,
    *,
    retry_failed: bool = False,
    execution: Mapping[str, Execution] | None = None,
) -> Agenda:
    """What is left to run; in a sequential study as the looks at what is there say."""

    def go_on(held: Contents, num_blocks: int) -> list[str]:
        course = held_by(workspace, plan.spec, held).inputs().course
        return [name for name, num in course.further.items() if num > num_blocks] if course else []

    looking = go_on if plan.spec.sequential else None
    return Agenda(plan, contents, retry_failed=retry_failed, execution=execution, go_on=looking)


def _warner(console: Console) -> Callable[[str], None]:
    return lambda line: say(console, f"warning: {line}")


def _all(*listeners: Callable[[Record | Progress], None]) -> Callable[[Record | Progress], None]:
    def listen(event: Record | Progress) -> None:
        for tell in listeners:
            tell(event)

    return listen


def _finished(tell: Callable[[Record], None]) -> Callable[[Record | Progress], None]:
    """A listener that hears of records alone."""
    return lambda event: None if isinstance(event, Progress) else tell(event)


def _noting(root: Path) -> Callable[[Record], None]:
    """Notes when the confirm phase began: claims are fixed from then on."""
    began = False

    def note(record: Record) -> None:
        nonlocal began
        if not began and record["kind"] == "replicate" and record["phase"] == "confirm":
            began = True
            note_confirm(root)

    return note

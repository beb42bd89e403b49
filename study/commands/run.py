"""``run``: from a checked specification to results, continuing whatever was begun."""

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from search_spaces import Spec
from study.commands.recorded import agenda_of, held_by
from study.commands.show import write
from study.planning.plan import Plan, make_plan
from study.plugins import plugin_sources
from study.printing import describe
from study.printing.console import open_console, say
from study.printing.live import LiveView
from study.resources.allowance import Allowance, Purse
from study.resources.execution import frozen_execution
from study.resources.gpu import asking
from study.resources.sharing import sharing_gpus
from study.results.files import CHECKPOINTS, STATE
from study.results.ledger import Ledger
from study.results.provenance import note_session
from study.results.registration import note_confirm, register
from study.results.workspace import Workspace
from study.schema import Record
from study.tracking.runs import headlines
from study.tracking.store import masked, tracking_uri
from study.tracking.view import MlflowView
from study.training.loop import Progress
from study.worker.group import discard_outcome, outcomes


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

    ``connection``: to Ray, where it is made already (``study.commands.start``); else one to ``address`` is made
    where it is needed.
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
                agenda = agenda_of(plan, contents, workspace, retry_failed=retry_failed, execution=execution)
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
                    from study.cluster.connection import connected
                    from study.cluster.tune import run_agenda

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
                write(inputs, workspace, held.session)
                if agenda.done:
                    describe.print_results(inputs, console)
                whole = view.finish(headlines(inputs.effects.to_pylist()), done=agenda.done)
    describe.print_places(workspace, f"{masked(uri)}{'' if whole else ' (incomplete)'}", console)
    if purse.is_empty() and not agenda.done:
        say(console, f"Stopped at its budget: {purse.words}. A higher --max-hours continues; nothing is lost.")
    return agenda.done or purse.is_empty()


def _collect(ledger: Ledger, root: Path) -> list[Record]:
    """Take in what workers finished and no driver took: one was killed between a worker's end and its own append, or before
    it removed the hand-over file; or a worker outlived its driver by some seconds. Returns what was new to the ledger."""
    taken: list[Record] = []
    for key, records in outcomes(root):
        taken += [finished for finished in records if ledger.append(finished)]
        discard_outcome(root, key)
    for path in root.glob(f"{CHECKPOINTS}/*/{STATE}"):
        record = ledger.contents.replicates.get(path.parent.name)
        if record is not None and record["state"] != "failed":
            path.unlink(missing_ok=True)
            discard_outcome(root, path.parent.name)
    return taken


def _datasets(plan: Plan) -> set[str]:
    return {cell.settings["dataset"] for cell in plan.cells}


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

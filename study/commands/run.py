"""``run``: from a checked specification to results, continuing whatever was begun."""

import functools
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

from search_spaces import Spec
from study.commands.claimed import check_claims
from study.commands.executors import Connection, Executor, InProcess, OnRay
from study.commands.show import agenda_of, held_by, report
from study.commands.start import Purse, RunOptions
from study.data.files import telling
from study.driver.feed import Feed
from study.planning.plan import make_plan
from study.planning.trying import check_sampler
from study.plugins import plugin_sources
from study.printing import describe, status
from study.printing.console import open_console
from study.printing.live import LiveView
from study.printing.log import RunLog
from study.printing.outcomes import of_plugins
from study.resources.execution import frozen_execution
from study.results.files import CHECKPOINTS, SCRATCH, STATE
from study.results.ledger import Ledger
from study.results.provenance import note_session, noted_facts
from study.results.sessions import note_end, read_sessions
from study.results.workspace import Workspace, note_confirm, register
from study.schema import Record
from study.tracking.store import masked, tracking_uri
from study.tracking.summaries import summarise
from study.training import Progress
from study.worker.group import discard_outcome, outcomes

_DEFAULTS = RunOptions()


def run(
    spec: Spec,
    workspace: Workspace,
    options: RunOptions = _DEFAULTS,
    connection: Connection | None = None,
) -> bool:
    """Run or continue a study, as far as its budget goes; ``False`` when it was interrupted.

    ``connection``: to Ray, where there is one already (``study.commands.start``); else one is made when it is needed.
    Raises ``UserError`` before any training starts.
    """
    console = open_console(quiet=options.quiet)
    log = RunLog(workspace.root, console, quiet=options.quiet, verbose=options.verbose)
    tell = log.tell
    executor: Executor = InProcess() if options.in_process else OnRay(options, connection)
    root = workspace.root
    workspace.check(reading=False)
    spec = workspace.as_begun(spec)
    # a study that is finished needs no data
    known = noted_facts(read_sessions(root))
    with telling(tell):
        plan = make_plan(spec, needs_data=not known, known=known)
    spec = plan.spec  # with the floor of each dataset
    if not workspace.ledger.exists():  # one that has begun is judged as it is
        check_claims(plan)
    uri = tracking_uri(options.tracking, root.parent)
    with workspace.locked(tell) as guard:
        before = workspace.freeze(spec, functools.partial(check_sampler, searches=plan.searches))
        with log.run(), Ledger(workspace.ledger, guard) as ledger:
            contents = ledger.contents
            _collect(ledger, root, tell)
            for left in root.glob(f"{SCRATCH}*"):
                # its driver is dead: this one holds the study's lock
                shutil.rmtree(left, ignore_errors=True)
            plan = plan.continuing(contents)
            register(root, spec, before, contents.num_confirmed)
            for line in describe.start_lines(plan, contents, workspace):
                tell(line)
            with executor.asking(spec, tell) as ask:
                execution = frozen_execution(plan, root, ask, started=bool(contents.replicates))
                agenda = agenda_of(plan, contents, workspace, retry_failed=options.retry_failed, execution=execution)
                if not agenda.done:
                    with telling(tell):
                        note_session(
                            root,
                            {cell.settings["dataset"] for cell in plan.cells},
                            gpus=spec.resources.gpus,
                            price=options.price,
                            plugins=plugin_sources([*plan.code, *filter(None, [spec.space])]),
                            outcomes=of_plugins(spec),
                            accept=options.accept_changes,
                            in_process=options.in_process,
                        )
                    agenda.plan, shared = executor.sharing(plan, root, execution, ask)
                    if shared:
                        tell(shared)
            purse = Purse(options.max_hours, agenda.plan.spec.resources, contents)
            with executor.view(spec, root, contents, uri, log.warn) as view:
                if not agenda.done and not purse.is_empty():
                    with LiveView(plan, contents, console) as live:

                        def listen(event: Record | Progress) -> None:
                            live.tell(event)
                            if isinstance(event, Progress):
                                return
                            log.ended(event)
                            view.tell(event)
                            purse.tell(event)
                            if event["kind"] == "replicate" and event["phase"] == "confirm":
                                note_confirm(root)

                        executor.run(Feed(agenda, ledger, root, listen, enough=purse.is_empty, tell=tell))
                for record in _collect(ledger, root, tell):
                    view.tell(record)
                guard()
                held = held_by(workspace, spec, contents)
                report(held, workspace)
                if agenda.done:
                    note_end(root, contents)
                    describe.print_results(held.inputs, console)
                whole = view.finish(summarise(held.inputs), done=agenda.done)
    describe.print_places(workspace, f"{masked(uri)}{'' if whole else f' ({view.behind})'}", console)
    if agenda.done:
        status.refuse_all_failed(workspace, contents)
        status.print_failures(workspace, contents, console)
    if purse.is_empty() and not agenda.done:
        tell(f"Stopped at its budget: {purse.words}. A higher --max-hours continues; nothing is lost.")
    return agenda.done or purse.is_empty()


def _collect(ledger: Ledger, root: Path, tell: Callable[[str], None] = lambda _: None) -> list[Record]:
    """Take in what workers finished and no driver took; returns what was new to the ledger.

    It is there when a driver was killed between a worker's end and its own append, or before it removed the hand-over
    file, or when a worker outlived its driver by some seconds.
    """
    taken: list[Record] = []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for key, records in outcomes(root):
            taken += [finished for finished in records if ledger.append(finished)]
            discard_outcome(root, key)
    for warning in told:
        tell(f"warning: {warning.message}")
    for path in root.glob(f"{CHECKPOINTS}/*/{STATE}"):
        record = ledger.contents.replicates.get(path.parent.name)
        if record is not None and record["state"] != "failed":
            path.unlink(missing_ok=True)
            discard_outcome(root, path.parent.name)
    return taken

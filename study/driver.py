"""What ``run`` and ``export`` do: hold the lock, open the ledger, run the agenda, write the tables, say what was found."""

from collections.abc import Sequence
from pathlib import Path

from analysis.tables import Inputs, build_tables
from search_spaces import Spec
from study import describe
from study.agenda import Agenda
from study.data import load_dataset
from study.errors import UserError
from study.ledger import Contents, Ledger, read_ledger
from study.live import LiveView
from study.plan import Plan, make_plan
from study.workspace import Workspace


def run(
    spec: Spec,
    workspace: Workspace,
    *,
    address: str | None = None,
    num_cpus: int | None = None,
    retry_failed: bool = False,
) -> bool:
    """Run or continue a study; ``False`` when it was interrupted. Raises ``UserError`` before anything starts."""
    console = describe.open_console()
    plan = make_plan(spec)
    with workspace.locked():
        workspace.freeze(spec)
        with Ledger(workspace.ledger) as ledger:
            contents = ledger.contents
            if contents.num_damaged:
                console.print(f"warning: {contents.num_damaged} damaged ledger lines were left out")
            describe.print_start(plan, contents, workspace, console)
            agenda = Agenda(plan, contents, retry_failed=retry_failed)
            if not agenda.done:
                # ray takes seconds to import, and a finished study needs none of it
                from study.tune import run_agenda

                with LiveView(plan, contents, console) as view:
                    run_agenda(agenda, ledger, workspace.root, view.tell, address=address, num_cpus=num_cpus)
        inputs = _inputs(plan, contents)
        build_tables(inputs, workspace.tables)
        if agenda.done:
            describe.print_results(inputs, workspace, console)
    return agenda.done


def export(
    spec: Spec, workspace: Workspace, names: Sequence[str] = (), formats: Sequence[str] = ()
) -> dict[str, list[Path]]:
    """Write tables from the ledger as it stands. Raises ``UserError`` when nothing has been run."""
    contents = read_ledger(workspace.ledger)
    if not contents.replicates:
        raise UserError(f"{workspace.ledger} holds no results to export; first: fmm-study run {spec.name}")
    return build_tables(_inputs(make_plan(spec), contents), workspace.tables, names, formats)


def _inputs(plan: Plan, contents: Contents) -> Inputs:
    datasets = {cell.settings["dataset"] for cell in plan.cells}
    return Inputs(
        spec=plan.spec,
        contents=contents,
        chance={name: 1 / load_dataset(name).num_classes for name in datasets},
    )

"""Whether a study has ended."""

from study.commands.recorded import as_run
from study.errors import UserError
from study.planning.plan import Plan, load_levels
from study.results.ledger import Contents
from study.results.provenance import is_end, read_sessions
from study.results.workspace import Workspace


def has_ended(plan: Plan, contents: Contents, workspace: Workspace) -> bool:
    """Whether nothing is left to run; ``False`` also where only plug-ins could say so that may not be imported here.

    The run that came to the end has noted it. Where none did, it is worked out, which takes seconds in a sequential study.
    """
    if as_run(plan.spec, workspace) and is_end(read_sessions(workspace.root), contents):
        return True
    # here, because it imports all of analysis
    from study.commands.show import agenda_of

    try:
        if plan.code or plan.spec.space:
            load_levels(plan.spec)
        return agenda_of(plan, contents, workspace).done
    except UserError:
        return False

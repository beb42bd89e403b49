"""Whether a study has ended."""

from study.commands.recorded import as_run
from study.errors import UserError
from study.planning.layout import Plan
from study.results.ledger import Contents
from study.results.sessions import is_end, read_sessions
from study.results.workspace import Workspace


def has_ended(plan: Plan, contents: Contents, workspace: Workspace) -> bool:
    """Whether nothing is left to run; ``False`` also where only plug-ins could say so that may not be imported here.

    The run that came to the end has noted it. Where none did and every planned training is there, or a study may end with
    fewer, it is worked out, which takes seconds.
    """
    if as_run(plan.spec, workspace) and is_end(read_sessions(workspace.root), contents):
        return True
    spec = plan.spec
    if not (spec.joint or spec.sequential or spec.space):
        asked = sum(map(plan.asks_for, contents.replicates.values()))
        if asked < plan.num_trainings:
            return False
    # here, because they import torch and all of analysis
    from study.commands.show import agenda_of
    from study.planning.plan import load_levels

    try:
        if plan.code or spec.space:
            load_levels(spec)
        return agenda_of(plan, contents, workspace).done
    except UserError:
        return False

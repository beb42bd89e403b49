"""The plan of a study that was run, from its folder alone."""

import contextlib

from search_spaces import Spec, SpecError
from study.planning.layout import Plan, lay_out
from study.results.ledger import Contents
from study.results.sessions import read_sessions
from study.results.workspace import Workspace


def recorded_plan(spec: Spec, workspace: Workspace, contents: Contents, *, levels: bool = False) -> Plan:
    """The plan of a study, from its folder alone: what it was run with was checked then.

    What has been changed since is checked, with what the study noted of its data. ``levels``: the plug-ins that it names are
    imported, for who asks what they registered. Raises ``UserError``.
    """
    if as_run(spec, workspace):
        if levels:
            # here and below, because they import torch, which status does without
            from study.planning.plan import load_levels

            load_levels(spec)
        return lay_out(spec).continuing(contents)
    from study.planning.plan import make_plan
    from study.results.provenance import noted_facts

    known = noted_facts(read_sessions(workspace.root))
    return make_plan(spec, needs_data=False, known=known).continuing(contents)


def as_run(spec: Spec, workspace: Workspace) -> bool:
    """Whether ``spec`` is the specification that the study was run with."""
    with contextlib.suppress(SpecError):  # what an older version took
        return workspace.specification() == spec
    return False

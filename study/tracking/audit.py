"""Does the MLflow view hold what the ledger holds: every replicate once, whole, and nothing left running?"""

import json
import math
from collections.abc import Iterator

from search_spaces import Spec
from study.results.ledger import Contents
from study.tracking.packing import unpack
from study.tracking.runs import STUDY_PHASE, Wanted
from study.tracking.store import HeldRun, masked, read_runs

# MLflow keeps what it is given; a value read back through a server has passed through JSON
_RELATIVE = 1e-9


def audit_view(spec: Spec, contents: Contents, uri: str) -> Iterator[str]:
    """Every fault as one line. Reads only. Not while a driver is at work: its view is behind by what it is writing."""
    held = read_runs(uri, spec.name)
    if not held:
        yield f"mlflow: {masked(uri)} holds nothing of {spec.name} (written by: fmm-study ui {spec.name})"
        return
    wanted = Wanted(spec, contents)
    children: dict[str, list[HeldRun]] = {}
    for run in held:
        if "trial_key" in run.tags:
            children.setdefault(run.tags["trial_key"], []).append(run)
        if run.status == "RUNNING":
            yield f"mlflow: run {run.name!r} ({run.run_id}) is left RUNNING"
    parents = [run for run in held if run.tags.get("phase") == STUDY_PHASE]
    if len(parents) != 1:
        yield f"mlflow: {len(parents)} runs stand for the study itself"
    elif json.loads(unpack(parents[0].tags) or b"{}").get("spec") != spec.model_dump(mode="json"):
        yield f"mlflow: the specification there is not this one (written by: fmm-study ui {spec.name})"
    for key in wanted.trial_keys():
        runs = children.pop(key, [])
        if len(runs) != 1:
            yield f"mlflow: {key} has {len(runs)} runs"
        else:
            yield from _differences(wanted, key, runs[0])
    yield from (f"mlflow: {key} is not in the ledger" for key in children)


def _differences(wanted: Wanted, key: str, run: HeldRun) -> Iterator[str]:
    expected = wanted.replicate(key)
    if run.status not in (expected.status, "RUNNING"):
        yield f"mlflow: {key} is {run.status}, in the ledger {expected.status}"
    if missing := sorted(expected.params.keys() - run.params):
        yield f"mlflow: {key} lacks parameter {missing[0]!r}"
    if unpack(run.tags) != wanted.lines(key):
        yield f"mlflow: {key} does not hold the ledger's lines (written by: fmm-study ui {wanted.spec.name})"
    for name, value in expected.latest.items():
        if not math.isclose(run.metrics.get(name, math.nan), value, rel_tol=_RELATIVE):
            yield f"mlflow: {key} {name} is {run.metrics.get(name)}, in the ledger {value}"

"""What a study has found, wherever that is held: in its folder, or in an MLflow store, perhaps on another machine.

Neither needs the images nor the user's own plug-ins: what tables ask of a dataset is its number of classes, which the
study noted when it ran.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.inputs import Inputs
from search_spaces import Spec
from study.data import dataset_facts
from study.errors import UserError, nearest
from study.planning.agenda import Agenda
from study.planning.importance import importances
from study.planning.plan import Plan
from study.results.files import LEDGER, SPECIFICATION
from study.results.ledger import Contents, read_ledger
from study.results.provenance import read_sessions
from study.results.registration import read_registration
from study.results.workspace import Workspace
from study.task import Execution
from study.tracking.reading import read_study
from study.tracking.store import masked, tracking_uri


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A study's specification, records and ``sessions`` (what it was run with); ``where`` it was read, without credentials.

    ``folder`` is the study's own, ``None`` where a store alone was read; ``registration`` is what it claimed beforehand.
    """

    spec: Spec
    contents: Contents
    sessions: list[dict[str, Any]]
    where: str
    registration: Mapping[str, Any] | None = None
    folder: Path | None = None

    @property
    def session(self) -> Mapping[str, Any]:
        """What it was run with last; empty if that is not known."""
        return (self.sessions or [{}])[-1]

    def inputs(self) -> Inputs:
        """What its tables are made from. Raises ``UserError`` for a dataset of which nothing is known."""
        noted = {name: facts for session in self.sessions for name, facts in session.get("datasets", {}).items()}
        chance = {}
        for levels in self.spec.cells():
            name = str(levels.get("dataset", self.spec.fixed.get("dataset")))
            if name not in chance:
                classes = noted[name]["num_classes"] if name in noted else dataset_facts(name).num_classes
                chance[name] = 1 / classes
        return Inputs(
            spec=self.spec,
            contents=self.contents,
            chance=chance,
            folder=self.folder,
            importance_of=importances,
            registration=self.registration,
            price=next((session["price"] for session in reversed(self.sessions) if "price" in session), None),
        )


def in_folder(workspace: Workspace, spec: Spec | None = None) -> Recorded:
    """From a study's folder; ``spec`` instead of the one it was run with. Raises ``UserError`` when nothing has been run."""
    contents = read_ledger(workspace.ledger)
    if not contents.replicates:
        name = workspace.root.name if spec is None else spec.name
        raise UserError(f"{workspace.ledger} holds no results; first: fmm-study run {name}")
    frozen = workspace.root / SPECIFICATION
    if spec is None:
        if not frozen.exists():
            raise UserError(f"{frozen} is missing: the folder does not say what was run")
        spec = Spec.model_validate(json.loads(frozen.read_text()))
    return held_by(workspace, spec, contents)


def held_by(workspace: Workspace, spec: Spec, contents: Contents) -> Recorded:
    """A study's ``contents``, and what its folder notes beside them."""
    root = workspace.root
    return Recorded(
        spec=spec,
        contents=contents,
        sessions=read_sessions(root),
        where=str(root),
        registration=read_registration(root),
        folder=root,
    )


def anywhere(place: str, storage: Path) -> Recorded:
    """From a study's folder, the name of one under ``storage``, or ``URI#NAME`` in an MLflow store. Raises ``UserError``."""
    uri, _, name = place.rpartition("#")
    if "://" in uri:
        return in_store(uri, name)
    for root in (Path(place), storage / place):
        if (root / LEDGER).is_dir():
            return in_folder(Workspace(root))
    known = [path.parent.name for path in storage.glob(f"*/{LEDGER}")]
    hint = nearest(place, known) if known else ""
    raise UserError(
        f"{place!r} is no folder of a study, nor one under {storage}, nor URI#NAME in an MLflow store{hint}"
    )


def in_store(uri: str, name: str, folder: Path | None = None) -> Recorded:
    """From an MLflow store, as ``study.tracking.reading`` does it, with the specification noted there.

    ``folder``: where tables that statistics kept are brought to; ``None`` leaves them there.
    """
    uri = tracking_uri(uri, Path())
    found = read_study(uri, name, folder)
    if not found.contents.replicates:
        raise UserError(f"MLflow at {masked(uri)} holds no finished replicate of {name!r}")
    where = f"{masked(uri)}#{name}"
    if found.num_unwritten:
        where += f" ({found.num_unwritten} being written left out)"
    return Recorded(
        spec=found.spec,
        contents=found.contents,
        sessions=found.sessions,
        where=where,
        registration=found.registration,
        folder=folder,
    )


def agenda_of(
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

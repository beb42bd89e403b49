"""``publish``: a study as a folder for a repository, from which all but its weights can be had again.

The ledger goes into compressed segments. A study that is published again while it runs adds what is new as one more segment,
so a repository's history holds each record once. Left out are weights, images, and what belongs to one machine: its name, and
the folders of paths. Tables, figures and the report are made from the published ledger, once the study has ended: until then
there is no verdict to publish.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from analysis.claims.rejudged import CLAIMS as CLAIMS_TABLE
from analysis.claims.rejudged import EARLIER
from analysis.report.readme import readme
from search_spaces import Spec, SpecError, load_spec, write_yaml
from search_spaces.load import SPECIFICATION as SPECIFICATION_YAML
from study.atomic import checksum_of, read_json, replacing, write_json, write_text
from study.commands.recorded import recorded_plan
from study.commands.show import Recorded, in_folder, report
from study.commands.status import has_ended
from study.errors import UserError
from study.planning.layout import Plan
from study.results.files import (
    CLAIMS,
    EXECUTION,
    FIGURES_FOLDER,
    PROVENANCE,
    REPORT,
    SPECIFICATION,
    TABLES_FOLDER,
    kept_path,
)
from study.results.ledger import Contents, add_compressed, segments, written_records
from study.results.workspace import Workspace
from study.schema import Record

# a table that is larger as CSV is published as Parquet alone
MOST_CSV = 10**6
# what ``report`` makes beside what is published, and what a run that goes on from here leaves
_MADE = ("tables/*.md", "tables/*.tex", "figures/*.png", "figures/*.csv")
_OF_RUNS = ("checkpoints/", "driver.*", "memory.json", ".tune-*")
# the folders of an absolute path, not those of an address
_FOLDERS = re.compile(r"(?<![\w.:/~-])~?/(?:[^\s/'\":;,()]+/)+")
_MACHINE = ("host", "hostname")


def publish(workspace: Workspace, into: Path, origin: str) -> Path:
    """Copy the study in ``workspace`` to its folder under ``into``, or add what is new to it; that folder.

    ``origin``: the file or preset that the specification was read from, kept with its comments where it says what was run.
    Raises ``UserError`` for a study that was not run, and where other results lie in the folder; ``StorageError``.
    """
    held = in_folder(workspace)
    source, target = workspace.root, Workspace(into / held.spec.name)
    if target.root.resolve() == source.resolve():
        raise UserError(f"{source} is where it would be published: give another folder, --into FOLDER")
    target.check(reading=False)
    _copy_ledger(workspace, target)
    for name in (SPECIFICATION, CLAIMS, EXECUTION, PROVENANCE):
        if (found := read_json(source / name, finite=False)) is not None:
            write_json(target.root / name, without_machine(found) if name == PROVENANCE else found, finite=False)
    _copy_tables(held.contents, source, target.root)
    write_text(target.root / SPECIFICATION_YAML, _text(held.spec, target.root / SPECIFICATION_YAML, origin))

    copy = in_folder(target)
    plan = recorded_plan(copy.spec, target, copy.contents)
    ended = has_ended(plan, copy.contents, target)
    for path in map(target.root.joinpath, (FIGURES_FOLDER, REPORT, *([] if ended else [TABLES_FOLDER]))):
        # of an earlier time, or of a study that has since got more blocks
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    large: list[str] = []
    if ended:
        for name in (CLAIMS_TABLE, EARLIER):
            # verdicts by earlier rules are kept
            _copy(workspace.tables / name, target.tables / name)
        large = _report(copy, target)
    left_out = [*_MADE, *large, *_OF_RUNS]
    write_text(target.root / ".gitignore", "".join(f"{name}\n" for name in left_out))
    folder = f"{into.resolve().name}/{target.root.name}"
    done = "" if ended else _progress(plan, copy.contents)
    write_text(target.root / "README.md", readme(copy.inputs, copy.session, folder, done))
    return target.root


def without_machine(value: Any) -> Any:
    """``value`` from JSON without the names of hosts, and with the last part alone of each absolute path in its texts."""
    if isinstance(value, Mapping):
        return {key: without_machine(item) for key, item in value.items() if key not in _MACHINE}
    if isinstance(value, list):
        return [without_machine(item) for item in value]
    return _FOLDERS.sub("", value) if isinstance(value, str) else value


def _copy_ledger(source: Workspace, target: Workspace) -> None:
    """Add the records that ``target`` lacks. Raises ``UserError`` where it holds what ``source`` does not begin with."""
    ours = [_published(record) for record in written_records(segments(source.ledger))]
    there = list(written_records(segments(target.ledger)))
    # as text, in which NaN is equal to itself
    if any(repr(one) != repr(other) for one, other in zip(ours, there, strict=False)) or len(there) > len(ours):
        raise UserError(
            f"{target.root} holds results that {source.root} does not have: remove it, or publish --into another folder"
        )
    if new := ours[len(there) :]:
        add_compressed(target.ledger, new)


def _published(record: Record) -> Record:
    """A record without its host and paths. Nothing that a number comes from is touched."""
    held = cast(dict[str, Any], record)
    texts = {name: without_machine(held[name]) for name in ("reason", "error") if name in held}
    return cast(Record, {name: value for name, value in held.items() if name not in _MACHINE} | texts)


def _copy_tables(contents: Contents, source: Path, target: Path) -> None:
    """Copy the tables that measurements have kept (no images), where they are not there yet."""
    for key, record in contents.measures.items():
        for table in record.get("kept", []):
            ours, theirs = (kept_path(root, record["trial_key"], key, table) for root in (source, target))
            if not (ours.exists() and theirs.exists() and checksum_of(theirs) == checksum_of(ours)):
                _copy(ours, theirs)


def _copy(ours: Path, theirs: Path) -> None:
    """Put a file, if it is there, at ``theirs``, whole."""
    if ours.exists():
        with replacing(theirs) as partial:
            shutil.copyfile(ours, partial)


def _text(spec: Spec, there: Path, origin: str) -> str:
    """The specification as YAML: the text that is ``there``, or of ``origin``, with its comments, where it means ``spec``."""
    for path in (there, Path(origin)):
        try:
            if load_spec(str(path)) == spec:
                return path.read_text()
        except (SpecError, OSError):
            continue
    return write_yaml(spec.model_dump(mode="json", exclude_defaults=True))


def _report(copy: Recorded, target: Workspace) -> list[str]:
    """Make tables, figures and report; the large CSV files, which are removed again as those of ``_MADE`` are."""
    report(copy, target)
    large = [path for path in (target.tables).glob("*.csv") if path.stat().st_size > MOST_CSV]
    for path in [*large, *(path for pattern in _MADE for path in target.root.glob(pattern))]:
        path.unlink()
    return sorted(str(path.relative_to(target.root)) for path in large)


def _progress(plan: Plan, contents: Contents) -> str:
    """How far a study is: ``936 of at most 936 search trials and 120 of at most 312 confirmed replicates``."""
    most = "at most " if plan.spec.sequential or plan.spec.joint or plan.spec.space else ""
    searched = sum(record["phase"] == "search" for record in contents.replicates.values())
    return (
        f"{searched:,} of {most}{plan.num_search:,} search trials and {contents.num_confirmed:,} of "
        f"{most}{plan.num_confirm:,} confirmed replicates"
    )

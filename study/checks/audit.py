"""Does everything agree? The ledger with itself, Optuna, the tables, the checkpoints, the registered claims and MLflow.

Each check yields faults, one line each. What has not been run yet is no fault.
"""

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.trials.records import current_records
from search_spaces import Spec
from search_spaces.registered import digest
from study.atomic import check_archive, read_json
from study.config import TrialConfig
from study.planning import search
from study.planning.layout import Plan
from study.planning.pareto import chosen
from study.results.files import CLAIMS, FINAL, OUTCOME, REPORT, STATE, checkpoint_folder, kept_path
from study.results.kept_tables import read_kept
from study.results.ledger import Contents, decode, is_compressed, lines_of, segments, written_records
from study.results.workspace import Workspace
from study.schema import TRAINED, Registration, ReplicateRecord
from study.tracking.reading import packed_study
from study.tracking.runs import DIGEST, STUDY_PHASE, SUMMARY_PHASE, Wanted, WantedRun, run_key, unpack
from study.tracking.sqlite import local_folder
from study.tracking.store import HeldRun, masked, read_runs

LOOKED_AT = (
    "ledger (checksums, keys, doubles), plan, suggestions (Optuna), measurements, hand-overs, checkpoints and kept tables "
    "(checksums), tables, registered claims (digest)"
)
NOT_LOOKED_AT = "images and the code of plug-ins (each run compares both with those of before)"
# a metric read back through a server has passed through JSON
_RELATIVE = 1e-9


def audit(plan: Plan, contents: Contents, workspace: Workspace) -> Iterator[str]:
    """Every fault found, as one line that names the replicate or file."""
    yield from _lines(workspace)
    yield from _keys(contents)
    yield from _plan(plan, contents)
    yield from _suggestions(plan, contents)
    yield from _measures(plan, contents)
    yield from _folder(plan, contents, workspace)
    yield from _tables(plan, contents, workspace)
    yield from _claims(workspace)


def audit_view(
    spec: Spec, contents: Contents, uri: str, cells: Sequence[WantedRun] = (), study: str = ""
) -> Iterator[str]:
    """Every fault of the MLflow view, as one line. Not for use while a driver is at work: its view is behind.

    ``cells``: the runs that sum up cells, as ``study.tracking.summaries.cell_runs`` makes them. ``study``: what a command line
    takes for it; its name if left out.
    """
    again = f"(written by: fmm-study ui {study or spec.name})"
    held = read_runs(uri, spec.name)
    if not held:
        yield f"mlflow: {masked(uri)} holds nothing of {spec.name} {again}"
        return
    wanted = Wanted(spec, contents)
    children: dict[str, list[HeldRun]] = {}
    summaries: dict[str | None, list[HeldRun]] = {}
    for run in held:
        if "trial_key" in run.tags:
            children.setdefault(run.tags["trial_key"], []).append(run)
        elif run.tags.get("phase") == SUMMARY_PHASE:
            summaries.setdefault(run_key(run.tags), []).append(run)
        if run.status == "RUNNING":
            yield f"mlflow: run {run.name!r} ({run.run_id}) is left RUNNING"
    parents = [run for run in held if run.tags.get("phase") == STUDY_PHASE]
    if len(parents) != 1:
        yield f"mlflow: {len(parents)} runs stand for the study itself"
    else:
        yield from _parent_differences(spec, parents[0], again)
    for key in wanted.trial_keys():
        runs = children.pop(key, [])
        if len(runs) != 1:
            yield f"mlflow: {key} has {len(runs)} runs"
        else:
            yield from _run_differences(wanted, key, runs[0], again)
    yield from (f"mlflow: {key} is not in the ledger" for key in children)
    for cell in cells:
        yield from _summary_differences(cell, summaries.pop(run_key(cell.tags), []), again)
    if cells:
        yield from (f"mlflow: the {key} is not of the ledger" for key in summaries)


def _summary_differences(cell: WantedRun, runs: Sequence[HeldRun], again: str) -> Iterator[str]:
    if len(runs) != 1:
        yield f"mlflow: the summary of {cell.name} has {len(runs)} runs {again}"
    elif runs[0].tags.get(DIGEST) != cell.tags[DIGEST]:
        yield f"mlflow: the summary of {cell.name} is of other results {again}"
    else:
        yield from _value_differences(f"the summary of {cell.name}", cell, runs[0])


def _parent_differences(spec: Spec, run: HeldRun, again: str) -> Iterator[str]:
    try:
        # through the model: a key that is new since then has its default
        if Spec.model_validate(packed_study(run.tags)["spec"]) != spec:
            yield f"mlflow: the specification there is not this one {again}"
    except ValueError as error:
        yield f"mlflow: the run of the study itself {error} {again}"
    if run.files.startswith("file:") and run.status == "FINISHED" and not local_folder(run.files).is_dir():
        yield f"mlflow: the study's files are looked for in {local_folder(run.files)}, which is not there {again}"


def _run_differences(wanted: Wanted, key: str, run: HeldRun, again: str) -> Iterator[str]:
    expected = wanted.replicate(key)
    if run.status not in (expected.status, "RUNNING"):
        yield f"mlflow: {key} is {run.status}, in the ledger {expected.status}"
    if missing := sorted(expected.params.keys() - run.params):
        yield f"mlflow: {key} lacks parameter {missing[0]!r}"
    if unpack(run.tags) != wanted.lines(key):
        yield f"mlflow: {key} does not hold the ledger's lines {again}"
    yield from _value_differences(key, expected, run)


def _value_differences(what: str, expected: WantedRun, run: HeldRun) -> Iterator[str]:
    for name, value in expected.latest.items():
        if not math.isclose(run.metrics.get(name, math.nan), value, rel_tol=_RELATIVE):
            yield f"mlflow: {what} {name} is {run.metrics.get(name)}, in the ledger {value}"


def _lines(workspace: Workspace) -> Iterator[str]:
    """Damaged lines, and keys that were written twice: a failure may be written again, nothing else."""
    written: Counter[str] = Counter()
    for segment in segments(workspace.ledger):
        for number, line in enumerate(lines_of(segment), start=1):
            record = decode(line)
            if record is None:
                yield f"ledger: {segment.name} line {number} is damaged"
            elif record["kind"] == "replicate":
                written[record["trial_key"]] += record["state"] != "failed"
            else:
                written[record["measure_key"]] += not record["error"]
    yield from (f"ledger: {key} is written {count} times" for key, count in written.items() if count > 1)


def _keys(contents: Contents) -> Iterator[str]:
    for key, record in contents.replicates.items():
        if TrialConfig.from_mapping(record["config"]).trial_key != key:
            yield f"ledger: {key}: its settings have another key"
    for measured in contents.measures.values():
        if measured["trial_key"] not in contents.replicates:
            yield f"ledger: {measured['measure_key']}: measured on {measured['trial_key']}, which is not there"


def _plan(plan: Plan, contents: Contents) -> Iterator[str]:
    """Every record stands where the plan puts it, with the seeds of its block."""
    cells = {cell.name: cell for cell in plan.cells}
    for key, record in contents.replicates.items():
        cell = cells.get(record["cell"])
        if cell is None:
            yield f"ledger: {key}: cell {record['cell']!r} is not in the plan"
            continue
        nuisance = {name: record["config"][name] for name in plan.spec.nuisance}
        if record["phase"] == "search":
            planned = plan.search_config(cell, record["block"], nuisance, tuple(record["config"]["stop_curve"]))
        else:
            epochs = record["config"]["epochs"] if record["phase"] == "short" else None
            planned = plan.confirm_config(cell, record["block"], record["replicate"], nuisance, epochs)
            if epochs is not None and epochs not in plan.short_epochs(cell):
                yield f"ledger: {key}: {_where(record)} has {epochs} epochs, which the plan does not ask for"
        if planned.trial_key != key:
            yield f"ledger: {key}: {_where(record)} has other settings than the plan"


def _suggestions(plan: Plan, contents: Contents) -> Iterator[str]:
    """Optuna, asked again with the same history, suggests what was run; the winner is what was confirmed."""
    spec = plan.spec
    searches: dict[tuple[str, int], list[ReplicateRecord]] = {}
    for record in contents.replicates.values():
        if record["phase"] == "search":
            searches.setdefault((plan.search_of(record["cell"]), record["block"]), []).append(record)
    for (name, block), history in searches.items():
        history.sort(key=lambda record: record["number"])
        if [record["number"] for record in history] != list(range(len(history))):
            yield f"search: {name} block {block} has trials {[record['number'] for record in history]}"
            continue
        for number, record in enumerate(history):
            own, cells = plan.spec_of(name), plan.searches.get(name, {name: {}})
            suggested = search.suggest(own, cells, block, history[:number])
            run = record["cell"], {nuisance: record["config"][nuisance] for nuisance in spec.nuisance}
            if suggested != run:
                yield f"search: {_where(record)} ran {run}, Optuna suggests {suggested}"
    for record in current_records(spec, contents):
        history = searches.get((plan.search_of(record["cell"]), record["block"]), [])
        if record["phase"] == "search" or len(history) < spec.budget.search_trials:
            continue
        run = record["cell"], {nuisance: record["config"][nuisance] for nuisance in spec.nuisance}
        if spec.joint:
            front = {trial["cell"]: trial["number"] for trial in chosen(spec, history)}
            if front.get(record["cell"], record["number"]) != record["number"]:
                yield f"search: {_where(record)} was confirmed and is not the block's choice"
        elif (values := search.winner(plan.spec_of(record["cell"]), history)[0]) != run[1]:
            yield f"search: {_where(record)} confirmed {run[1]}, the winner is {values}"


def _measures(plan: Plan, contents: Contents) -> Iterator[str]:
    for record in current_records(plan.spec, contents):
        if record["state"] not in TRAINED:
            continue
        config = TrialConfig.from_mapping(record["config"])
        for name, key in plan.measure_keys(config, record["replicate"], record["phase"]).items():
            if key not in contents.measures:
                yield f"measures: {_where(record)} lacks {name}"


def _folder(plan: Plan, contents: Contents, workspace: Workspace) -> Iterator[str]:
    """Files that a run should have removed, and missing or damaged ones that the study keeps."""
    # no weights are published
    copied = filter(is_compressed, segments(workspace.ledger))
    published = {record["trial_key"] for record in written_records(copied)}
    for key, record in contents.replicates.items():
        folder = checkpoint_folder(workspace.root, key)
        left = {STATE: (folder / STATE).exists(), OUTCOME: _older(folder / OUTCOME, workspace.root / REPORT)}
        if record["state"] != "failed":
            yield from (f"checkpoints: {key}/{name} is left over" for name, there in left.items() if there)
        kept = record["phase"] != "search" and record["state"] in TRAINED
        if kept and key not in published and plan.spec.checkpoints != "none":
            yield from _readable(check_archive, folder / FINAL, f"checkpoints: {key}/{FINAL}", _where(record))
    for key, measured in contents.measures.items():
        for table in measured.get("kept", []):
            path = kept_path(workspace.root, measured["trial_key"], key, table)
            name = f"measurements: {path.relative_to(workspace.root)}"
            read = functools.partial(read_kept, checksum=measured.get("kept_checksums", {}).get(table, ""))
            yield from _readable(read, path, name, measured["statistic"])


def _older(path: Path, report: Path) -> bool:
    """Whether a run, which ends with a report, has ended since: until then a group may be at work or have been killed."""
    return path.exists() and report.exists() and path.stat().st_mtime < report.stat().st_mtime


def _readable(read: Callable[[Path], Any], path: Path, name: str, where: str) -> Iterator[str]:
    try:
        read(path)
    except FileNotFoundError:
        yield f"{name} is missing ({where})"
    except (pa.ArrowException, ValueError, OSError) as error:
        yield f"{name} is damaged ({where}): {error}"


def _tables(plan: Plan, contents: Contents, workspace: Workspace) -> Iterator[str]:
    """Differences of ``trials.parquet`` from the ledger's current replicates: rows, keys, metrics."""
    path = workspace.tables / "trials.parquet"
    if not path.exists():
        return
    try:
        metrics = [name for name in pq.read_schema(path).names if "/" in name]
        rows = {row["trial_key"]: row for row in pq.read_table(path, columns=["trial_key", *metrics]).to_pylist()}
        count = pq.read_metadata(path).num_rows
    except (pa.ArrowException, OSError) as error:
        yield f"tables: trials.parquet cannot be read: {error}"
        return
    if count != len(rows):
        yield f"tables: trials.parquet has {count} rows and {len(rows)} keys"
    current = {record["trial_key"]: record for record in current_records(plan.spec, contents)}
    for key in current.keys() ^ rows.keys():
        yield f"tables: {key} is in {'the ledger' if key in current else 'trials.parquet'} alone (run: fmm-study export)"
    for key in current.keys() & rows.keys():
        for name, value in current[key]["metrics"].items():
            if name in rows[key] and not _same(rows[key][name], value):
                yield f"tables: {key} {name} is {rows[key][name]}, in the ledger {value}"


def _claims(workspace: Workspace) -> Iterator[str]:
    """Registered claims that were edited."""
    held = read_json(workspace.root / CLAIMS, Registration)
    if held is not None and digest(held["registered"]) != held["digest"]:
        yield f"claims: {CLAIMS}: what is registered has another digest than {held['digest']}: it was edited"


def _same(a: Any, b: float) -> bool:
    return isinstance(a, float) and (a == b or (math.isnan(a) and math.isnan(b)))


def _where(record: ReplicateRecord) -> str:
    return f"{record['cell']} block {record['block']} {record['phase']} {record['number']}"

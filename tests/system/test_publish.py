"""A published study: what is copied, what belongs to one machine and is not, and that all commands read what is there."""

import json
import lzma
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import fmm_study
from made_up_worker import Interrupted, Worker

from study.atomic import read_json, write_json
from study.commands.publish import publish, without_machine
from study.errors import UserError
from study.planning.agenda import Agenda
from study.planning.plan import make_plan
from study.results.kept_tables import write_kept
from study.results.ledger import Ledger, encode, read_ledger, segments, written_records
from study.results.provenance import note_session
from study.results.workspace import Workspace, register

CLAIM = {
    "text": "FMMNet beats ResNet",
    "arm": {"merge": "mul"},
    "references": [{"merge": "add"}],
    "outcomes": [{"name": "test/accuracy", "margin": 0.01}],
}
SECRETS = ("/srv/", "secret-host", "/data/mine")


@pytest.fixture
def run(spec_of: Any, record_of: Any, measured_of: Any) -> Any:
    """Runs a study by made-up results, or continues it, as far as ``left`` records."""

    def go(storage: Path, left: int | None = None, **changes: Any) -> Workspace:
        spec = spec_of(**changes)
        workspace, plan = Workspace(storage / spec.name), make_plan(spec)
        workspace.freeze(spec)
        note_session(workspace.root, ["fake"])
        with Ledger(workspace.ledger) as ledger:
            register(workspace.root, spec, None, ledger.contents.num_confirmed)
            agenda = Agenda(plan, ledger.contents)

            def append(record: Any) -> bool:
                reason = 'File "/srv/someone/x.py", line 3' if record.get("state") == "failed" else ""
                told = {"reason": reason, "host": "secret-host"} if record["kind"] == "replicate" else {}
                return ledger.append(record | told)

            worker = Worker(append, record_of, measured_of, left)
            try:
                while group := agenda.next_group():
                    for task in group:
                        worker.run(task)
                    agenda.group_ended(group)
            except Interrupted:
                pass
        return workspace

    return go


@pytest.fixture(autouse=True)
def undrawn() -> Any:
    with mock.patch("analysis.report.page.build_report"):
        yield


def texts(folder: Path) -> dict[str, str]:
    """Every file of a folder as text, ledgers unpacked."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {
        name: (lzma.decompress(data) if name.endswith(".xz") else data).decode(errors="replace")
        for name, data in found.items()
    }


def same(one: Path, two: Path) -> bool:
    """Whether two ledgers hold the same records, but for hosts and paths."""
    held = [without_machine(list(written_records(segments(path)))) for path in (one, two)]
    return json.dumps(held[0]) == json.dumps(held[1])


def test_what_is_published_and_what_is_not(run: Any, tmp_path: Path) -> None:
    workspace = run(tmp_path / "results")
    target = publish(workspace, tmp_path / "published", "small")
    held = texts(target)
    assert {
        "README.md",
        "claims.json",
        "ledger/000001.jsonl.xz",
        "provenance.json",
        "specification.yaml",
    } <= held.keys()
    assert {"study.json", "tables/claims.parquet", "tables/trials.csv", ".gitignore"} <= held.keys()
    assert not [name for name in held if name.endswith((".md", ".tex", ".pt")) and name != "README.md"]
    assert same(workspace.ledger, target / "ledger")
    assert "secret-host" in "".join(texts(workspace.root).values())
    for name, text in held.items():
        assert not any(secret in text for secret in SECRETS), name
        assert "hostname" not in text, name
    # ten lines, of what the study holds
    readme = held["README.md"]
    assert len(readme.splitlines()) == 10 and "2 cells x 2 blocks" in readme
    assert "fmm-study run published/small/specification.yaml" in readme
    assert "on fake (64 images to train and validate on" in readme and "effects alone, no claim" in readme


def test_published_again_while_it_runs_it_grows_by_what_is_new(run: Any, tmp_path: Path) -> None:
    into = tmp_path / "published"
    for left, num in ((3, 1), (4, 2), (0, 2), (None, 3)):
        workspace = run(tmp_path / "results", left, claims={"C4": CLAIM})
        before = {path.name: path.read_bytes() for path in segments(into / "small" / "ledger")}
        target = publish(workspace, into, "small")
        now = {path.name: path.read_bytes() for path in segments(target / "ledger")}
        # a segment is never written again
        assert len(now) == num and before.items() <= now.items()
        assert same(workspace.ledger, target / "ledger")
        ended = left is None
        readme = (target / "README.md").read_text()
        assert (target / "tables").exists() == ended == ("nothing yet" not in readme)
        assert ("C4 undecided (" in readme) == ended and "C4, FMMNet beats ResNet" in readme


def test_a_partial_study_says_how_far_it_is(run: Any, tmp_path: Path) -> None:
    target = publish(run(tmp_path / "results", 5), tmp_path / "published", "small")
    records = read_ledger(target / "ledger").replicates.values()
    searched = sum(record["phase"] == "search" for record in records)
    told = (
        f"nothing yet: {searched} of 12 search trials and {len(records) - searched} of 4 confirmed replicates are done"
    )
    assert len(records) == 5 and told in (target / "README.md").read_text()


def test_a_study_goes_on_from_what_is_published(run: Any, tmp_path: Path) -> None:
    publish(run(tmp_path / "results", 5), tmp_path / "published", "small")
    whole = run(tmp_path / "undisturbed")
    continued = run(tmp_path / "published")
    assert same(whole.ledger, continued.ledger)
    assert [path.name for path in segments(continued.ledger)] == ["000001.jsonl.xz", "000002.jsonl"]


def test_another_study_of_the_name_is_refused(run: Any, tmp_path: Path) -> None:
    publish(run(tmp_path / "results", 4), tmp_path / "published", "small")
    other = run(tmp_path / "others", 4, seed=8)
    with pytest.raises(UserError, match=r"published/small holds results that .*others/small does not have"):
        publish(other, tmp_path / "published", "small")
    shorter = Workspace(tmp_path / "shorter" / "small")
    with Ledger(shorter.ledger) as ledger:
        ledger.append(next(written_records(segments(tmp_path / "results" / "small" / "ledger"))))
    write_json(shorter.root / "study.json", read_json(tmp_path / "results/small/study.json"))
    with pytest.raises(UserError, match="does not have"):
        publish(shorter, tmp_path / "published", "small")
    with pytest.raises(UserError, match=r"is where it would be published: give another folder, --into FOLDER"):
        publish(Workspace(tmp_path / "published" / "small"), tmp_path / "published", "small")


def test_kept_tables_are_copied_and_mended(
    tmp_path: Path, run: Any, record_of: Any, config_of: Any, measured_of: Any
) -> None:
    workspace = run(tmp_path / "results", 3)
    key = next(iter(read_ledger(workspace.ledger).replicates))
    write_kept(workspace.root, key, "m1", {"line": pa.table({"x": [1.0]})})
    with Ledger(workspace.ledger) as ledger:
        ledger.append(measured_of(key, "m1") | {"kept": ["line"], "kept_checksums": {}})
    target = publish(workspace, tmp_path / "published", "small")
    copied = target / "measurements" / key / "m1.line.parquet"
    assert copied.read_bytes() == (workspace.root / "measurements" / key / "m1.line.parquet").read_bytes()
    copied.write_bytes(b"damaged")
    publish(workspace, tmp_path / "published", "small")
    assert copied.read_bytes() != b"damaged"


def test_verdicts_by_earlier_rules_are_kept(run: Any, tmp_path: Path) -> None:
    workspace = run(tmp_path / "results", claims={"C4": CLAIM})
    target = publish(workspace, tmp_path / "published", "small")
    table = pq.read_table(target / "tables/claims.parquet")
    earlier = table.replace_schema_metadata({**table.schema.metadata, b"rules": b"1"})
    workspace.tables.mkdir()
    pq.write_table(earlier, workspace.tables / "claims.parquet")
    for _ in range(2):
        publish(workspace, tmp_path / "published", "small")
        kept = pq.read_schema(target / "tables/claims_earlier.parquet")
        assert (
            kept.metadata[b"rules"] == b"1"
            and pq.read_schema(target / "tables/claims.parquet").metadata[b"rules"] != b"1"
        )


@pytest.mark.parametrize("origin", ["comments that mean the same", "another study's", "a preset"])
def test_the_specification_keeps_its_comments_where_it_says_what_was_run(origin: str, run: Any, tmp_path: Path) -> None:
    workspace = run(tmp_path / "results", 3)
    first = (publish(workspace, tmp_path / "first", "small") / "specification.yaml").read_text()
    mine = tmp_path / "mine.yaml"
    mine.write_text("# why\n" + (first if origin.startswith("comments") else first.replace("blocks: 2", "blocks: 3")))
    target = publish(workspace, tmp_path / "published", "digits" if origin == "a preset" else str(mine))
    text = (target / "specification.yaml").read_text()
    assert text == ("# why\n" + first if origin.startswith("comments") else first)


def test_commands_take_a_studys_folder(run: Any, tmp_path: Path) -> None:
    target = publish(run(tmp_path / "results"), tmp_path / "published", "small")
    before = (target / "tables/trials.parquet").read_bytes()
    status = fmm_study("status", str(target))
    assert status.returncode == 0 and " 0 waiting; not running" in status.stdout
    audit = fmm_study("audit", str(target))
    assert "not weights and not MLflow, which are not published" in audit.stdout and not audit.returncode
    assert fmm_study("report", str(target)).returncode == 0
    assert (target / "tables/trials.parquet").read_bytes() == before
    again = fmm_study("export", str(target), "--table", "trials", "--format", "csv")
    assert again.stdout.strip() == str(target / "tables/trials.csv")
    compared = fmm_study("compare", str(target), str(tmp_path / "results/small"))
    assert (
        "16 replicates are in both by their key" in compared.stdout and "specification is the same" in compared.stdout
    )
    changed = fmm_study("report", str(target), "--set", "alpha=0.1")
    assert changed.returncode == 0
    published = fmm_study("publish", str(tmp_path / "results/small"), "--into", str(tmp_path / "published"))
    assert published.stdout.strip() == str(target)


BAD = {
    "not run": ("{tmp}/results", "{tmp}/results' is a folder; give a preset or a path to a .yaml file"),
    "a folder with a specification": ("{tmp}", "specification.yaml is one"),
    "nothing there": ("publihsed", "unknown preset 'publihsed'"),
    "too long": ("x" * 5000, "unknown preset"),
}


@pytest.mark.parametrize(("name", "told"), BAD.values(), ids=BAD)
def test_a_name_that_is_no_study_is_one_line(name: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "specification.yaml").write_text("name: x\n")
    done = fmm_study("publish", name.format(tmp=tmp_path), "--storage", str(tmp_path / "results"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and told.format(tmp=tmp_path) in done.stderr


PATHS = {
    "dataset fake in /data/mine/sets is not": "dataset fake in sets is not",
    "https://archive.ics.uci.edu/dataset/80": "https://archive.ics.uci.edu/dataset/80",
    'File "/srv/a/b.py", line 3': 'File "b.py", line 3',
    "~/data/x.png cannot be read": "x.png cannot be read",
    "train/loss and 1 / 2 / 3, s/epoch": "train/loss and 1 / 2 / 3, s/epoch",
    "(/a/b/c.pt)": "(c.pt)",
}


@pytest.mark.parametrize(("text", "left"), PATHS.items())
def test_of_a_path_the_last_part_is_left(text: str, left: str) -> None:
    assert without_machine({"host": "h", "hostname": "h", "of": [{"a": text}], "n": 1.5}) == {
        "of": [{"a": left}],
        "n": 1.5,
    }


DAMAGE = {
    "a bit": (lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:], "is damaged"),
    "cut short": (lambda data: data[:-20], "is cut short, or holds over"),
    "no archive": (lambda data: b"text", "is damaged"),
    "a bomb": (lambda data: lzma.compress(bytes(10**6)), "is cut short, or holds over 1000 bytes"),
}


@pytest.mark.parametrize(("harm", "told"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_compressed_segment_is_named(
    harm: Any, told: str, run: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    target = publish(run(tmp_path / "results", 3), tmp_path / "published", "small")
    (path,) = segments(target / "ledger")
    path.write_bytes(harm(path.read_bytes()))
    if "1000" in told:
        monkeypatch.setattr("study.results.ledger._MOST_UNPACKED", 1000)
    done = fmm_study("status", str(target))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and f"{path} {told}" in done.stderr


def test_a_segment_that_is_there_twice_is_named(run: Any, tmp_path: Path) -> None:
    workspace = run(tmp_path / "results", 3)
    target = publish(workspace, tmp_path / "published", "small")
    record = next(written_records(segments(workspace.ledger)))
    (target / "ledger/000001.jsonl").write_bytes(encode(record))
    with pytest.raises(UserError, match=r"holds segment 1 twice, the second time as 000001\.jsonl\.xz"):
        read_ledger(target / "ledger")

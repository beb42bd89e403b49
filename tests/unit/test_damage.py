"""Whatever stands in a study's files, it is read as it was written or refused in one line that names the file."""

import contextlib
import json
import os
import random
import zlib
from pathlib import Path

import pyarrow as pa
import pytest

from study.atomic import FORMAT, checksum_of, read_json, write_json
from study.errors import UserError
from study.resources.execution import frozen_execution
from study.results.files import EXECUTION, MEMORY, checkpoint_folder, kept_path
from study.results.kept_tables import read_kept, write_kept
from study.results.ledger import Ledger, encode, read_ledger
from study.results.sessions import read_sessions
from study.results.workspace import Workspace, read_registration
from study.schema import Attempt, DeviceMemory, ExecutionChoice, Registration, Session
from study.tracking.runs import pack, unpack
from study.worker.attempts import Attempts

READERS = {
    "study.json": lambda root: Workspace(root).specification(),
    "claims.json": read_registration,
    "provenance.json": read_sessions,
    "execution.json": lambda root: read_json(root / EXECUTION, dict[str, ExecutionChoice]),
    "memory.json": lambda root: read_json(root / MEMORY, dict[str, DeviceMemory]),
}
OTHER_SHAPES = {
    "a number": b"1",
    "a text": b'"x"',
    "null": b"null",
    "another object": b'{"a": {"b": 1}}',
    "a list of numbers": b"[1, 2]",
    "deep": b'{"a": ' + b"[" * 100_000,
    "a key twice": b'{"seed": 1, "seed": 2}',
    "a huge whole number": b'{"seed": ' + b"9" * 5000 + b"}",
    "a huge number": b'{"seed": 1e999}',
    "not a number": b'{"seed": NaN}',
    "no UTF-8": b'{"seed": "\xff"}',
    "half a pair": b'{"seed": "\\ud800"}',
    "UTF-16": '{"seed": 1}'.encode("utf-16"),
    "nothing": b"",
}


def refusal(name: str, root: Path) -> str:
    with pytest.raises(ValueError, match=name.replace(".", r"\.")) as caught:
        READERS[name](root)
    assert type(caught.value).__name__ in ("UserError", "SpecError")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500 + len(str(root))
    return str(caught.value)


@pytest.mark.parametrize("what", OTHER_SHAPES)
@pytest.mark.parametrize("name", READERS)
def test_another_shape_is_one_line_that_names_the_file(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / name).write_bytes(OTHER_SHAPES[what])
    refusal(name, tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert "Is a directory" in refusal(name, tmp_path)
    (tmp_path / name).rmdir()
    os.mkfifo(tmp_path / name)
    assert "is no regular file" in refusal(name, tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(name)
    assert "cannot be read: Too many levels" in refusal(name, tmp_path)
    (tmp_path / name).unlink()
    assert not READERS[name](tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_a_newer_versions_file_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(json.dumps({"new": 1, "format": FORMAT + 1, "checksum": "of its own"}))
    assert f"written by a newer version of fmm-study (format {FORMAT + 1}" in refusal(name, tmp_path)


@pytest.mark.parametrize("text", ["{}", "null", "[]", "1"])
def test_an_empty_object_is_not_an_absent_specification(tmp_path: Path, spec_of, text: str) -> None:
    (tmp_path / "study.json").write_text(text)
    # by what runs a study, and by every command that reads one
    for reader in (Workspace(tmp_path).freeze, Workspace(tmp_path).as_begun):
        with pytest.raises(UserError, match=r"study\.json"):
            reader(spec_of())
    assert (tmp_path / "study.json").read_text() == text


def test_a_file_of_an_older_version_is_read(tmp_path: Path, spec_of) -> None:
    (tmp_path / "study.json").write_text(spec_of().model_dump_json())
    assert Workspace(tmp_path).freeze(spec_of(blocks=3)) == spec_of()


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    write_json(tmp_path / "provenance.json", [{"price": 2.5}])
    with pytest.raises(UserError, match=r"provenance\.json: a number to be written there is not finite"):
        write_json(tmp_path / "provenance.json", [{"price": float("inf")}])
    assert read_sessions(tmp_path) == [{"price": 2.5}]
    write_json(tmp_path / "outcome.json", [float("inf")], finite=False)
    assert read_json(tmp_path / "outcome.json", finite=False) == [float("inf")]


VALUES = {
    "study.json": (dict, {"name": "small", "margin": 0.02, "seed": 7}),
    "claims.json": (
        Registration,
        {"digest": "ab", "registered": {"alpha": 0.05}, "since": "2026", "confirm_began": None, "later": []},
    ),
    "provenance.json": (
        list[Session],
        [{"datasets": {"fake": {"num_classes": 10}}, "packages": {"torch": "2.15.0"}, "price": 2.5}],
    ),
    "execution.json": (dict[str, ExecutionChoice], {"d8/add": {"together": 4, "step": {"options": ["fused"]}}}),
    "memory.json": (
        dict[str, DeviceMemory],
        {"H200": {"training": {"d8/add": 1000}, "measuring": {"n": {"bytes": 9, "statistics": []}}}},
    ),
    "attempts.json": (Attempt, {"driver": "a", "begun": 3}),
}


def damaged(data: bytes, generator: random.Random) -> bytes:
    place = generator.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << generator.randrange(8)]) + data[place + 1 :]


@pytest.mark.parametrize("name", VALUES)
def test_no_flipped_bit_of_a_file_becomes_a_value(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, value = VALUES[name]
    path, generator = tmp_path / name, random.Random(1)
    write_json(path, value)
    data = path.read_bytes()
    assert read_json(path, kind, needs_seal=True) == value
    monkeypatch.setattr("study.atomic.read_regular", lambda _: damaged(data, generator))
    for _ in range(1000):
        try:
            assert read_json(path, kind) == value
        except UserError as error:
            assert "\n" not in str(error) and name in str(error)


def test_no_flipped_bit_of_a_note_fails_a_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Attempts("a").begin(tmp_path)
    data, generator = (tmp_path / "attempts.json").read_bytes(), random.Random(2)
    monkeypatch.setattr("study.atomic.read_regular", lambda _: damaged(data, generator))
    for _ in range(1000):
        assert Attempts("a").losses(tmp_path) in (0, 1)


def test_no_flipped_bit_of_a_kept_table_becomes_a_value(tmp_path: Path) -> None:
    """Parquet alone reads other values out of some."""
    table = pa.table({"v": [float(i) for i in range(50)], "w": list(range(50))})
    write_kept(tmp_path, "trial", "measure", {"t": table})
    path, generator, unseen = kept_path(tmp_path, "trial", "measure", "t"), random.Random(3), 0
    data, checksum = path.read_bytes(), checksum_of(path)
    assert read_kept(path, checksum) == table
    for _ in range(100):
        path.write_bytes(damaged(data, generator))
        with pytest.raises(UserError, match=r"measure\.t\.parquet cannot be read \(its checksum is wrong\)"):
            read_kept(path, checksum)
        with contextlib.suppress(UserError):
            unseen += read_kept(path) != table
    assert unseen > 0
    with pytest.raises(UserError, match="its checksum is wrong"):
        read_kept(path, checksum_of(tmp_path / "measurements/trial/measure.t.parquet")[::-1])


def test_no_flipped_bit_of_a_tag_becomes_a_record(config_of, record_of) -> None:
    line = encode(record_of(config_of()))
    tags, generator = pack(line), random.Random(4)
    (name,) = tags
    for _ in range(400):
        changed = damaged(tags[name].encode(), generator).decode("latin-1")
        assert unpack({name: changed}) in (None, line)


STRAY = {
    "notes.txt": "is no part of a ledger",
    "abc.jsonl": "is no part of a ledger",
    "1.jsonl": "is no part of a ledger",
}
STRAY |= {"000001.jsonl~": "is no part of a ledger", "000003.jsonl": "lacks 000002.jsonl", "000000.jsonl": "lacks"}


@pytest.mark.parametrize("name", STRAY)
@pytest.mark.parametrize("reader", [read_ledger, Ledger])
def test_a_stray_name_in_a_ledger_is_told(tmp_path: Path, name: str, reader, config_of, record_of) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.append(record_of(config_of()))
    (tmp_path / ".nfs0001").write_text("what NFS leaves of an open file")
    assert len(read_ledger(tmp_path).replicates) == 1
    (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=STRAY[name]) as caught:
        reader(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_segment_that_is_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder/000001.jsonl").mkdir(parents=True)
    (tmp_path / "fifo").mkdir()
    os.mkfifo(tmp_path / "fifo/000001.jsonl")
    (tmp_path / "file").write_text("")
    for name, told in (("folder", "Is a directory"), ("fifo", "no regular file"), ("file", "Not a directory")):
        with pytest.raises(UserError, match=told):
            read_ledger(tmp_path / name)


def test_a_line_of_another_shape_is_told_with_its_number(tmp_path: Path, config_of, record_of, measured_of) -> None:
    """Its checksum is right, so it is no damage: a newer version wrote it, or somebody by hand."""
    good, measured = record_of(config_of()), measured_of(config_of().trial_key, "m")
    shapes = [
        b"1", b'"x"', b"[]", b"{}", b'{"kind":"epoch"}', json.dumps({**good, "phase": "later"}).encode(),
        json.dumps({**good, "new": 1}).encode(), json.dumps({**good, "metrics": {"a": None}}).encode(),
        json.dumps({**good, "curves": {"a": [1.0, True]}}).encode(), json.dumps({**good, "epochs": 2**70}).encode(),
        json.dumps({**good, "trial_key": "../../x"}).encode(), json.dumps({**measured, "measure_key": "/etc/x"}).encode(),
        json.dumps({**measured, "kept": ["../../../x"]}).encode(),
        json.dumps({**good, "config": {**good["config"], "depth": "8"}}).encode(),
        json.dumps({**good, "config": {**good["config"], "stop_curve": [None]}}).encode(),
        json.dumps({**good, "test_correct": "AAAA", "num_test": 5000}).encode(),
        json.dumps({**good, "test_correct": "!", "num_test": 5}).encode(),
        json.dumps({**good, "test_correct": "", "num_test": -1}).encode(),
    ]  # fmt: skip
    for body in shapes:
        (tmp_path / "000001.jsonl").write_bytes(encode(good) + b"%08x %s\n" % (zlib.crc32(body), body))
        with pytest.raises(UserError, match=r"000001\.jsonl line 2: .*newer version") as caught:
            read_ledger(tmp_path)
        assert "\n" not in str(caught.value)
    deep = b"[" * 100_000
    (tmp_path / "000001.jsonl").write_bytes(encode(good) + b"%08x %s\n" % (zlib.crc32(deep), deep))
    assert read_ledger(tmp_path).num_damaged == 1


@pytest.mark.parametrize("key", ["../../x", "/etc/passwd", "..", "", "a/../../b", "a\0b"])
def test_no_key_leads_out_of_its_folder(tmp_path: Path, key: str) -> None:
    for path in (lambda: checkpoint_folder(tmp_path, key), lambda: kept_path(tmp_path, key, "m", "t")):
        with pytest.raises(UserError, match="is no key of"):
            path()


def test_execution_that_was_changed_does_not_train_otherwise(tmp_path: Path, spec_of) -> None:
    from study.planning.plan import make_plan

    plan = make_plan(spec_of(resources={"fuse": "never"}))
    frozen_execution(plan, tmp_path, None, started=False)
    path = tmp_path / EXECUTION
    path.write_text(path.read_text().replace('"together": 1', '"together": 3', 1))
    with pytest.raises(UserError, match=r"execution\.json is damaged \(its checksum is wrong\)"):
        frozen_execution(plan, tmp_path, None, started=True)

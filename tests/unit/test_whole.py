"""Files are there whole or not at all, on a disk that runs full too, and damage is seen when they are read."""

import errno
import os
import random
import resource
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from study.atomic import read_json, replacing, write_text
from study.errors import StorageError, UserError
from study.results.files import kept_path
from study.results.kept_tables import read_kept, write_kept
from study.results.ledger import Ledger
from study.training import load_checkpoint, save_checkpoint

FLIPS = 300


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """What a full disk is to a file that grows: a part of it is written, then nothing more (EFBIG instead of ENOSPC)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITERS = {
    "text": lambda path: write_text(path, "x" * 10_000),
    "checkpoint": lambda path: save_checkpoint({"w": torch.zeros(5000)}, path),
    "table": lambda path: write_kept(
        path.parents[2], "trial", "measure", {"t": pa.table({"v": torch.rand(5000).numpy()})}
    ),
}


@pytest.mark.parametrize("what", WRITERS)
def test_a_file_that_does_not_fit_leaves_the_old_one_and_no_part(tmp_path, what):
    path = kept_path(tmp_path, "trial", "measure", "t")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"the old one")
    generator = random.Random(1)
    for _ in range(10):
        with no_file_larger_than(generator.randrange(5000)), pytest.raises(StorageError) as caught:
            WRITERS[what](path)
        assert caught.value.errno == errno.EFBIG and "\n" not in str(caught.value)
        assert str(caught.value).startswith(f"{path} cannot be written: File too large; ")
        assert [p.name for p in path.parent.iterdir()] == [path.name] and path.read_bytes() == b"the old one"
    WRITERS[what](path)
    assert path.read_bytes() != b"the old one" and len(list(path.parent.iterdir())) == 1


def test_a_file_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Or a power cut could leave the name on an empty file."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((os.fstat(file).st_size, (tmp_path / "a").exists())))
    write_text(tmp_path / "a", "four")
    assert synced == [(4, False)]


def test_a_fault_of_the_writers_own_is_not_the_disks(tmp_path):
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a") as partial:
        partial.write_text(str(1 / 0))
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_does_not_fit_the_ledger_leaves_no_part_of_it(tmp_path, config_of, record_of):
    records = [record_of(config_of(seed=seed)) for seed in range(22)]
    generator = random.Random(2)
    with Ledger(tmp_path) as ledger:
        ledger.append(records[0])
        (path,) = tmp_path.iterdir()
        for record in records[1:21]:
            held, before = path.read_bytes(), list(ledger.contents.replicates.values())
            with no_file_larger_than(len(held) + generator.randrange(400)), pytest.raises(StorageError, match="jsonl"):
                ledger.append(record)
            assert path.read_bytes() == held and list(ledger.contents.replicates.values()) == before
            assert ledger.append(record)
    with Ledger(tmp_path) as ledger:
        assert list(ledger.contents.replicates.values()) == records[:21] and ledger.contents.num_damaged == 0


def test_a_flipped_bit_is_never_taken_for_weights(tmp_path):
    """torch.load alone gives other weights for most of them."""
    path, generator = tmp_path / "state.pt", random.Random(3)
    state = {"model": {"w": torch.rand(2000)}, "epoch": 3, "curves": {"val/loss": [1.0, 0.5]}}
    save_checkpoint(state, path)
    data, refused, undetected = path.read_bytes(), 0, 0
    for _ in range(FLIPS):
        damaged = bytearray(data)
        damaged[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        try:
            alone = torch.load(path, weights_only=True)
            undetected += not torch.equal(alone["model"]["w"], state["model"]["w"])
        except Exception:  # noqa: BLE001  what it sees by itself
            pass
        held = load_checkpoint(path)
        refused += held is None
        if held is not None:
            assert torch.equal(held["model"]["w"], state["model"]["w"])
            assert (held["epoch"], held["curves"]) == (state["epoch"], state["curves"])
    assert refused >= undetected > FLIPS / 2


@pytest.mark.parametrize("name", ["study.json", "claims.json", "execution.json", "provenance.json"])
@pytest.mark.parametrize("damage", [b"", b'{"name": "sm', b"\xff\xfe"], ids=["empty", "cut short", "no text"])
def test_a_damaged_file_of_a_study_is_named_in_one_line(tmp_path, name, damage):
    (tmp_path / name).write_bytes(damage)
    with pytest.raises(UserError, match=rf"{name} is damaged \(.*\): put it back from a copy") as caught:
        read_json(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_table_is_read_as_it_was_written(tmp_path):
    table = pa.table({"v": [1.0, 2.0]})
    assert write_kept(tmp_path, "trial", "measure", {"t": table}) == ["t"]
    path = kept_path(tmp_path, "trial", "measure", "t")
    assert read_kept(path) == pq.read_table(path) == table
    for data in (b"", path.read_bytes()[:-9], b"PAR1 no table"):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"measure\.t\.parquet cannot be read .*: put it back from a copy"):
            read_kept(path)


def test_what_a_killed_writer_left_goes_and_what_a_live_one_writes_stays(tmp_path):
    path = tmp_path / "file"
    beside = f".{path.name}.{socket.gethostname()}."
    with subprocess.Popen(["sleep", "60"]) as live, subprocess.Popen(["true"]) as dead:
        try:
            dead.wait()
            left = {number: tmp_path / f"{beside}{number}" for number in (live.pid, dead.pid, "unknown")}
            other = tmp_path / f".{path.name}.elsewhere.{dead.pid}"
            for partial in (*left.values(), other):
                partial.write_text("a part")
            write_text(path, "whole")
            assert live.poll() is None
            assert {file.name for file in tmp_path.iterdir()} == {"file", left[live.pid].name, other.name}
        finally:
            live.kill()


def test_a_process_of_another_user_is_alive(tmp_path, monkeypatch):
    def forbidden(pid, number):
        raise PermissionError(pid, number)

    beside = tmp_path / f".file.{socket.gethostname()}.1"
    beside.write_text("a part")
    monkeypatch.setattr(os, "kill", forbidden)
    write_text(tmp_path / "file", "whole")
    assert beside.exists()


def test_two_writers_that_tidy_up_at_once_do_not_mind(tmp_path, monkeypatch):
    beside = tmp_path / f".file.{socket.gethostname()}.of-a-killed-one"
    beside.write_text("a part")

    def quicker(number):
        beside.unlink()
        return False

    monkeypatch.setattr("study.atomic.is_alive", quicker)
    with replacing(tmp_path / "file") as partial:
        partial.write_text("whole")
    assert (tmp_path / "file").read_text() == "whole"

"""The ledger loses nothing that was on disk: torn tails, damaged lines, segments, and what gives way to what."""

import gc
import json
import zlib

import pytest
from book import planted

from study.results import ledger as module
from study.results.ledger import Contents, Ledger, add_compressed, decode, encode, read_ledger, segments


@pytest.fixture(scope="module")
def records(config_of, record_of, measured_of):
    """Six replicates and two measurements."""
    made = [record_of(config_of(seed=seed), loss=seed / 7, number=seed) for seed in range(6)]
    return [*made, *(measured_of(made[seed]["trial_key"], f"m{seed}") for seed in range(2))]


def fill(folder, records):
    with Ledger(folder) as ledger:
        assert all(ledger.append(record) for record in records)


def all_of(contents):
    return [*contents.replicates.values(), *contents.measures.values()]


def held(folder):
    return all_of(read_ledger(folder))


def test_what_is_written_is_read(tmp_path, records):
    fill(tmp_path / "a" / "ledger", records)
    assert held(tmp_path / "a" / "ledger") == records
    assert read_ledger(tmp_path / "a" / "ledger").num_damaged == 0
    with Ledger(tmp_path / "a" / "ledger") as ledger:
        assert all_of(ledger.contents) == records
    assert held(tmp_path / "nothing here") == []


@pytest.mark.parametrize("guard", [None, lambda: None], ids=["alone", "a driver"])
def test_no_driver_appends_to_a_compressed_segment(tmp_path, records, guard):
    add_compressed(tmp_path, records[:3])
    packed = segments(tmp_path)[0].read_bytes()
    with Ledger(tmp_path, guard) as ledger:
        assert all_of(ledger.contents) == records[:3]
        assert not ledger.append(records[0]) and all(ledger.append(record) for record in records[3:])
    assert [path.name for path in segments(tmp_path)] == ["000001.jsonl.xz", "000002.jsonl"]
    assert held(tmp_path) == records and segments(tmp_path)[0].read_bytes() == packed


def test_a_line_is_a_checksum_and_json(records):
    line = encode(records[0])
    checksum, body = line[:8], line[9:-1]
    assert line[8:9] == b" " and line[-1:] == b"\n" and int(checksum, 16) == zlib.crc32(body)
    assert json.loads(body) == records[0] == decode(line[:-1])


@pytest.mark.parametrize("line", [b"", b" ", b"zzzzzzzz {}", b"00000000 {}", b"{}", b"1", b"\xff\xfe \x00"])
def test_a_line_that_is_none_is_damaged(line):
    assert decode(line) is None


def test_a_body_that_is_no_json_is_damaged_even_with_its_checksum():
    assert decode(b"%08x %s" % (zlib.crc32(b"{nope"), b"{nope")) is None


def test_not_a_number_survives(tmp_path, config_of, record_of):
    fill(tmp_path, [record_of(config_of(), curves={"val/loss": [float("nan"), float("inf"), 1e-300]})])
    nan, inf, small = held(tmp_path)[0]["curves"]["val/loss"]
    assert nan != nan and inf == float("inf") and small == 1e-300


def test_a_record_is_on_disk_when_append_returns(tmp_path, records, monkeypatch):
    synced = []
    monkeypatch.setattr(module.os, "fsync", lambda descriptor: synced.append(held(tmp_path)))
    with Ledger(tmp_path) as ledger:
        for count, record in enumerate(records[:3], 1):
            ledger.append(record)
            assert synced[-1] == records[:count]  # flushed before the sync, synced before the return
    assert len(synced) == 3


def test_a_key_is_written_once(tmp_path, records):
    fill(tmp_path, records)
    before = segments(tmp_path)[0].read_bytes()
    for _ in range(2):
        with Ledger(tmp_path) as ledger:
            assert not any(ledger.append(record) for record in records)
            assert not ledger.append(records[0] | {"metrics": {}})  # the first result stands
    assert segments(tmp_path)[0].read_bytes() == before
    assert held(tmp_path) == records


@pytest.mark.parametrize("then", ["completed", "diverged", "failed"])
def test_a_failure_gives_way_to_what_comes_later(tmp_path, config_of, record_of, then):
    failed = record_of(config_of(), state="failed", reason="worker lost")
    later = record_of(config_of(), state=then, reason="again")
    with Ledger(tmp_path) as ledger:
        assert ledger.append(failed) and ledger.append(later)
        assert ledger.append(failed) == (then == "failed")
    assert [record["state"] for record in held(tmp_path)] == [then]


def test_a_measurement_in_error_gives_way_and_one_that_holds_does_not(measured_of):
    contents = Contents()
    assert contents.add(measured_of("t", "m", error="not finite"))
    assert contents.add(measured_of("t", "m")) and not contents.add(measured_of("t", "m", error="not finite"))
    assert contents.measures["m"]["error"] == ""


def test_a_tail_torn_at_any_byte_costs_that_record_alone(tmp_path, records):
    fill(tmp_path / "whole", records)
    data = segments(tmp_path / "whole")[0].read_bytes()
    start = data.rstrip(b"\n").rfind(b"\n") + 1
    assert len(data) - start > 100
    for cut in range(start, len(data)):
        folder = tmp_path / "torn" / str(cut)
        folder.mkdir(parents=True)
        path = folder / "000001.jsonl"
        path.write_bytes(data[:cut])
        with Ledger(folder) as ledger:
            assert all_of(ledger.contents) == records[:-1]
            assert ledger.contents.num_damaged == (cut > start)
            assert path.read_bytes() == data[:start]  # cut on disk, so that nothing is glued to it
            assert ledger.append(records[-1])
        assert path.read_bytes() == data
        path.unlink()


def test_reading_alone_changes_nothing(tmp_path, records):
    fill(tmp_path, records)
    path = segments(tmp_path)[0]
    torn = path.read_bytes()[:-5]
    path.write_bytes(torn)
    contents = read_ledger(tmp_path)  # as `status` does while a driver writes
    assert contents.num_damaged == 1 and path.read_bytes() == torn


def test_a_damaged_line_is_skipped_and_counted(tmp_path, records):
    fill(tmp_path, records)
    path = segments(tmp_path)[0]
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    start = len(lines[0]) + len(lines[1])
    rest = records[:2] + records[3:]
    for offset in range(0, len(lines[2]) - 1):
        at = start + offset
        # another character in its place; a checksum does not mind its letters' case, so digits stand in
        other = b"7" if data[at : at + 1] != b"7" else b"8"
        path.write_bytes(data[:at] + other + data[at + 1 :])
        contents = read_ledger(tmp_path)
        assert [*contents.replicates.values(), *contents.measures.values()] == rest, offset
        assert contents.num_damaged == 1
    with Ledger(tmp_path) as ledger:
        assert ledger.append(records[2]) and path.read_bytes().startswith(lines[0] + lines[1])
    assert sorted(map(str, held(tmp_path))) == sorted(map(str, records))


def test_a_newline_lost_between_two_records_costs_those_two(tmp_path, records):
    fill(tmp_path, records)
    path = segments(tmp_path)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[2][:-1], *lines[3:]]))
    assert held(tmp_path) == records[:2] + records[4:]
    assert read_ledger(tmp_path).num_damaged == 1


def test_segments_roll_over_and_are_read_in_order(tmp_path, records, monkeypatch):
    monkeypatch.setattr(module, "SEGMENT_RECORDS", 3)
    fill(tmp_path, records[:4])
    fill(tmp_path, records[4:5])
    fill(tmp_path, records[5:])  # opened again within a segment
    assert [path.name for path in segments(tmp_path)] == ["000001.jsonl", "000002.jsonl", "000003.jsonl"]
    assert [path.read_bytes().count(b"\n") for path in segments(tmp_path)] == [3, 3, 2]
    assert held(tmp_path) == records
    path = segments(tmp_path)[-1]
    path.write_bytes(path.read_bytes()[:-3])
    with Ledger(tmp_path) as ledger:
        assert all_of(ledger.contents) == records[:-1] and ledger.append(records[-1])
    assert held(tmp_path) == records and len(segments(tmp_path)) == 3


@pytest.mark.parametrize("field", ["replicates", "measures"])
def test_synthetic_records_pass_through_a_real_ledger(tmp_path, field):
    contents = planted().contents
    with Ledger(tmp_path) as ledger:
        for record in [*contents.replicates.values(), *contents.measures.values()]:
            assert ledger.append(record)
    assert getattr(read_ledger(tmp_path), field) == getattr(contents, field)


def test_good_lines_are_parsed_together_and_a_wrong_checksum_is_no_record(records, monkeypatch):
    lines = (
        [encode(record).rstrip() for record in records(3)]
        if callable(records)
        else [encode(r).rstrip() for r in records[:3]]
    )
    expected = [decode(line) for line in lines]
    lines[1] = b"00000000" + lines[1][8:]
    monkeypatch.setattr(module, "decode", None)
    assert module.decode_all(lines) == [expected[0], None, expected[2]]


def test_a_text_with_spaces_is_read(tmp_path, config_of, record_of):
    record = record_of(config_of(seed=1), state="failed") | {"reason": "out of memory at 3 of 4"}
    fill(tmp_path, [record])
    assert held(tmp_path) == [record] and decode(encode(record)[:-1]) == record


def test_a_line_is_these_bytes():
    assert encode({"kind": "replicate", "block": [1, 2.5]}) == b'40f78174 {"kind":"replicate","block":[1,2.5]}\n'


@pytest.mark.parametrize("running", [True, False])
def test_reading_leaves_the_garbage_collector_as_it_was(tmp_path, running):
    before = gc.isenabled()
    try:
        (gc.enable if running else gc.disable)()
        read_ledger(tmp_path)
        assert gc.isenabled() is running
    finally:
        (gc.enable if before else gc.disable)()


def test_equal_texts_of_records_are_one_object(tmp_path, config_of, record_of):
    with Ledger(tmp_path) as ledger:
        for seed in (1, 2):
            ledger.append(record_of(config_of(seed=seed)))
    first, second = read_ledger(tmp_path).replicates.values()
    assert first["cell"] is second["cell"] and first["config"]["dataset"] is second["config"]["dataset"]


def test_every_segment_is_filled(tmp_path, config_of, record_of, monkeypatch):
    monkeypatch.setattr(module, "SEGMENT_RECORDS", 2)
    with Ledger(tmp_path) as ledger:
        for seed in range(5):
            ledger.append(record_of(config_of(seed=seed)))
    assert [path.read_bytes().count(b"\n") for path in segments(tmp_path)] == [2, 2, 1]

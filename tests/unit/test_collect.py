"""What a kill left between a worker and the ledger is taken in, once, and cleared away."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from study.atomic import write_json
from study.commands import run as driver
from study.results.ledger import Ledger
from study.worker.group import outcomes


def hand_over(root: Path, key: str, records: list[Any]) -> Path:
    folder = root / "checkpoints" / key
    write_json(folder / "outcome.json", records)
    return folder


def test_outcomes_are_taken_in_once(tmp_path: Path, config_of, record_of, measured_of) -> None:
    held, new = record_of(config_of(seed=1)), record_of(config_of(seed=2))
    measured = measured_of(held["trial_key"], "m1")
    with Ledger(tmp_path / "ledger") as ledger:
        ledger.append(held)
        # killed after the append; with a measurement that came later; before the append; in mid-write
        hand_over(tmp_path, held["trial_key"], [held, measured])
        kept = hand_over(tmp_path, new["trial_key"], [new])
        (kept / "final.pt").write_bytes(b"weights")
        (kept / "state.pt").write_bytes(b"of a worker that outlived its driver")
        (tmp_path / "checkpoints/begun").mkdir()
        (tmp_path / "checkpoints/begun/state.pt").write_bytes(b"still to be resumed")
        torn = hand_over(tmp_path, "torn", [])
        (torn / "outcome.json").write_text('[{"kind": "repl')
        older = hand_over(tmp_path, "older", [])
        (older / "outcome.json").write_text(json.dumps([record_of(config_of(seed=3))]))
        said: list[str] = []
        driver._collect(ledger, tmp_path, said.append)
        assert (
            len(said) == 2
            and "older/outcome.json is damaged (it has no checksum: an older version wrote it)" in said[0]
        )
        assert "torn/outcome.json" in said[1] and all(line.endswith("is had again") for line in said)
        assert list(ledger.contents.replicates) == [held["trial_key"], new["trial_key"]]
        assert list(ledger.contents.measures) == ["m1"]
        driver._collect(ledger, tmp_path)
    assert list(outcomes(tmp_path)) == []
    left = {path.parent.name: path.name for path in (tmp_path / "checkpoints").glob("*/*")}
    assert left == {new["trial_key"]: "final.pt", "begun": "state.pt"}
    lines = [line for path in (tmp_path / "ledger").glob("*.jsonl") for line in path.read_bytes().splitlines()]
    assert len(lines) == 3


def unlike(record: Any, **changes: Any) -> Any:
    return {**record, **changes}


REFUSED = {
    "another replicate's record": lambda own, other: [other],
    "another replicate's settings": lambda own, other: [unlike(own, config=other["config"])],
    "a key that leads elsewhere": lambda own, other: [unlike(own, trial_key="../../x")],
    "a measurement that leads elsewhere": lambda own, other: [
        own,
        {
            "kind": "measure",
            "trial_key": own["trial_key"],
            "measure_key": "../../x",
            "statistic": "path",
            "estimates": {},
        }
        | {"measure_seconds": 0.0, "error": "", "kept": []},
    ],
    "a text for a number": lambda own, other: [unlike(own, metrics={"test/accuracy": "0.9"})],
    "a key too many": lambda own, other: [unlike(own, weight=1)],
    "no records": lambda own, other: [1, "x", None],
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_hand_over_that_was_not_asked_for_is_not_taken(tmp_path: Path, what: str, config_of, record_of) -> None:
    own, other = record_of(config_of(seed=1)), record_of(config_of(seed=2))
    folder = hand_over(tmp_path, own["trial_key"], REFUSED[what](own, other))
    with pytest.warns(UserWarning, match=rf"{folder.name}/outcome\.json.*is had again") as told:
        assert list(outcomes(tmp_path)) == [(own["trial_key"], [])]
    assert "\n" not in str(told[0].message)


def test_no_flipped_bit_of_a_hand_over_becomes_a_number(
    tmp_path: Path, config_of, record_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every bit of every byte."""
    record = record_of(config_of(), curves={}, metrics={"test/accuracy": 0.9306})
    path = hand_over(tmp_path, record["trial_key"], [record]) / "outcome.json"
    data, refused = path.read_bytes(), 0
    for place in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            monkeypatch.setattr("study.atomic.read_regular", lambda _, read=bytes(damaged): read)
            with warnings.catch_warnings(record=True):
                ((_, records),) = outcomes(tmp_path)
            refused += not records
            assert records in ([], [record])
    # what is let through are blanks between values
    assert refused > 0.8 * 8 * len(data)

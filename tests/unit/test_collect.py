"""What a kill left between a worker and the ledger is taken in, once, and cleared away."""

import json
from pathlib import Path

from study.commands import run as driver
from study.results.ledger import Ledger
from study.worker.group import outcomes


def hand_over(root: Path, key: str, text: str) -> Path:
    folder = root / "checkpoints" / key
    folder.mkdir(parents=True)
    (folder / "outcome.json").write_text(text)
    return folder


def test_outcomes_are_taken_in_once(tmp_path: Path, config_of, record_of, measured_of) -> None:
    held, new = record_of(config_of(seed=1)), record_of(config_of(seed=2))
    measured = measured_of(held["trial_key"], "m1")
    with Ledger(tmp_path / "ledger") as ledger:
        ledger.append(held)
        # killed after the append; with a measurement that came later; before the append; in mid-write
        hand_over(tmp_path, held["trial_key"], json.dumps([held, measured]))
        kept = hand_over(tmp_path, new["trial_key"], json.dumps([new]))
        (kept / "final.pt").write_bytes(b"weights")
        (kept / "state.pt").write_bytes(b"of a worker that outlived its driver")
        (tmp_path / "checkpoints/begun").mkdir()
        (tmp_path / "checkpoints/begun/state.pt").write_bytes(b"still to be resumed")
        hand_over(tmp_path, "torn", '[{"kind": "repl')
        driver._collect(ledger, tmp_path)
        assert list(ledger.contents.replicates) == [held["trial_key"], new["trial_key"]]
        assert list(ledger.contents.measures) == ["m1"]
        driver._collect(ledger, tmp_path)
    assert list(outcomes(tmp_path)) == []
    left = {path.parent.name: path.name for path in (tmp_path / "checkpoints").glob("*/*")}
    assert left == {new["trial_key"]: "final.pt", "begun": "state.pt"}
    lines = [line for path in (tmp_path / "ledger").glob("*.jsonl") for line in path.read_bytes().splitlines()]
    assert len(lines) == 3

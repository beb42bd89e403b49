"""An MLflow store that is damaged, or made to do harm: one line that names it, and no more memory than a study needs."""

import base64
import functools
import json
import tracemalloc
import zlib
from typing import Any

import pytest

from study.errors import UserError
from study.results.ledger import encode
from study.tracking import reading
from study.tracking.reading import read_study
from study.tracking.runs import STUDY_PHASE, pack, packed_size, unpack
from study.tracking.store import HeldRun, tracking_uri

URI = "sqlite:///made/up.db"


def parent_of(study: Any, **changes: Any) -> HeldRun:
    held = {"spec": study.model_dump(mode="json"), "sessions": [], "registration": None} | changes
    return run_of(json.dumps(held).encode(), phase=STUDY_PHASE)


def run_of(data: bytes, **tags: str) -> HeldRun:
    return HeldRun(run_id="r", name="a\nname", status="FINISHED", start=0, tags=tags | pack(data))


def bomb(size: int) -> bytes:
    return b"0" * size


@functools.cache
def packed_bomb() -> dict[str, str]:
    return pack(bomb(80 * 2**20))


def bomb_of(**tags: str) -> HeldRun:
    return HeldRun(run_id="r", name="n", status="FINISHED", start=0, tags=tags | packed_bomb())


def hostile(spec: Any, record: Any, other: Any) -> dict[str, tuple[list[HeldRun], str]]:
    good, key = parent_of(spec), record["trial_key"]
    line = encode(record)
    deep = parent_of(spec)
    deep.tags |= pack(b'{"spec":' + b"[" * 100_000)
    return {
        "no parent": ([run_of(line, trial_key=key)], "does not hold its specification"),
        "two parents": ([good, good], "does not hold its specification"),
        "a number": ([run_of(b"1", phase=STUDY_PHASE)], "expected an object, found 1"),
        "no sessions": ([run_of(b'{"spec": {}}', phase=STUDY_PHASE)], "'registration' is missing"),
        "sessions of another shape": ([parent_of(spec, sessions=[1])], r"sessions\[0\]: expected an object"),
        "facts of another shape": (
            [parent_of(spec, sessions=[{"datasets": {"fake": 3}}])],
            "datasets.fake: expected an",
        ),
        "claims of another shape": ([parent_of(spec, registration={"digest": 1})], "registration: expected"),
        "deep": ([deep], "does not hold its specification"),
        "an empty specification": ([parent_of(spec, spec={})], "name: Field required"),
        "a specification of another shape": ([parent_of(spec, spec={"name": "small", "factors": 1})], r"small: "),
        "another study's specification": ([parent_of(spec.model_copy(update={"name": "other"}))], "is of 'other'"),
        "no lines": (
            [good, HeldRun(run_id="r", name="n", status="FINISHED", start=0, tags={"trial_key": key})],
            "lines",
        ),
        "another replicate's lines": ([good, run_of(encode(other), trial_key=key)], "holds another record"),
        "a record of another shape": (
            [good, run_of(encode({**record, "epochs": "2"}), trial_key=key)],
            "epochs: expected",
        ),
        "a key that leads elsewhere": (
            [good, run_of(encode({**record, "trial_key": "../../x"}), trial_key="../../x")],
            "'../../x' is no key",
        ),
        "a text": ([good, run_of(encode("x"), trial_key=key)], "holds another record: expected one of kind"),  # type: ignore[arg-type]
        "a bomb": ([good, bomb_of(trial_key=key)], "unpack to more than"),
        "a bomb as specification": ([bomb_of(phase=STUDY_PHASE)], "unpack to more than"),
    }


NAMES = [
    "no parent", "two parents", "a number", "no sessions", "sessions of another shape", "facts of another shape",
    "claims of another shape", "deep", "an empty specification", "a specification of another shape",
    "another study's specification", "no lines", "another replicate's lines", "a record of another shape",
    "a key that leads elsewhere", "a text", "a bomb", "a bomb as specification",
]  # fmt: skip


@pytest.mark.parametrize("what", NAMES)
def test_what_is_no_study_is_one_line(
    what: str, spec_of, record_of, config_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = hostile(spec_of(), record_of(config_of(seed=1)), record_of(config_of(seed=2)))
    assert list(cases) == NAMES
    held, told = cases[what]
    monkeypatch.setattr(reading, "read_runs", lambda *_: held)
    with pytest.raises(ValueError, match=told) as caught:
        read_study(URI, "small")
    assert type(caught.value).__name__ in ("UserError", "SpecError") and URI in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_bombs_over_many_runs_are_one_line(spec_of, record_of, config_of, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run unpacks to what one alone may; the study as a whole may not."""
    record = record_of(config_of())
    large = run_of(encode({**record, "reason": "0" * (30 * 2**20)}), trial_key=record["trial_key"])
    assert packed_size(large.tags) < 2**16
    monkeypatch.setattr(reading, "read_runs", lambda *_: [parent_of(spec_of()), *[large] * 40])
    with pytest.raises(UserError, match="unpack to more than"):
        read_study(URI, "small")


def test_no_more_is_unpacked_than_may_be() -> None:
    tags = {"mlflow.fmm_study.000": base64.b64encode(zlib.compress(bomb(40 * 2**20))).decode()}
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="more than 1,048,576 bytes"):
            unpack(tags, 2**20)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
    assert unpack(pack(bomb(2**20)), 2**20) == bomb(2**20)


@pytest.mark.parametrize("uri", ["sqlite:////results?/mlflow.db", "sqlite:///a?b", "sqlite:///a?b=c/mlflow.db"])
def test_an_address_with_a_question_mark_in_its_path_is_told(uri: str, tmp_path) -> None:
    with pytest.raises(UserError, match="write %3F for"):
        tracking_uri(uri, tmp_path)
    assert tracking_uri("sqlite:///a.db?timeout=3", tmp_path)

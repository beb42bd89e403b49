"""Names that writers and readers of results share: states, phases, records, files, table columns, and the check of a value."""

import functools
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import (
    Any,
    Literal,
    NotRequired,
    TypedDict,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from study.errors import nearest

Better = Literal["higher", "lower", "none"]
State = Literal["completed", "collapsed", "diverged", "pruned", "failed"]
Phase = Literal["search", "confirm", "short"]

STATES: tuple[State, ...] = get_args(State)
# trained to the end: such a network is measured, and its loss counts in a search
TRAINED: tuple[State, ...] = ("completed", "collapsed")
SPLITS = ("train", "val", "test")

# Columns that name a replicate, in the order of trials.parquet; nuisance values and measurements follow them.
IDENTITY_COLUMNS = (
    "study", "trial_key", "cell", "phase", "replicate", "number", "seed", "state", "reason",
    "dataset", "network", "depth", "width", "merge", "merge_site", "attention", "attention_form", "search_block",
)  # fmt: skip
COST_COLUMNS = ("epochs", "params", "flops", "train_seconds", "measure_seconds")
# the unit of accuracies and other shares of images
FRACTION = "fraction of images"
# Wall-clock readings: the only columns in which two runs of one spec may differ.
TIMING_COLUMNS = ("train_seconds", "measure_seconds")


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A column that networks are read on: its name, what it means, its unit, and which way is better.

    Of a smoothness statistic lower is better where lower is smoother. A name with ``{layer}`` stands for one quantity a layer.
    ``statistic``: what measures it; empty for what training records.
    """

    name: str
    meaning: str
    unit: str = ""
    better: Better = "none"
    statistic: str = ""

    @property
    def metadata(self) -> dict[str, str]:
        """As ``field_metadata``."""
        return field_metadata(meaning=self.meaning, unit=self.unit, statistic=self.statistic)


def field_metadata(*, meaning: str, unit: str, statistic: str) -> dict[str, str]:
    """The metadata of an Arrow field, of what is told: description, unit and statistic."""
    told = {"description": meaning, "unit": unit, "statistic": statistic}
    return {name: text for name, text in told.items() if text}


class EstimateRecord(TypedDict):
    """A measured value with its standard error, sample count, and whether the estimator converged."""

    value: float
    stderr: float
    num_samples: int
    converged: bool


class TrajectoryPoint(TypedDict):
    """What was measured after ``epoch`` epochs of a training, and how long it took."""

    epoch: int
    estimates: dict[str, EstimateRecord]
    seconds: float


class ReplicateRecord(TypedDict):
    """One finished replicate, as the ledger holds it. Phase ``short``: trained for a share of the epochs.

    ``metrics`` holds ``split/name`` at the final epoch, with suffix ``_best`` at the best validation epoch and
    ``_bn_reestimated`` after batch-norm re-estimation; ``curves`` a list per metric, a value per epoch. ``resumed_from`` is
    the epoch from whose checkpoint a training went on (0: none), ``host`` the machine that ended it; neither changes a
    result. ``trajectory``: measurements in mid-training. ``test_correct``: whether the final network classifies each of the
    ``num_test`` test images correctly, in the split's order, as packed bits (``numpy.packbits``) in base64. ``revisions``: of
    the network's parts, by setting, those above 1; metrics after re-estimation and the trajectory rest on them.
    """

    kind: Literal["replicate"]
    trial_key: str
    cell: str
    phase: Phase
    block: int
    replicate: int
    number: int
    config: dict[str, Any]
    state: State
    reason: str
    boundary: list[str]
    defaulted: bool
    metrics: dict[str, float]
    curves: dict[str, list[float]]
    epochs: int
    params: int
    flops: int
    train_seconds: float
    resumed_from: int
    host: NotRequired[str]
    trajectory: NotRequired[list[TrajectoryPoint]]
    test_correct: NotRequired[str]
    num_test: NotRequired[int]
    revisions: NotRequired[dict[str, int]]


class MeasureRecord(TypedDict):
    """One statistic on one replicate's weights; ``error`` says why there are no estimates. ``kept`` names its tables.

    ``kept_checksums``: CRC-32 of each table's file, as 8 hex digits. ``revisions`` as in ``ReplicateRecord``.
    """

    kind: Literal["measure"]
    trial_key: str
    measure_key: str
    statistic: str
    estimates: dict[str, EstimateRecord]
    measure_seconds: float
    error: str
    kept: NotRequired[list[str]]
    kept_checksums: NotRequired[dict[str, str]]
    revisions: NotRequired[dict[str, int]]


Record = ReplicateRecord | MeasureRecord


class Session(TypedDict, total=False):
    """An entry of ``provenance.json`` (``study.results.provenance``), as far as numbers come from it."""

    datasets: dict[str, dict[str, Any]]
    packages: dict[str, str]
    price: float
    outcomes: dict[str, list[dict[str, str]]]
    ended: dict[str, int]


class StepChoice(TypedDict):
    """The options of a training step that were chosen, and why (``study.resources.execution``)."""

    options: list[str]
    milliseconds: NotRequired[dict[str, float]]
    left_out: NotRequired[dict[str, str]]
    device: NotRequired[str]


class ExecutionChoice(TypedDict):
    """A cell's entry of ``execution.json``."""

    together: int
    milliseconds: NotRequired[dict[str, float]]
    device: NotRequired[str]
    step: NotRequired[StepChoice]


class NetworkMemory(TypedDict):
    """Bytes that measuring a network takes, and the statistics that were measured."""

    bytes: int
    statistics: list[list[Any]]


class DeviceMemory(TypedDict):
    """A device's entry of ``memory.json``: bytes of training by cell, of measuring by network."""

    training: dict[str, int]
    measuring: dict[str, NetworkMemory]


class LaterClaims(TypedDict):
    """Claims that were registered after results were known."""

    digest: str
    since: str
    num_confirmed: int
    changes: list[str]


class Registration(TypedDict):
    """``claims.json``: the claims as they were fixed first, and what came later."""

    digest: str
    registered: dict[str, Any]
    since: str
    confirm_began: str | None
    later: list[LaterClaims]


class Attempt(TypedDict):
    """``attempts.json``: which driver's worker has begun a member, and how often."""

    driver: str
    begun: int


class Holder(TypedDict):
    """``driver.json``: the driver at work."""

    pid: int
    host: str
    since: str


def departure(value: Any, kind: Any) -> str:
    """How ``value``, as JSON gives it, differs from the type ``kind``; empty if it does not. Names the place and both.

    ``kind`` is made of ``Any``, plain types, ``Literal``, ``|``, ``list``, ``dict`` with texts as keys, and ``TypedDict``. A
    ``TypedDict`` without required keys (``total=False``) may hold further ones; in any other an unknown key is a difference.
    A whole number is a good ``float``; whole numbers beyond 64 bits are none.
    """
    return _check_of(kind)(value)


_Check = Callable[[Any], str]
_WORDS: dict[Any, str] = {
    float: "a number",
    int: "a whole number",
    str: "a text",
    bool: "true or false",
    types.NoneType: "null",
}
_WORDS |= {list: "a list", dict: "an object"}


@functools.cache
def _check_of(kind: Any) -> _Check:
    if kind is Any:
        return lambda _: ""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is list:
        return functools.partial(_in_list, _check_of(arguments[0]), arguments[0])
    if origin is dict:
        return functools.partial(_in_dict, _check_of(arguments[1]), arguments[1])
    if is_typeddict(kind):
        checks = {name: _check_of(of) for name, of in get_type_hints(kind).items()}
        return functools.partial(_in_object, checks, kind.__required_keys__)
    if origin is Literal:
        words = " or ".join(map(repr, arguments))
        return lambda value: "" if type(value) is str and value in arguments else _unlike(value, words)
    if origin in (types.UnionType, Union):
        options = [_check_of(option) for option in arguments]
        words = " or ".join(
            _WORDS[get_origin(option) or (dict if is_typeddict(option) else option)] for option in arguments
        )
        return lambda value: "" if any(not check(value) for check in options) else _unlike(value, words)
    return functools.partial(_plain, kind)


def _plain(kind: type, value: Any) -> str:
    fits = type(value) is kind or (kind is float and type(value) is int)
    if fits and type(value) is int:
        fits = -(2**63) <= value < 2**63
    return "" if fits else _unlike(value, _WORDS[kind])


def _in_list(check: _Check, of: Any, value: Any) -> str:
    if type(value) is not list:
        return _unlike(value, "a list")
    if of is float and {*map(type, value)} <= {float}:
        return ""
    found = ((place, check(item)) for place, item in enumerate(value))
    return next((f"[{place}]{told}" for place, told in found if told), "")


def _in_dict(check: _Check, of: Any, value: Any) -> str:
    if type(value) is not dict:
        return _unlike(value, "an object")
    if of is float and {*map(type, value.values())} <= {float}:
        return ""
    found = ((name, check(item)) for name, item in value.items())
    return next((f".{name[:80]}{told}" for name, told in found if told), "")


def _in_object(checks: dict[str, _Check], required: frozenset[str], value: Any) -> str:
    if type(value) is not dict:
        return _unlike(value, "an object")
    if missing := sorted(required - value.keys()):
        return f": {missing[0]!r} is missing"
    for name, item in value.items():
        if name in checks:
            if told := checks[name](item):
                return f".{name}{told}"
        elif required:
            return f": unknown key {name[:80]!r}{nearest(name, checks)}; was it written by a newer version?"
    return ""


def _unlike(value: Any, expected: str) -> str:
    if isinstance(value, (list, dict)):
        found = "a list" if isinstance(value, list) else "an object"
    else:
        found = "null" if value is None else repr(value)[:200]
    return f": expected {expected}, found {found}"

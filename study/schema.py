"""Names that writers and readers of results share: states, phases, ledger records, table columns."""

from typing import Any, Literal, NotRequired, TypedDict, get_args

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
# Wall-clock readings: the only columns in which two runs of one spec may differ.
TIMING_COLUMNS = ("train_seconds", "measure_seconds")


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
    ``num_test`` test images correctly, in the split's order, as packed bits (``numpy.packbits``) in base64.
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


class MeasureRecord(TypedDict):
    """One statistic on one replicate's weights; ``error`` says why there are no estimates. ``kept`` names its tables."""

    kind: Literal["measure"]
    trial_key: str
    measure_key: str
    statistic: str
    estimates: dict[str, EstimateRecord]
    measure_seconds: float
    error: str
    kept: NotRequired[list[str]]


Record = ReplicateRecord | MeasureRecord

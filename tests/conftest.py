"""Small specifications and made-up records that several test modules share. Imports torch where tests run, not before."""

import contextlib
import copy
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from search_spaces import Spec
from study.config import TrialConfig
from study.schema import MeasureRecord, ReplicateRecord

SMALL: dict[str, Any] = {
    "name": "small",
    "seed": 7,
    "factors": {"merge": ["add", "mul"]},
    "fixed": {"dataset": "fake", "depth": 8, "width": 4, "epochs": 2, "batch_size": 16},
    "nuisance": {
        "lr": {"low": 0.01, "high": 1.0, "log": True, "default": 0.1},
        "weight_decay": {"low": 0.0, "high": 0.01, "default": 0.001},
    },
    "blocks": 2,
    "budget": {"search_trials": 3, "startup_trials": 2},
}


ROOT = Path(__file__).parents[1]
TIERS = ("system", "contract", "unit")
LONGEST = (
    "test_storm.py",
    "test_run.py",
    "test_cluster.py",
    "test_kill.py",
    "test_faults_of_a_study.py",
    "test_faults.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest first, dealt out: each worker begins with its share of them, and takes over from the others at its end."""

    def place(item: pytest.Item) -> tuple[int, int]:
        name, tier = item.path.name, item.path.parent.name
        return (
            TIERS.index(tier) if tier in TIERS else len(TIERS),
            LONGEST.index(name) if name in LONGEST else len(LONGEST),
        )

    items.sort(key=place)
    # pytest-xdist cuts the list into as many pieces as there are workers
    num = getattr(config, "workerinput", {}).get("workercount", 1)
    items[:] = [item for first in range(num) for item in items[first::num]]


def _spec(**changes: Any) -> Spec:
    return Spec.model_validate(copy.deepcopy(SMALL) | changes)


def _config(**changes: Any) -> TrialConfig:
    values = {"dataset": "fake", "depth": 8, "width": 4, "seed": 1, "split_seed": 2, "epochs": 2, "batch_size": 16}
    return TrialConfig.from_mapping(values | changes)


def _record(config: TrialConfig, *, state: str = "completed", loss: float = 1.0, **changes: Any) -> ReplicateRecord:
    """A replicate's record as a worker would hand it over: no metrics where the worker failed."""
    survived = state in ("completed", "collapsed")
    values: Any = {
        "kind": "replicate", "trial_key": config.trial_key, "cell": "cell", "phase": "search", "block": 0, "replicate": 0,
        "number": 0, "config": config.as_dict(), "state": state, "reason": "", "boundary": [], "defaulted": False,
        "metrics": {"val/loss": loss} if survived else {},
        "curves": {} if state == "failed" else {"val/loss": [2 * loss, loss] if survived else [2 * loss]},
        "epochs": 2, "params": 1, "flops": 1, "train_seconds": 0.0, "resumed_from": 0,
    }  # fmt: skip
    return values | changes


def _measured(trial_key: str, measure_key: str, *, error: str = "", statistic: str = "path") -> MeasureRecord:
    return {
        "kind": "measure",
        "trial_key": trial_key,
        "measure_key": measure_key,
        "statistic": statistic,
        "estimates": {},
        "measure_seconds": 0.0,
        "error": error,
    }


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests run side by side, each on a core of its own."""
    import torch

    torch.set_num_threads(1)


@contextlib.contextmanager
def _nothing_left() -> Iterator[None]:
    """What the block registers, imports from temporary folders and puts on the search path is forgotten afterwards."""
    from study.config import is_own
    from study.plugins import loading
    from study.registry import FIGURES, NAMED, TABLES, home_of

    registries = (*NAMED, TABLES, FIGURES)
    entries = [dict(registry._entries) for registry in registries]
    path, sought, modules = list(sys.path), dict(loading.sought), set(sys.modules)
    yield
    sys.path[:] = path
    loading.sought.clear()
    loading.sought.update(sought)
    for name in set(sys.modules) - modules:
        file = str(getattr(sys.modules[name], "__file__", None))
        # the checkout, its virtualenv too, may itself be in a temporary folder
        if file.startswith(tempfile.gettempdir()) and not file.startswith((str(ROOT), sys.prefix)):
            del sys.modules[name]
    for registry, before in zip(registries, entries, strict=True):
        # what our own modules register when they are imported stays: they are not imported again
        homes = {entry.name: home_of(entry.build).partition(".")[0] for entry in registry if not is_own(entry.name)}
        registry._entries = {
            name: registry[name] for name, home in homes.items() if home in ("study", "analysis")
        } | before


@pytest.fixture(scope="module", autouse=True)
def nothing_left_by_a_module() -> Iterator[None]:
    """Fixtures of a module leave nothing to the next one."""
    with _nothing_left():
        yield


@pytest.fixture(autouse=True)
def nothing_left_by_a_test() -> Iterator[None]:
    """A test leaves nothing to the next one."""
    with _nothing_left():
        yield


@pytest.fixture(scope="session")
def spec_of() -> Callable[..., Spec]:
    """A small study on made-up images, with changes at its top level."""
    return _spec


@pytest.fixture(scope="session")
def config_of() -> Callable[..., TrialConfig]:
    """A small replicate on made-up images, with changes."""
    return _config


@pytest.fixture(scope="session")
def record_of() -> Callable[..., ReplicateRecord]:
    """The record of a replicate."""
    return _record


@pytest.fixture(scope="session")
def measured_of() -> Callable[..., MeasureRecord]:
    """The record of a measurement."""
    return _measured


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One MLflow store for the studies of all tests that name them apart: making its schema takes seconds."""
    from study.tracking.store import tracking_uri

    return tracking_uri(None, tmp_path_factory.mktemp("results"))

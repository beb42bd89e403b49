"""A study's searches as studies of Optuna's, one a search and block, in a database that Optuna and its dashboard open.

Trials have what the search was told: distributions, values, pruned ones with their curve. So a loss of 1e6 is that of a
training which diverged, and a sampler that goes on from here knows what ours knew. A training that failed is FAIL, without a
value. Beside it stand the curve of the validation loss and, as user attributes, the ledger's own names: keys, seeds, state,
metrics.

Source: https://optuna.readthedocs.io/en/stable/reference/generated/optuna.trial.FrozenTrial.html
"""

import contextlib
import datetime
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from search_spaces import Spec
from study.errors import UserError
from study.planning.layout import Plan
from study.planning.lazily import optuna
from study.planning.search import OBJECTIVE, Cells, as_trials, directions
from study.results.ledger import Contents
from study.schema import ReplicateRecord

_KNOWN = ("trial_key", "state", "cell", "reason", "epochs")


def export_searches(plan: Plan, contents: Contents, uri: str) -> tuple[int, int, int]:
    """Write every search of ``contents`` to the database at ``uri``; how many studies and trials it has now, and new trials.

    Again into the same database, it adds what has come since. Raises ``UserError`` for an address that cannot be used, a
    database of something else, and a study there whose trials are no beginning of the ledger's.
    """
    searches: dict[tuple[str, int], list[ReplicateRecord]] = {}
    for record in contents.replicates.values():
        if record["phase"] == "search":
            searches.setdefault((plan.search_of(record["cell"]), record["block"]), []).append(record)
    num_trials = num_new = 0
    with _as_user_error(), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = _storage(uri)
        for (name, block), history in sorted(searches.items()):
            history.sort(key=lambda record: record["number"])
            spec, cells = plan.spec_of(name), plan.searches.get(name, {name: {}})
            num_trials += len(history)
            num_new += _write(storage, f"{spec.name}/{name}/b{block}", spec, cells, history)
    return len(searches), num_trials, num_new


def _write(storage: Any, name: str, spec: Spec, cells: Cells, history: Sequence[ReplicateRecord]) -> int:
    """Add the trials that the study ``name`` lacks; how many."""
    study = optuna.create_study(storage=storage, study_name=name, directions=directions(spec), load_if_exists=True)
    held = [
        (trial.user_attrs.get("trial_key"), trial.user_attrs.get("state")) for trial in study.get_trials(deepcopy=False)
    ]
    if held != [(record["trial_key"], record["state"]) for record in history[: len(held)]]:
        raise UserError(
            f"study {name!r} there holds other trials than the ledger; name another file, or delete that one"
        )
    if not held:
        study.set_metric_names([objective.name for objective in spec.joint.objectives] if spec.joint else [OBJECTIVE])
    trials = as_trials(spec, cells, history)[len(held) :]
    for trial, record in zip(trials, history[len(held) :], strict=True):
        study.add_trial(_with_records(trial, record))
    return len(trials)


def _with_records(trial: Any, record: ReplicateRecord) -> Any:
    """A trial with what the ledger knows of it beside what the search was told."""
    if record["state"] == "failed":
        trial.state, trial.values = optuna.trial.TrialState.FAIL, None
    curve = record["curves"].get(OBJECTIVE, [])
    trial.intermediate_values = {epoch: loss for epoch, loss in enumerate(curve, 1) if math.isfinite(loss)}
    trial.datetime_start = trial.datetime_complete - datetime.timedelta(seconds=record["train_seconds"])
    known: dict[str, Any] = {key: value for key, value in record.items() if key in _KNOWN}
    known |= {name: record["config"][name] for name in ("seed", "split_seed")}
    known |= {"at boundary": ", ".join(record["boundary"])}
    known |= {name: value for name, value in record["metrics"].items() if math.isfinite(value)}
    trial.user_attrs = {name: value for name, value in known.items() if value != ""}
    return trial


def _storage(uri: str) -> Any:
    """Optuna's storage at ``uri``: a new one, or one that Optuna made before."""
    if "://" not in uri:
        raise UserError("no address of a database, such as sqlite:///FILE")
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    tables = set(sqlalchemy.inspect(engine).get_table_names())
    engine.dispose()
    # MLflow's has a table of versions of the same name, which would be overwritten
    if tables and not {"studies", "trials"} <= tables:
        raise UserError("a database of something else than Optuna")
    return optuna.storages.RDBStorage(uri)


@contextlib.contextmanager
def _as_user_error() -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    # a database driver's, SQLAlchemy's or Optuna's: there is no narrower class
    except Exception as error:
        raise UserError((str(error).splitlines() or [type(error).__name__])[0][:200]) from error

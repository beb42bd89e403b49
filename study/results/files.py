"""The names of a study's files and folders, relative to the study's folder."""

from pathlib import Path, PurePosixPath

from study.errors import UserError

# written by the driver
SPECIFICATION = "study.json"
CLAIMS = "claims.json"
EXECUTION = "execution.json"
MEMORY = "memory.json"
PROVENANCE = "provenance.json"
LEDGER = "ledger"
LOCK = "driver.lock"
HOLDER = "driver.json"
LEASE = "driver.lease"
TABLES_FOLDER = "tables"
FIGURES_FOLDER = "figures"
REPORT = "report.html"
LOG = "run.log"
# begins the name of a folder with Tune's own files, which a driver removes at its end
SCRATCH = ".tune-"
# written by workers, a folder per replicate
CHECKPOINTS = "checkpoints"
MEASUREMENTS = "measurements"
# in a replicate's folder under ``CHECKPOINTS``
ATTEMPTS = "attempts.json"
STATE = "state.pt"
OUTCOME = "outcome.json"
FINAL = "final.pt"
BEST = "best.pt"


def is_inside(name: str) -> bool:
    """Whether a key from a file leads, as a path, to somewhere inside the folder that it is put behind."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def checkpoint_folder(root: Path, trial_key: str) -> Path:
    """Where the replicate ``trial_key`` of the study in ``root`` keeps its weights and hands over its records."""
    return root / CHECKPOINTS / _checked(trial_key)


def kept_path(root: Path, trial_key: str, measure_key: str, table: str) -> Path:
    """Where a table that a measurement keeps lies."""
    return root / MEASUREMENTS / _checked(trial_key) / _checked(f"{measure_key}.{table}.parquet")


def _checked(name: str) -> str:
    """``name``. Raises ``UserError`` for one that leads out of its folder."""
    if not is_inside(name):
        raise UserError(f"{name[:200]!r} is no key of a replicate or measurement")
    return name

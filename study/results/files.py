"""The names of a study's files and folders, relative to the study's folder."""

from pathlib import Path

# written by the driver
SPECIFICATION = "study.json"
CLAIMS = "claims.json"
EXECUTION = "execution.json"
MEMORY = "memory.json"
PROVENANCE = "provenance.json"
LEDGER = "ledger"
LOCK = "driver.lock"
HOLDER = "driver.json"
TABLES_FOLDER = "tables"
FIGURES_FOLDER = "figures"
REPORT = "report.html"
# written by workers, a folder per replicate
CHECKPOINTS = "checkpoints"
MEASUREMENTS = "measurements"
# in a replicate's folder under ``CHECKPOINTS``
ATTEMPTS = "attempts.json"
STATE = "state.pt"
OUTCOME = "outcome.json"
FINAL = "final.pt"
BEST = "best.pt"


def checkpoint_folder(root: Path, trial_key: str) -> Path:
    """Where the replicate ``trial_key`` of the study in ``root`` keeps its weights and hands over its records."""
    return root / CHECKPOINTS / trial_key


def kept_path(root: Path, trial_key: str, measure_key: str, table: str) -> Path:
    """Where a table that a measurement keeps lies."""
    return root / MEASUREMENTS / trial_key / f"{measure_key}.{table}.parquet"

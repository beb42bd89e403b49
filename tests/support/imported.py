"""All that a run imports, for processes whose forks are to be ready at once."""

import mlflow  # noqa: F401
import optuna  # noqa: F401

from study.cli import commands, init, tools  # noqa: F401
from study.cluster import tune  # noqa: F401
from study.commands import run, show  # noqa: F401
from study.driver import here  # noqa: F401
from study.registry import discover

for name in ("analysis.tables", "study.data", "study.models", "study.smoothness"):
    discover(name)

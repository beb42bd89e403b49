"""The house keeps its own rules: what an installation may hold, how long a file is. Style, types and arrows: ``.ci/run``."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("study", "analysis", "search_spaces", "fmm_study")


def test_every_package_is_declared_and_nothing_else() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {
        str(path.parent.relative_to(ROOT)).replace("/", ".") for p in PACKAGES for path in (ROOT / p).rglob("*.py")
    }
    assert set(declared) == there


def test_files_hold_one_idea() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for folder in (*PACKAGES, "tests", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 400
    }
    assert not long


def test_trials_need_only_torch(tmp_path: Path) -> None:
    """``study.worker.group`` runs where ray, optuna, mlflow and pydantic cannot be imported, as on a bare GPU machine."""
    script = f"""
import sys
for name in ("ray", "optuna", "mlflow", "pydantic", "yaml", "scipy", "typer", "rich", "statsmodels"):
    sys.modules[name] = None
from pathlib import Path
from study.config import TrialConfig
from study.config import Task
from study.worker.group import run_group
config = TrialConfig(dataset="fake", depth=8, width=4, seed=1, split_seed=2, epochs=1, batch_size=16)
statistics = {{"input_jacobian": {{"num_samples": 8}}, "path": {{"num_pairs": 4}}, "noise_stability": {{}}}}
task = Task(config=config, cell="c", phase="confirm", block=0, replicate=0, number=0, statistics=statistics)
*_, records = run_group([task], Path({str(tmp_path)!r}))
assert [r["kind"] for r in records] == ["replicate", "measure", "measure", "measure"], records
assert records[0]["state"] in ("completed", "collapsed"), records[0]["reason"]
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_study_in_one_process_needs_no_ray_and_no_mlflow(tmp_path: Path) -> None:
    """Nor Optuna, where it searches nothing. Where they are installed they are not imported."""
    (tmp_path / "one.yaml").write_text(
        "{name: one, factors: {merge: [add]}, fixed: {dataset: fake, depth: 8, width: 2, epochs: 1, batch_size: 16}, "
        "blocks: 1, budget: {search_trials: 0, startup_trials: 0}}"
    )
    script = """
import sys
class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "mlflow", "optuna", "sqlalchemy", "alembic", "psutil", "cloudpickle"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuses())
from analysis.figures import build
build.build_figures = lambda *_, **__: {}
from study.cli import main
sys.argv = ["fmm-study", "run", "one.yaml", "--in-process"]
main()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results/one/report.html").is_file() and not (tmp_path / "results/mlflow.db").exists()


def test_nothing_of_one_machine_is_committed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"files\.python\w+|/(?:root|work)/|/home/[a-z]")
    found = [
        name
        for name in listed.stdout.splitlines()
        if (ROOT / name).suffix not in (".png", ".parquet")
        and (ROOT / name).is_file()
        and pattern.search((ROOT / name).read_text(errors="replace"))
    ]
    assert not found

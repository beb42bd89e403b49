"""Whole small runs on made-up images: what a user is told, what is refused, and where groups are placed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from driving import MADE_UP, finish, log_of, num_records, results, start, write_spec
from serial import run_serially

from search_spaces import load_spec
from study.commands import run as driver
from study.commands import show
from study.errors import UserError
from study.results.ledger import segments
from study.results.workspace import Workspace

# one training: its processes take seconds to start
ONE: dict[str, object] = {
    "factors": "{merge: [add], depth: [8]}", "blocks": 1, "contrasts": "[]",
    "budget": "{search_trials: 0, startup_trials: 0}",
}  # fmt: skip

# a server that does not answer is waited for two minutes at a study's end
SOON = "from study.tracking import view; view.MlflowView.finish.__kwdefaults__.update(timeout=2.0)"


def fake_spec(folder: Path, **changes: object) -> Path:
    return write_spec(folder / "kill.yaml", **({"fixed": MADE_UP, "measure": "{}"} | changes))


def test_a_run_its_continuation_and_what_is_refused(tmp_path: Path) -> None:
    """One study: warned of, finished without a tracking server, extended, its torn ledger mended, a change refused."""
    storage = tmp_path / "results"
    spec = fake_spec(tmp_path)
    told = log_of(storage)
    process = start(spec, storage, "--tracking-uri", "http://127.0.0.1:9", report=True, before=SOON)
    assert process.wait(timeout=300) == 0, told.read_text()
    log = told.read_text()
    assert "warning: no A/A control" in log
    assert "MLflow at http://127.0.0.1:9 cannot be written" in log and "the study goes on" in log
    assert "the MLflow view at http://127.0.0.1:9 is incomplete" in log
    assert "Traceback" not in log
    first = results(storage)
    assert len(first) == 18

    # a torn tail is left out, counted, and run again; more blocks only add
    (segment,) = segments(storage / "kill/ledger")
    segment.write_bytes(segment.read_bytes()[:-20])
    finish(fake_spec(tmp_path, blocks=3), storage, "--in-process")
    assert "warning: 1 damaged ledger lines were left out" in told.read_text()
    extended = results(storage)
    assert len(extended) == 27
    assert [row for row in extended if row["search_block"] < 2] == first

    workspace = Workspace(storage / "kill")
    assert show.check(load_spec(str(fake_spec(tmp_path, blocks=3))), workspace, tracking=None)[0] == []
    changed = load_spec(str(fake_spec(tmp_path, blocks=3, fixed=MADE_UP.replace("epochs: 2", "epochs: 3"))))
    with pytest.raises(UserError, match=r"fixed\.epochs was 2, now 3"):
        driver.run(changed, workspace)
    with pytest.raises(UserError, match="blocks = 3; it can grow, not shrink to 2"):
        driver.run(load_spec(str(fake_spec(tmp_path))), workspace)


def test_a_results_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(UserError, match="results folder"):
        driver.run(load_spec(str(fake_spec(tmp_path))), Workspace(tmp_path / "results" / "kill"))


@pytest.mark.parametrize(
    ("resources", "changes", "expected", "num"),
    [("gpus: 0.5", {}, {"0", "1"}, 18), ("gpus: 2, data_parallel: 2", ONE, {"0,1"}, 1)],
)
def test_groups_are_placed_on_fractions_and_on_whole_gpus(
    resources: str, changes: dict[str, object], expected: set[str], num: int, tmp_path: Path
) -> None:
    """On two logical GPUs: Ray gives each group its share, and CUDA_VISIBLE_DEVICES says which."""
    spec = fake_spec(tmp_path, resources=f"{{cpus: 0.25, {resources}, group: 1}}", **changes)
    script = f"""
import os, ray
from pathlib import Path
os.environ["FMM_STUDY_DEVICE"] = "cpu"
ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
from search_spaces import load_spec
from analysis.report import page
from study.commands import run as driver
from study.cluster import tune
from study.results.workspace import Workspace
root = Path({str(tmp_path)!r})
page.build_report = lambda *_: None
class Noting(tune.Group):
    def step(self):
        (root / f"seen-{{os.getpid()}}").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
        return super().step()
tune.Group = Noting
assert driver.run(load_spec({str(spec)!r}), Workspace(root / "results/kill"))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = {path.read_text() for path in tmp_path.glob("seen-*")}
    assert seen and seen <= expected
    trained = results(tmp_path / "results")
    assert len(trained) == num and {row["state"] for row in trained} <= {"completed", "collapsed", "diverged"}


def test_more_gpus_than_there_are(tmp_path: Path) -> None:
    spec = fake_spec(tmp_path, resources="{cpus: 1, gpus: 16, data_parallel: 16}")
    process = start(spec, tmp_path / "results")
    assert process.wait(timeout=120) == 2
    log = log_of(tmp_path / "results").read_text()
    assert "resources.gpus = 16 but" in log and "Traceback" not in log
    assert json.loads((tmp_path / "results/kill/study.json").read_text())["resources"]["gpus"] == 16


def test_a_cluster_that_grows_from_no_gpu(tmp_path: Path) -> None:
    """A head without a GPU, a study that needs one, and a host that comes once groups wait: refused, or waited for."""
    factors = "{merge: [add, mul], attention: [none], attention_form: [none], depth: [8]}"
    spec = fake_spec(tmp_path, resources="{cpus: 0.5, gpus: 1, group: 2}", factors=factors, blocks=1)
    script = f"""
import os, threading, time
os.environ["FMM_STUDY_DEVICE"] = "cpu"
import ray
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1, "num_gpus": 0}})
ray.init(cluster.address, log_to_driver=False)
from pathlib import Path
from search_spaces import load_spec
from analysis.report import page
from study.commands import run as driver
from study.errors import UserError
from study.results.workspace import Workspace
page.build_report = lambda *_: None
spec, workspace = load_spec({str(spec)!r}), Workspace(Path({str(tmp_path)!r}) / "results/kill")
for slots, said in (("", "resources.gpus = 1 but 0 are there"), ("many", "FMM_STUDY_SLOTS = 'many'")):
    os.environ["FMM_STUDY_SLOTS"] = slots
    try:
        driver.run(spec, workspace)
    except UserError as error:
        assert said in str(error), error
    else:
        raise AssertionError(slots)
os.environ["FMM_STUDY_SLOTS"] = "2"
done = []
running = threading.Thread(target=lambda: done.append(driver.run(spec, workspace)))
running.start()
while not ray.util.placement_group_table():  # what an autoscaler sees: groups that wait for a GPU
    time.sleep(0.2)
cluster.add_node(num_cpus=1, num_gpus=1)
running.join()
assert done == [True]
ray.shutdown()
cluster.shutdown()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(results(tmp_path / "results")) == 6


def test_a_study_stops_at_its_budget_and_a_higher_one_continues(tmp_path: Path) -> None:
    spec = fake_spec(tmp_path, blocks=1, resources="{cpus: 1, group: 1}")
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    # any time at all is too much: the groups that had begun are finished, and no other begins
    assert start(spec, stopped, "--max-money", "1e-9", "--price", "1", report=True).wait(300) == 0
    log = log_of(stopped).read_text()
    assert "Stopped at its budget" in log and "Traceback" not in log
    assert 0 < num_records(stopped) < 9
    assert (
        "Cost" in (stopped / "kill/report.html").read_text()
        and " at 1 a core hour" in (stopped / "kill/report.html").read_text()
    )
    held = num_records(stopped)
    assert start(spec, stopped, "--max-hours", "0", "--in-process").wait(300) == 0
    assert num_records(stopped) == held
    assert start(spec, stopped, "--max-hours", "1", "--in-process").wait(300) == 0
    assert run_serially(spec, whole, report=False)
    assert results(stopped) == results(whole) and len(results(whole)) == 9

"""One driver a study, and what a later run may and may not change."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from search_spaces.registered import digest, registered
from study.atomic import read_json
from study.errors import UserError
from study.results.workspace import Workspace, read_registration, refuse_change, register

HOLD = """
import sys
from pathlib import Path
from study.results.workspace import Workspace
with Workspace(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other_driver(tmp_path):
    """Another process that holds the lock of ``tmp_path/study``."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "study")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()


def test_a_second_driver_is_refused_and_told_who_holds_the_study(tmp_path, other_driver):
    workspace = Workspace(tmp_path / "study")
    with pytest.raises(UserError) as caught, workspace.locked():
        pass
    message = str(caught.value)
    assert f"process {other_driver.pid} on {os.uname().nodename}" in message and "'study'" in message
    assert "\n" not in message
    holder = workspace.holder()
    assert holder["pid"] == other_driver.pid and holder["since"][:2] == "20"
    with Workspace(tmp_path / "another").locked():
        pass


def test_a_killed_driver_holds_nothing(tmp_path, other_driver):
    workspace = Workspace(tmp_path / "study")
    other_driver.send_signal(signal.SIGKILL)
    other_driver.wait()
    assert (tmp_path / "study/driver.json").exists()  # it could not tidy up
    assert workspace.holder() is None
    with workspace.locked():
        assert workspace.holder()["pid"] == os.getpid()
    assert workspace.holder() is None and not (tmp_path / "study/driver.json").exists()


def test_a_driver_that_fails_lets_go(tmp_path):
    workspace = Workspace(tmp_path)
    with pytest.raises(RuntimeError), workspace.locked():
        raise RuntimeError
    with workspace.locked():
        pass


def test_paths():
    workspace = Workspace(Path("results/x"))
    assert (workspace.ledger, workspace.tables) == (Path("results/x/ledger"), Path("results/x/tables"))


@pytest.mark.parametrize("inside", [(), ("deeper",)])
def test_a_folder_that_cannot_be_written_is_told(tmp_path, inside):
    # a file in its place: root, as which tests may run, may write into any folder
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"results folder .*file.*: (File exists|Not a directory)"):
        Workspace((tmp_path / "file").joinpath(*inside)).locked().__enter__()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_told(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(UserError, match=r"results folder .*Permission denied"):
        Workspace(tmp_path / "locked" / "study").locked().__enter__()


def frozen(tmp_path, spec):
    Workspace(tmp_path).freeze(spec)
    return read_json(tmp_path / "study.json")


def test_the_first_run_is_recorded_and_the_same_again_is_allowed(tmp_path, spec_of):
    first = frozen(tmp_path, spec_of())
    assert first == frozen(tmp_path, spec_of()) == json.loads(spec_of().model_dump_json())
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]


MERGES = ["add", "mul"]
ALLOWED = [
    {"blocks": 3},
    {"budget": {"search_trials": 9, "startup_trials": 2}},
    {"factors": {"merge": [*MERGES, "sig_bn"]}},
    {"factors": {"merge": ["mul", "add"]}},
    {"factors": [{"merge": MERGES}, {"merge": ["none"]}]},
    {"measure": {"statistics": {"path": {}}}},
    {"title": "another"},
    {"checkpoints": "none"},
    {"alpha": 0.01},
    {"demonstration": True},
    {"contrasts": [{"arm": {"merge": "mul"}, "reference": {"merge": "add"}}]},
    {"control": {"arm": {"merge": "mul"}, "reference": {"merge": "add"}}},
    {"resources": {"cpus": 2, "gpus": 1}},
]


@pytest.mark.parametrize("changes", ALLOWED, ids=str)
def test_an_extension_is_allowed_and_becomes_the_record(tmp_path, spec_of, changes):
    frozen(tmp_path, spec_of())
    assert frozen(tmp_path, spec_of(**changes)) == json.loads(spec_of(**changes).model_dump_json())


FIXED = {"dataset": "fake", "depth": 8, "width": 4, "epochs": 2, "batch_size": 16}
LR = {"low": 0.01, "high": 1.0, "log": True, "default": 0.1}
DECAY = {"low": 0.0, "high": 0.01, "default": 0.001}
REFUSED = [
    ({"seed": 8}, ["seed was 7, now 8"]),
    ({"name": "other"}, ["name was 'small', now 'other'"]),
    ({"blocks": 1}, ["blocks = 2", "shrink to 1"]),
    ({"budget": {"search_trials": 2, "startup_trials": 2}}, ["budget.search_trials = 3", "shrink to 2"]),
    ({"budget": {"search_trials": 3, "startup_trials": 1}}, ["budget.startup_trials was 2, now 1"]),
    ({"budget": {"search_trials": 3, "startup_trials": 2, "search_epochs": 1}}, ["budget.search_epochs was None, now 1"]),
    ({"fixed": FIXED | {"width": 8}}, ["fixed.width was 4, now 8"]),
    ({"fixed": FIXED | {"momentum": 0.8}}, ["fixed.momentum was None, now 0.8"]),
    ({"fixed": {k: v for k, v in FIXED.items() if k != "epochs"}}, ["fixed.epochs was 2, now None"]),
    ({"nuisance": {"lr": LR | {"high": 2.0}, "weight_decay": DECAY}}, ["nuisance.lr was", "'high': 1.0", "'high': 2.0"]),
    ({"nuisance": {"lr": LR}}, ["nuisance.weight_decay"]),
    ({"sampler": {"name": "random"}}, ["sampler.name was 'tpe', now 'random'"]),
    ({"scheduler": {"name": "median"}}, ["scheduler.name was 'none', now 'median'"]),
    ({"resources": {"group": 4}}, ["resources.group was 1, now 4"]),
    ({"resources": {"gpus": 4, "data_parallel": 4}}, ["resources.data_parallel was 1, now 4"]),
    ({"resources": {"threads": 2}}, ["resources.threads was 1, now 2"]),
    ({"resources": {"step": "auto"}}, ["resources.step was [], now ['auto']"]),
    ({"factors": {"merge": ["add"]}}, ["cell {'merge': 'mul'}"]),
    ({"factors": {"merge": MERGES, "schedule": ["cosine"]}}, ["cell {'merge': 'add'}"]),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "parts"), REFUSED, ids=lambda value: str(value)[:40])
def test_another_study_is_refused_by_key_and_the_record_stays(tmp_path, spec_of, changes, parts):
    first = frozen(tmp_path, spec_of())
    with pytest.raises(UserError) as caught:
        frozen(tmp_path, spec_of(**changes))
    message = str(caught.value)
    assert all(part in message for part in parts) and "\n" not in message, message
    assert read_json(tmp_path / "study.json") == first


def test_a_change_is_refused_wherever_the_specifications_come_from(spec_of):
    before, now = (json.loads(spec_of(seed=seed).model_dump_json()) for seed in (1, 2))
    with pytest.raises(UserError, match=r"^somewhere holds results of another specification: seed was 1, now 2"):
        refuse_change(before, now, where="somewhere")


def test_a_recorded_value_that_cannot_be_used_is_mended_where_no_result_rests_on_it(tmp_path, spec_of):
    """A margin without end was let through once; JSON has it as null."""
    path = tmp_path / "study.json"
    claim = {
        "text": "t",
        "arm": {"merge": "mul"},
        "references": [{"merge": "add"}],
        "outcomes": [{"name": "x", "margin": 1}],
    }
    now = spec_of(claims={"C": claim})
    held = frozen(tmp_path, now)
    for key, changes in {
        "claims": {"claims": {"C": claim | {"outcomes": [{"name": "x", "margin": None, "better": "higher"}]}}},
        "alpha": {"alpha": 1e-300},
        "title": {"title": "x" * 5_000},
        "resources": {"resources": held["resources"] | {"threads": 1_000_000}},
        "sampler": {"sampler": {"name": "tpe", "settings": {"n_ei_candidates": 10**30}}},
    }.items():
        path.write_text(json.dumps(held | changes))
        assert Workspace(tmp_path).freeze(now) == now, key
        assert read_json(path) == held
    path.write_text(json.dumps(held | {"blocks": 10**9}))
    with pytest.raises(UserError, match=r"study.json holds what cannot be used: blocks: Input should be less"):
        Workspace(tmp_path).freeze(now)


def test_a_sampler_that_never_worked_gives_way_and_one_that_works_does_not(tmp_path, spec_of):
    bad, good = (spec_of(sampler={"name": "tpe", "settings": {"gamma": value}}) for value in ("often", None))

    def usable(spec):
        if spec == bad:
            raise UserError("no")

    frozen(tmp_path, bad)
    before = Workspace(tmp_path).freeze(good, usable)
    assert before == good and read_json(tmp_path / "study.json") == json.loads(good.model_dump_json())
    with pytest.raises(UserError, match=r"sampler.settings was \{'gamma': None\}"):
        Workspace(tmp_path).freeze(spec_of(), usable)


def test_the_order_in_which_a_study_began_stays(tmp_path, spec_of):
    begun = spec_of(nuisance={"weight_decay": DECAY, "lr": LR})
    frozen(tmp_path, begun)
    now = Workspace(tmp_path).as_begun(spec_of())
    assert now == spec_of() and list(now.nuisance) == ["weight_decay", "lr"] != list(spec_of().nuisance)
    assert Workspace(tmp_path / "none").as_begun(now) is now
    more = spec_of(nuisance={"lr": LR, "weight_decay": DECAY, "momentum": {"choices": [0.9]}})
    assert Workspace(tmp_path).as_begun(more) == more  # refused later


def test_the_order_of_cells_in_a_joint_search_stays(tmp_path, spec_of):
    goals = [{"name": "val/loss", "direction": "minimize"}, {"name": "flops", "direction": "minimize"}]
    one, other = (
        spec_of(joint={"objectives": goals}, factors=factors)
        for factors in (
            {"merge": MERGES, "augment": ["none", "pad_crop"]},
            {"augment": ["pad_crop", "none"], "merge": MERGES},
        )
    )
    frozen(tmp_path, one)
    assert list(other.cells()) != list(one.cells()) == list(Workspace(tmp_path).as_begun(other).cells())


def test_the_nearest_cell_says_what_was_changed(tmp_path, spec_of):
    factors = {"merge": MERGES, "weight_decay": [0.0, 0.001]}
    lr = {"lr": LR}
    frozen(tmp_path, spec_of(factors=factors, nuisance=lr))
    assert frozen(tmp_path, spec_of(factors=factors | {"weight_decay": [0, 1e-3]}, nuisance=lr))
    with pytest.raises(UserError, match=r"nearest to it: weight_decay was 0.001, now 0.002"):
        frozen(tmp_path, spec_of(factors=factors | {"weight_decay": [0, 0.002]}, nuisance=lr))


def test_a_margin_without_end_that_was_registered_once_is_read(tmp_path, spec_of):
    claim = {
        "text": "t",
        "arm": {"merge": "mul"},
        "references": [{"merge": "add"}],
        "outcomes": [{"name": "x", "margin": 1}],
    }
    spec = spec_of(claims={"C": claim})
    held = registered(spec)
    held["claims"]["C"]["outcomes"][0]["margin"] = float("inf")
    old = {"digest": digest(held), "registered": held, "since": "", "confirm_began": None, "later": []}
    (tmp_path / "claims.json").write_text(json.dumps(old))
    register(tmp_path, spec, spec, num_confirmed=3)
    (later,) = read_registration(tmp_path)["later"]
    assert later["changes"] == ["C: margin was inf, now 1.0 (x)"]

"""``fmm-study init``: what it writes runs as it is, names what it was asked for, and takes the place of nothing."""

import re
from unittest import mock

import pyarrow.parquet as pq
import pytest
from command_line import fmm_study

import study.plugins  # noqa: F401  registers our own levels first
from search_spaces import load_spec
from study.commands.init import KINDS

SMALL = ("blocks=1", "budget.search_trials=0", "budget.startup_trials=0", "fixed.epochs=1")
CELLS = {
    "network": {"digits/small/variant=plain", "digits/small/variant=plain_alias", "digits/small/variant=gated"},
    "merge": {"digits/d8/add", "digits/d8/add_alias", "digits/d8/mine"},
    "attention": {
        "digits/d8/add", "digits/d8/add_alias", *(f"digits/d8/add/mine.{form}" for form in ("mul", "add", "static")),
    },
    "recipe": {
        "digits/d8/add/optimizer=sgd", "digits/d8/add/optimizer=adamw", "digits/d8/add_alias/optimizer=sgd",
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_writes_runs_as_it_is(kind, folder, monkeypatch):
    done = fmm_study("init", "mine", "--kind", kind)
    assert done.returncode == 0, done.stderr
    module = f"mine{KINDS[kind]}"
    files = {"mine.yaml", f"{module}.py"} if KINDS[kind] else {"mine.yaml"}
    assert {path.name for path in folder.iterdir()} == files
    # what it says to type is what is needed
    for name, value in re.findall(r"export (\w+)=(\w+)", done.stdout):
        monkeypatch.setenv(name, value)
    spec = load_spec("mine.yaml")
    assert spec.name == "mine" and spec.control and spec.claims and spec.blocks >= 8 and "NAME" not in str(spec)
    changes = [part for change in SMALL for part in ("--set", change)]
    with mock.patch("analysis.report.page.build_report"):
        done = fmm_study("run", "mine.yaml", "--in-process", *changes)
    assert done.returncode == 0, done.stderr
    rows = pq.read_table("results/mine/tables/trials.parquet").to_pylist()
    # one epoch is too few for some
    faults = [row["reason"] for row in rows if row["state"] != "collapsed" and row["reason"]]
    assert {row["cell"] for row in rows} == CELLS[kind] and not faults


def test_what_is_there_is_left_alone(folder):
    (folder / "mine_nets.py").write_text("mine = 1\n")
    done = fmm_study("init", "mine")
    assert done.returncode == 2 and "mine_nets.py is there already" in done.stderr
    assert (folder / "mine_nets.py").read_text() == "mine = 1\n" and not (folder / "mine.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a-b",), "NAME = 'a-b': expected a letter"), (("class",), "NAME = 'class'"), (("../up",), "NAME = '../up'"),
        (("mine", "--kind", "nets"), "--kind 'nets': expected one of network, merge, attention, recipe"),
        (("se", "--kind", "attention"), "there is attention 'se' already"),
    ],
)  # fmt: skip
def test_a_name_or_kind_that_will_not_do_is_one_line(arguments, said, folder):
    done = fmm_study("init", *arguments)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(folder.iterdir())

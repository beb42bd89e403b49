"""Plug-ins: the code of ``docs/plugins.md`` is run as it stands there; faults are one line; the contract can be failed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from study.config import TrialConfig
from study.errors import UserError
from study.plugins import (
    check_attention,
    check_merge,
    installed,
    load_plugins,
    plugin_sources,
    refuse_foreign,
    site_folders,
)
from study.registry import ATTENTIONS, MERGES
from study.results.provenance import note_session
from study.results.sessions import accepted_changes, read_sessions

PAGE = Path(__file__).parents[2] / "docs/plugins.md"

STUDY = """
import json, sys
from pathlib import Path
from search_spaces import load_spec
from study.planning.agenda import Agenda
from study.results.ledger import Contents
from study.planning.plan import make_plan
from study.worker.group import run_group
import test_my_levels
plan = make_plan(load_spec("mine.yaml"))
agenda, contents = Agenda(plan, Contents()), None
contents = agenda.contents
while (group := agenda.next_group()) is not None:
    for event in run_group(group, Path("results")):
        for record in event if isinstance(event, list) else []:
            contents.add(record)
    agenda.group_ended(group)
test_my_levels.test_levels_keep_the_contract()
records = list(contents.replicates.values())
print(json.dumps({
    "cells": [cell.name for cell in plan.cells],
    "states": [(r["cell"], r["phase"], r["state"], r["reason"]) for r in records],
    "warmed": [(r["cell"], r["config"]["lr"], r["config"]["warmup_epochs"]) for r in records],
    "confidence": [m["estimates"]["confidence"]["value"] for m in contents.measures.values()],
}))
"""


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


def written(folder):
    """The page's files: blocks of one name one after another."""
    for code in blocks("python"):
        name = re.match(r"# (\w+\.py)\n", code).group(1)
        with (folder / name).open("a") as file:
            file.write(code)
    for spec in blocks("yaml"):
        (folder / f"{re.match('name: (.*)', spec).group(1)}.yaml").write_text(spec)


def test_the_pages_study_runs_with_the_pages_levels(tmp_path):
    import json

    written(tmp_path)
    env = os.environ | {"FMM_STUDY_PLUGINS": "my_levels,my_space"}
    command = [sys.executable, "-c", STUDY]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["cells"] == ["stripes/d8/add", "stripes/d8/geometric", "stripes/d8/add/peak.mul"]
    assert len(told["states"]) == 3 * 2 * 3
    assert all(reason.startswith("validation") == (state == "collapsed") for *_, state, reason in told["states"])
    assert {state for _, _, state, _ in told["states"]} <= {"completed", "collapsed"}
    for cell, lr, warmup in told["warmed"]:
        assert (warmup > 0) == (lr > 0.05 and "geometric" in cell)
    assert len(told["confidence"]) == 6 and all(0.5 <= value <= 1 for value in told["confidence"])


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module that can be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


REGISTER = "from study.registry import MERGES\nMERGES.register({name!r}, formula='', source='')(object)\n"


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("absent_one", None, ["no module 'absent_one'", "absent_one.py"]),
        ("raising_one", "x = 1\n1 / 0\n", ["'raising_one'", "ZeroDivisionError", "raising_one.py line 2"]),
        ("needing_one", "import nowhere_at_all\n", ["'needing_one'", "nowhere_at_all"]),
        ("twice_one", REGISTER.format(name="add"), ["'twice_one'", "merge 'add' is registered twice"]),
        ("broken_one", "def f(:\n", ["'broken_one'", "SyntaxError"]),
    ],
)
def test_a_module_that_cannot_be_loaded_is_one_line(module, name, text, parts):
    if text is not None:
        module(name, text)
    with pytest.raises(UserError) as caught:
        load_plugins([name])
    assert all(part in str(caught.value) for part in parts) and "\n" not in str(caught.value), str(caught.value)


def test_a_study_folder_is_looked_in_last_and_a_module_is_loaded_once(tmp_path):
    (tmp_path / "counted_one.py").write_text(
        "import builtins\nbuiltins.counted = getattr(builtins, 'counted', 0) + 1\n"
    )
    (tmp_path / "json.py").write_text("1 / 0\n")
    for _ in range(2):
        load_plugins(["counted_one", "json"], str(tmp_path))
    import builtins

    assert builtins.counted == 1 and sys.path[-1] == str(tmp_path)
    del builtins.counted


def test_an_installed_distribution_is_found_by_its_entry_point(module, tmp_path, monkeypatch):
    module("entered_one", "loaded = True\n")
    info = tmp_path / "entered-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: entered\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[fmm_study.plugins]\nmine = entered_one\n")
    monkeypatch.setattr("study.plugins.loading.site_folders", lambda: [str(tmp_path)])
    load_plugins()
    assert sys.modules["entered_one"].loaded
    source = plugin_sources([])["entered_one"]
    assert (source["distribution"], source["version"]) == ("entered", "1.2") and len(source["digest"]) == 16
    (tmp_path / "entered_one.py").write_text("loaded = False\n")
    assert plugin_sources([])["entered_one"]["digest"] != source["digest"]


BESIDE = {
    "beside_one.py": "import json\nfrom deep_one import ops\nimport beside_two\n",
    "beside_two.py": "x = 2\n",
    "deep_one/__init__.py": "",
    "deep_one/ops.py": "from . import more\nfrom .rest import y\n",
    "deep_one/more.py": "def later():\n    import never_loaded_one\n",
    "deep_one/rest.py": "y = 1\n",
    "deep_one/unused.py": "",
    "never_loaded_one.py": "",
}


def test_what_a_module_imports_from_beside_it_is_part_of_its_code(module, tmp_path):
    (tmp_path / "deep_one").mkdir()
    for path, text in BESIDE.items():
        (tmp_path / path).write_text(text)
    module("beside_one", BESIDE["beside_one.py"])
    load_plugins(["beside_one"])
    held = plugin_sources(["beside_one"])["beside_one"]
    beside = ["beside_two", "deep_one", "deep_one.more", "deep_one.ops", "deep_one.rest"]
    assert [key for key in held if key != "digest"] == [f"imports {name}" for name in beside]
    (tmp_path / "study").mkdir()
    note_session(tmp_path / "study", [], plugins={"beside_one": held})
    (tmp_path / "deep_one/rest.py").write_text("y = 2\n")
    now = plugin_sources(["beside_one"])
    told = (
        r"module beside_one \(registers nothing\) is not what .* run with: imports deep_one.rest was [0-9a-f]{16}, is"
    )
    with pytest.raises(UserError, match=told):
        note_session(tmp_path / "study", [], plugins=now)
    note_session(tmp_path / "study", [], plugins=now, accept=True)
    assert "imports deep_one.rest was" in accepted_changes(read_sessions(tmp_path / "study"))[0]
    # of a module in a package, so is the package
    of_package = [key for key in plugin_sources(["deep_one.ops"])["deep_one.ops"] if key != "digest"]
    assert of_package == [f"imports {name}" for name in ("deep_one", "deep_one.more", "deep_one.rest")]


def test_what_calls_itself_a_distribution_in_another_folder_is_not_installed(module, tmp_path, monkeypatch):
    """In the folder that a command is run in, or that PYTHONPATH names: it is on the search path, and was never agreed to."""
    name = module("uninvited_one", "1 / 0\n")
    info = tmp_path / "uninvited-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: uninvited\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[fmm_study.plugins]\nmine = {name}\n")
    assert str(tmp_path) in sys.path
    monkeypatch.chdir(tmp_path)
    load_plugins()
    assert name not in installed() and name not in plugin_sources([]) and name not in sys.modules
    with pytest.raises(UserError, match="would run the code of uninvited_one"):
        refuse_foreign([name])


def test_an_editable_installation_is_installed(tmp_path, monkeypatch):
    """By a line of a ``.pth`` file in a site folder, absolute or relative; lines that run code are not paths."""
    monkeypatch.setattr("site.getsitepackages", lambda: [str(tmp_path)])
    (tmp_path / "a.pth").write_text("# a comment\nimport nothing_at_all\n/somewhere/else\nbeside\n")
    assert {str(tmp_path), "/somewhere/else", str(tmp_path / "beside")} < set(site_folders())
    assert not [folder for folder in site_folders() if "nothing" in folder or "comment" in folder]


def test_a_space_alone_is_found_in_the_folder_of_the_command(tmp_path, monkeypatch, spec_of):
    from study.planning.plan import make_plan

    monkeypatch.chdir(tmp_path)
    (tmp_path / "spaced_one.py").write_text("def narrow(trial, cell):\n    return {}\n")
    with pytest.raises(UserError, match="would run the code of spaced_one"):
        make_plan(spec_of(space="spaced_one:narrow"))
    monkeypatch.setenv("FMM_STUDY_PLUGINS", "spaced_one")
    make_plan(spec_of(space="spaced_one:narrow"))


def test_plugins_rename_no_trial(spec_of, monkeypatch):
    from study.planning.plan import make_plan

    monkeypatch.setenv("FMM_STUDY_PLUGINS", "study.plugins")

    plain, named = (make_plan(spec_of(plugins=plugins)) for plugins in ([], ["study.plugins"]))
    keys = [plan.confirm_config(plan.cells[0], 0, 0, {"lr": 0.1}).trial_key for plan in (plain, named)]
    assert keys[0] == keys[1] and "plugins" not in TrialConfig.__dataclass_fields__


@pytest.mark.parametrize("name", ["add", "mul_bn", "star", "noise_gate", "tanh_gate_shuffled", "concat"])
def test_our_own_operators_pass(name):
    check_merge(name)


@pytest.mark.parametrize("name", ["se", "cbam", "simam"])
def test_our_own_gates_pass(name):
    assert name in ATTENTIONS
    check_attention(name)


class Odd(nn.Module):
    """A module with one fault."""

    def __init__(self, fault):
        super().__init__()
        self.fault = fault
        if fault == "seed":
            self.w = nn.Parameter(torch.rand(3))
        if fault == "count":
            self.w = nn.Parameter(torch.ones(3))

    def forward(self, x, f):
        if self.fault == "shape":
            return x[:, :1]
        if self.fault == "finite":
            return x / 0
        if self.fault == "gradient":
            return (x - x).abs().sqrt() + f
        return x + torch.rand(()) if self.fault == "random" else x + f


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("shape", "gives shape"), ("finite", "not finite"), ("gradient", "gradient that is not finite"),
        ("random", "global random state"), ("seed", "equal seeds"), ("count", "is not its 3 parameters"),
    ],
)  # fmt: skip
def test_each_fault_is_found(fault, said):
    MERGES.register("odd", formula="", source="", extra_params="0")(lambda channels: Odd(fault))
    with pytest.raises(UserError, match=said):
        check_merge("odd")


def test_levels_of_a_plugin_are_listed(module):
    from study.printing.levels import levels

    module("listed_one", REGISTER.format(name="listed_merge"))
    assert "listed_merge" in [row["name"] for row in levels("merge", ["listed_one"])]


def test_the_pages_network_is_planned_as_the_page_says(tmp_path, monkeypatch):
    from search_spaces import load_spec
    from study.planning.plan import make_plan

    written(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FMM_STUDY_PLUGINS", "my_nets")
    cells = [cell.name for cell in make_plan(load_spec("mine_nets.yaml"), needs_data=False).cells]
    variants = ("plain", "plain_alias", "gated")
    assert set(cells) == {f"digits/small/kernel={k}/variant={v}" for k in (3, 5) for v in variants}

"""A study in a folder that is full of modules: none of them is imported but the plug-in that its user has agreed to."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
from driving import FAKE, UNDRAWN, write_spec

# what driver, workers, Ray and their libraries import; and what Python itself does as it starts
NAMES = (
    "study",
    "search_spaces",
    "yaml",
    "torch",
    "numpy",
    "ray",
    "mlflow",
    "psutil",
    "sitecustomize",
    "usercustomize",
)
PLUGIN = """
from pathlib import Path
from typing import Literal
import torch
from study.models.merges import Merge
from study.registry import MERGES

# a file of its own, beside it: as relative as data/ is
FACTOR = float(Path("factor.txt").read_text())

@MERGES.register("mine", formula="x + f / 2", source="a test")
class Mine(Merge):
    def forward(self, x, f):
        return x + FACTOR * f

class Net(torch.nn.Sequential):
    def __init__(self, num_classes: int, width: int, variant: Literal["a", "b"] = "a") -> None:
        hidden = torch.nn.Linear(64, 2 * width if variant == "b" else width)
        super().__init__(torch.nn.Flatten(), hidden, torch.nn.ReLU(), torch.nn.Linear(hidden.out_features, num_classes))
"""


def test_nothing_is_imported_from_the_folder_but_what_its_user_agreed_to(tmp_path: Path) -> None:
    folder, ran = tmp_path / "folder", tmp_path / "ran"
    (folder / "analysis").mkdir(parents=True)
    noting = "open({ran!r}, 'a').write({name!r} + '\\n')\n"
    for path in (*(f"{name}.py" for name in NAMES), "analysis/__init__.py", "uninvited.py"):
        (folder / path).write_text(noting.format(ran=str(ran), name=path))
    (folder / "uninvited-1.0.dist-info").mkdir()
    (folder / "uninvited-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: uninvited\nVersion: 1.0\n")
    points = "[fmm_study.plugins]\na = uninvited\n[torch.backends]\nb = uninvited:go\n"
    (folder / "uninvited-1.0.dist-info/entry_points.txt").write_text(points)
    # not in the folder of the command: beside the specification
    (folder / "specs").mkdir()
    (folder / "specs/mine_beside.py").write_text(PLUGIN)
    (folder / "factor.txt").write_text("0.5")
    # what a killed driver has left
    (folder / "results/kill/.tune-of-the-dead/tune").mkdir(parents=True)
    ours = "{merge: [add, mine], attention: [none], attention_form: [none], depth: [8]}"
    changes = FAKE | {"factors": f"[{ours}, {{network: ['mine_beside:Net'], variant: [a, b]}}]"}
    write_spec(
        folder / "specs/kill.yaml", **changes, plugins="[mine_beside]", blocks=1, contrasts="[]", measure="{}",
        budget="{search_trials: 0, startup_trials: 0}",
    )  # fmt: skip
    # as pip's script does: the folder of the program first
    (tmp_path / "program.py").write_text(UNDRAWN)
    env = os.environ | {"FMM_STUDY_PLUGINS": "mine_beside", "PYTHONSAFEPATH": ""}
    command = [sys.executable, str(tmp_path / "program.py"), "run", "specs/kill.yaml"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not ran.exists(), ran.read_text()
    rows = pq.read_table(folder / "results/kill/tables/trials.parquet").to_pylist()
    found = {(row["merge"], row["variant"], row["depth"], row["reason"]) for row in rows}
    assert found == {("add", None, 8, ""), ("mine", None, 8, ""), (None, "a", None, ""), (None, "b", None, "")}
    assert not list((folder / "results/kill").glob(".tune-*"))

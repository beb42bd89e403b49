"""Workers that die on Ray: a deadly operator fails alone, and workers that cannot begin end the run with a reason."""

import os
from pathlib import Path

import pytest
from driving import finish, log_of, results, start, write_spec

from study.worker.attempts import REASON

PLUGIN = """
import os
from torch import nn
from study.models.merges import Merge
from study.registry import MERGES

@MERGES.register("deadly", formula="x", source="a test")
class Deadly(Merge):
    def forward(self, x, f):
        if self.training and x.requires_grad and len(x) == 128:  # not in the toy batches that a plan tries it on
            os._exit(1)
        return x + f
"""


def test_on_ray_one_deadly_operator_is_four_failures_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deadly_level.py").write_text(PLUGIN)
    monkeypatch.setenv("FMM_STUDY_PLUGINS", "deadly_level")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    factors = "{merge: [add, deadly], attention: [none], attention_form: [none], depth: [8]}"
    spec = write_spec(
        tmp_path / "kill.yaml", factors=factors, plugins="[deadly_level]", blocks=1, contrasts="[]",
        budget="{search_trials: 0, startup_trials: 0}",
    )  # fmt: skip
    finish(spec, tmp_path / "deadly")
    found = {(row["merge"], row["phase"]): (row["state"], row["reason"]) for row in results(tmp_path / "deadly")}
    assert found == {
        ("add", "confirm"): ("completed", ""), ("deadly", "confirm"): ("failed", REASON),
    }  # fmt: skip


def test_workers_that_cannot_begin_end_the_run_and_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of their surroundings (here: a module that only the driver can import) is no replicate's."""
    (tmp_path / "mine_alone.py").write_text(
        "import os\nif 'RAY_RAYLET_PID' in os.environ: raise RuntimeError('no such library')\n"
    )
    monkeypatch.setenv("FMM_STUDY_PLUGINS", "mine_alone")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    spec = write_spec(tmp_path / "kill.yaml", plugins="[mine_alone]", blocks=1)
    storage = tmp_path / "storage"
    assert start(spec, storage).wait(500) == 2
    last = log_of(storage).read_text().splitlines()[-1]
    assert "workers are lost before they begin" in last and "no such library" in last, last
    assert not (storage / "kill/tables/trials.parquet").exists()

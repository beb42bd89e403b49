"""A worker that starts slowly comes up in the end, however many groups others could take from it meanwhile."""

import os
from pathlib import Path

import pytest
from driving import finish, results, write_spec

PLUGIN = """
import os, time
from pathlib import Path

if "RAY_RAYLET_PID" in os.environ:  # a worker, not the driver
    begun = Path(__file__).parent / f"begun-{os.getpid()}"
    begun.touch()
    if len(list(begun.parent.glob("begun-*"))) > 1:
        time.sleep(SECONDS)
    begun.with_name(f"up-{os.getpid()}").touch()
"""


def test_a_worker_that_starts_slowly_is_left_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many groups of a fraction of a second, and a second worker that takes many of them to start."""
    (tmp_path / "slow_start.py").write_text(PLUGIN.replace("SECONDS", "4"))
    monkeypatch.setenv("FMM_STUDY_PLUGINS", "slow_start")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    spec = write_spec(
        tmp_path / "kill.yaml", plugins="[slow_start]", measure="{}", contrasts="[]", blocks=12, checkpoints="none",
        factors="{merge: [add, mul], attention: [none], attention_form: [none], depth: [8]}",
        fixed="{dataset: fake, width: 4, epochs: 8, batch_size: 16}", resources="{cpus: 1, group: 1}",
        budget="{search_trials: 3, startup_trials: 1}",
    )  # fmt: skip
    finish(spec, tmp_path / "storage")
    assert len(results(tmp_path / "storage")) == 2 * 12 * 4
    begun, up = list(tmp_path.glob("begun-*")), list(tmp_path.glob("up-*"))
    assert len(begun) == len(up) == 2, "a worker was stopped while it was starting"

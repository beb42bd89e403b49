"""Where a driver tries out what it freezes for GPUs, without a cluster: here or nowhere."""

import json

from study.planning.plan import make_plan
from study.resources.execution import frozen_execution
from study.resources.timing import asking, here
from study.results.files import EXECUTION


def test_here_where_no_gpu_is_asked_for_or_one_is_seen(spec_of, monkeypatch):
    with asking(spec_of(), None, print) as ask:
        assert ask is here and ask(max, 3, 5) == 5
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with asking(spec_of(resources={"gpus": 1}), "auto", print) as ask:
        assert ask is here


def test_nowhere_without_a_gpu_or_a_cluster(spec_of, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    spec = spec_of(resources={"gpus": 1})
    with asking(spec, None, print) as ask:
        assert ask is None
    monkeypatch.setenv("FMM_STUDY_DEVICE", "cpu")
    with asking(spec, "auto", print) as ask:
        assert ask is None


def test_without_measuring_groups_train_one_by_one(spec_of, tmp_path):
    plan = make_plan(spec_of(resources={"gpus": 0.25, "group": 2, "fuse": "auto", "step": "auto"}, blocks=4))
    assert {each.together for each in frozen_execution(plan, tmp_path, None, started=False).values()} == {1}
    assert json.loads((tmp_path / EXECUTION).read_text())[plan.cells[0].name]["step"] == {"options": [], "left_out": {}}

"""A GPU of the cluster is held from a driver's first question on, and a cluster without one is refused."""

import os
from pathlib import Path

import pytest
import ray

from study.cluster.connection import asking_a_gpu
from study.errors import UserError
from study.planning.plan import make_plan
from study.resources.execution import frozen_execution
from study.resources.timing import asking
from study.results.files import EXECUTION

LOCAL = {"address": "local", "include_dashboard": False, "log_to_driver": False, "num_cpus": 1}


def gpu_held(*more):
    """What a process holds of Ray's GPUs, and who it is."""
    return [int(index) for index in ray.get_gpu_ids()], os.getpid(), *more


def refused():
    raise UserError("no such thing")


def test_a_gpu_of_the_cluster_is_held_from_the_first_question_on(spec_of, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("FMM_STUDY_DEVICE", raising=False)
    # the questions are this file's: a worker has to find it
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    told: list[str] = []
    with ray.init(num_gpus=1, **LOCAL):
        with asking(spec_of(resources={"gpus": 0.25}), "auto", told.append) as ask:
            assert ray.available_resources()["GPU"] == 1 and not told
            gpus, process, more = ask(gpu_held, 7)
            assert (gpus, more) == ([0], 7) and process != os.getpid()
            assert ask(gpu_held) == ([0], process) and len(told) == 1
            assert ray.available_resources().get("GPU", 0) == 0
            with pytest.raises(UserError, match=r"^no such thing$"):
                ask(refused)
            # the whole way: groups are timed there, where torch then finds no GPU
            plan = make_plan(spec_of(resources={"gpus": 0.25, "group": 2, "fuse": "auto"}, blocks=4))
            with pytest.raises(UserError, match=r"^on a GPU of the cluster: .*(CUDA|NVIDIA)"):
                frozen_execution(plan, tmp_path, ask, started=False)
            assert not (tmp_path / EXECUTION).exists()
        with (
            asking_a_gpu("auto", ["no_such_plugin"], print) as ask,
            pytest.raises(UserError, match="no_such_plugin"),
        ):
            ask(gpu_held)


def test_a_cluster_without_one_is_refused(spec_of, monkeypatch):
    monkeypatch.delenv("FMM_STUDY_SLOTS", raising=False)
    with (
        ray.init(**LOCAL),
        asking_a_gpu("auto", [], print) as ask,
        pytest.raises(UserError, match="the cluster has no GPU"),
    ):
        ask(gpu_held)

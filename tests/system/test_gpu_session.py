"""The session on a lent GPU: its runner, by made-up steps; and its own steps, tried on the CPU."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_correct, gpu_speed
from benchmarks.gpu_session import LINES, STEPS, TABLE, WHEELS, Found, Given, Step, pack, read_lines, session, table
from study.registry import ATTENTIONS, MERGES, NETWORKS, STATISTICS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Takes made-up steps by name; gives what is told, and the lines by measurement."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests/support'}")
    given = Given(device="cpu", small=True, out=tmp_path / "out")

    def take(*names, seconds=60.0):
        told = []
        steps = [Step(name, name, 3.0 if name == "slow" else 60.0, f"session_steps:{name}") for name in names]
        session(steps, given, seconds, told.append)
        return told, {(line["step"], line["name"]): line for line in read_lines(given.out / LINES)}

    take.out = given.out
    return take


def test_what_is_measured_is_a_line_and_a_row(run):
    _, lines = run("good")
    line = lines["good", "first"]
    assert line["values"] == [1.0, 3.0, 2.0] and (line["median"], line["spread"], line["n"]) == (2.0, [1.0, 3.0], 3)
    assert line["met"] and not lines["good", "kind: three"]["met"]
    assert line["hardware"] and line["versions"]["torch"] and line["seconds"] >= 0 and line["device"] == "cpu"
    rows = (run.out / TABLE).read_text().splitlines()
    assert "| good | first | 2 (1 to 3) s | 3 | at least 2 | yes |" in rows
    assert "| good | kind: three | 1.5 of it | 1 | at most 1 | **no** |" in rows
    assert "| good | kind: 2 of 3 | at most 0.5 of it | 2 | at most 1 | yes |" in rows


def test_a_fault_is_a_line_and_the_others_are_measured_all_the_same(run):
    _, lines = run("faulty")
    assert lines["faulty", "raises"]["error"] == "ValueError: a fault of two lines"
    assert lines["faulty", "kills"]["error"] == "its process ended with 9"
    assert lines["faulty", "after"]["values"] == [2.0]
    assert "| faulty | raises | ValueError: a fault of two lines | 0 | | **no** |" in (run.out / TABLE).read_text()


def test_after_a_fault_of_the_device_the_step_goes_on_in_another_process(run):
    _, lines = run("faults_of_a_device")
    assert "CUDA error" in lines["faults_of_a_device", "poisons"]["error"]
    assert lines["faults_of_a_device", "by another process"]["values"]


def test_a_step_over_its_time_is_ended_and_told_and_goes_on_another_day(run):
    started = time.monotonic()
    told, lines = run("slow", "good")
    assert time.monotonic() - started < 30
    assert told == ["slow, slow: ended: the step's 3 s were over", told[1]]
    assert lines["slow", "in time"]["values"] and lines["good", "first"]["values"]
    assert lines["slow", "too long"]["error"] == "ended: the step's 3 s were over"
    assert ("slow", "never") not in lines and ("slow", "") not in lines
    told, again = run("slow", "good")
    assert told[1] == "good, good: done before"
    assert again["slow", "in time"] == lines["slow", "in time"]  # not measured anew
    assert again["slow", "too long"]["run"] == 2


def test_what_failed_is_tried_again_and_what_is_measured_is_not(run):
    _, first = run("faulty")
    _, second = run("faulty")
    for name, kept in {"before": True, "after": True, "raises": False, "kills": False}.items():
        assert (first["faulty", name] == second["faulty", name]) is kept, name


def test_a_plan_that_fails_is_an_error_of_its_step(run):
    _, lines = run("broken")
    assert lines["broken", ""]["error"].startswith("its process ended with 1")
    assert "the plan itself" in (run.out / "session.log").read_text()
    assert "| broken | the step itself | its process ended with 1" in (run.out / TABLE).read_text()


def test_no_step_begins_without_time_and_small_is_not_mixed_with_whole(run):
    told, lines = run("good", seconds=1.0)
    assert told == ["good, good: no time is left"] and not lines
    run("good")
    with pytest.raises(SystemExit, match="of another device, or was measured in small"):
        session([], Given(device="cpu", small=False, out=run.out), 60.0)


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    whole = {"step": "a", "name": "one", "error": "x", "run": 1}
    (tmp_path / LINES).write_text(json.dumps(whole) + '\n{"step": "a", "na')
    assert read_lines(tmp_path / LINES) == [whole]
    assert "| a | one | x | 0 |" in table([whole])


def names(plan, **changes):
    return [name for name, _ in plan(Given(**{"device": "cuda", "small": False, "out": Path("nowhere"), **changes}))]


def test_the_plan_has_every_part_and_no_name_twice(tmp_path):
    found = names(gpu_correct.correct)
    for dtype in ("float64", "float32"):
        assert {f"{dtype}: {entry.name} {site}" for entry in MERGES for site in ("skip", "branch")} <= set(found)
        assert {name.split()[1] for name in found if name.startswith(dtype)} >= {*NETWORKS.names(), *ATTENTIONS.names()}
    assert {f"statistics: {name}" for name in STATISTICS.names()} <= set(found)
    for step in STEPS:
        module, _, function = step.plan.partition(":")
        plan = getattr({"benchmarks.gpu_correct": gpu_correct, "benchmarks.gpu_speed": gpu_speed}[module], function)
        for small in (False, True):
            planned = names(plan, small=small, device="cpu" if small else "cuda")
            assert planned and len(set(planned)) == len(planned), step
    assert sum(step.seconds for step in STEPS) <= 900


SOME = [
    *(f"{dtype}: {level}" for dtype in ("float64", "float32") for level in ("cifar_resnet 8 8", "none none")),
    "resume: broken off, 1 as one, plain",
    "options: channels_last, 1 as one, se mul",
    "statistics: noise_accuracy",
    "fused: cifar_resnet 8 8",
]


@pytest.fixture
def small(tmp_path):
    """Steps of the correctness plan, tried small."""
    backends = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.get_num_threads()
    yield dict(gpu_correct.correct(Given(device="cpu", small=True, out=tmp_path)))
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = backends[:2]
    torch.set_num_threads(backends[2])


@pytest.mark.parametrize("name", SOME)
def test_the_cpu_agrees_with_itself(small, name):
    found = small[name]()
    assert found.met and found.most is not None, found


# which of the states that are looked at is the one that is judged
@pytest.mark.parametrize(
    ("name", "judged"), [("float64: none none", 4), ("float32: none none", 4), ("fused: none none", 2)]
)
def test_weights_that_are_a_hundredth_off_are_found(small, name, judged, monkeypatch):
    seen, state = [], gpu_correct._state

    def off(model):
        seen.append(model)
        weights, statistics = state(model)
        return (weights * (1.01 if len(seen) == judged else 1.0), statistics)

    monkeypatch.setattr(gpu_correct, "_state", off)
    found = small[name]()
    assert not found.met and found.values[0] > found.most


def test_cheap_steps_run_in_small_without_ray_optuna_and_mlflow(run, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Refuses:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('ray', 'mlflow', 'optuna', 'hessian_eigenthings', 'sqlalchemy'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refuses())\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    chosen = [step for step in STEPS if step.name == "f"]
    session(chosen, Given(device="cpu", small=True, out=run.out), 120.0)
    lines = read_lines(run.out / LINES)
    assert [line["name"] for line in lines if line["name"]] == names(gpu_speed.time_to_accuracy)
    assert all(line.get("met", True) is not False and "error" not in line for line in lines), lines


def test_images_are_brought_as_one_file(tmp_path, monkeypatch):
    for part, kind in (("train", "cat"), ("test", "dog")):
        (tmp_path / "cifar" / part / kind).mkdir(parents=True)
        (tmp_path / "cifar" / part / kind / "1.jpg").write_bytes(b"not looked at" * 9)
        (tmp_path / "cifar" / part / ".kept").write_text("")
    pack(tmp_path / "cifar", tmp_path / "images.tar.xz")
    monkeypatch.setenv("FMM_STUDY_DATA", "elsewhere")
    monkeypatch.setenv("FMM_STUDY_OFFLINE", "0")
    given = Given(device="cpu", small=False, out=tmp_path, images=tmp_path / "images.tar.xz")
    assert gpu_speed.data_of(given, "fake") == gpu_speed.data_of(given, "fake") == "cifar10_jpeg"
    files = sorted(
        str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("*") if path.is_file()
    )
    assert files == ["cifar10_jpeg/test/dog/1.jpg", "cifar10_jpeg/train/cat/1.jpg"]
    with pytest.raises(RuntimeError, match="--images"):
        gpu_speed.data_of(Given(device="cuda", small=False, out=tmp_path), "fake")


def test_wheels_are_pinned_and_their_needs_are_brought_or_there():
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    there = {"torch", "numpy", "matplotlib", "packaging", "pyyaml", "tqdm"}
    brought = {name.lower().replace("_", "-") for name in WHEELS}
    pinned = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")
    assert all(f"\n{name}==" in pinned for name in brought)
    for name in brought - {"optuna"}:
        for text in requires(name) or ():
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": "", "python_version": "3.12"}):
                assert need.name.lower().replace("_", "-") in brought | there, (name, text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--images", "absent.tar.xz"], "absent.tar.xz: there is no such file"),
        (["--steps", "z"], "expected some of a b"),
    ],
)
def test_bad_arguments_are_one_line(arguments, said):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_session", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_nan_is_not_as_it_should_be():
    assert Found(values=[float("nan")], unit="", most=1.0).met is False
    assert Found(values=[1.0], unit="").met is None

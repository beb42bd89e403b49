"""The doctor asks every host of a cluster: each usual fault is told, with what to do."""

import time
from pathlib import Path

import pytest

from study.checks.doctor import Host, _host, _number, describe, examine_hosts
from study.cluster.code import source_digest


@pytest.fixture
def here(tmp_path: Path) -> Host:
    (tmp_path / "mark").write_text("")
    return describe(str(tmp_path), "mark", ["digits"])


def told(here: Host, counted: float = 0, **changes: object) -> tuple[str, str]:
    answer: Host = {**here, **changes}  # type: ignore[typeddict-item]
    return _host(here, counted, answer, Path("/results"), (time.time() - 5, time.time()))


def test_a_host_like_this_one_is_well(here: Host) -> None:
    assert told(here) == ("the same versions and storage, 0 GPUs", "")
    assert (here["storage"], here["missing"]) == ("", {})
    assert here["versions"]["fmm-study"] == source_digest() and len(source_digest()) == 16


@pytest.mark.parametrize(
    ("changes", "found", "advice"),
    [
        ({"storage": "is not there"}, "/results is not there", "--storage that all hosts share"),
        ({"missing": {"cifar10": "put it into data/"}}, "dataset cifar10 is missing", "put it into data/"),
        ({"gpus": 2}, "torch sees 2 GPUs, Ray counts none", "--num-gpus"),
        ({"clock": 0.0}, "its clock differs by about -", "NTP"),
        ({"versions": {}}, "torch missing (here ", "the same commit on every host"),
    ],
)
def test_each_fault_is_told(here: Host, changes: dict[str, object], found: str, advice: str) -> None:
    what, then = told(here, **changes)
    assert found in what and advice in then


def test_other_code_and_a_gpu_that_torch_does_not_see(here: Host) -> None:
    what, then = told(here, counted=4, versions={**here["versions"], "ray": "1.0", "fmm-study": "another"})
    assert (
        "ray 1.0 (here " in what and "fmm-study another (here " in what and "Ray counts 4 GPUs, torch sees none" in what
    )
    assert "nvidia-smi" in then
    what, then = _host(here, 0, ModuleNotFoundError("No module named 'study'"), Path("/results"), (0, 1))
    assert "No module named 'study'" in what and "install fmm-study there" in then


def test_a_head_alone() -> None:
    assert "no worker has joined" in _number(1)[1] and _number(1)[2]
    assert _number(3) == ("hosts", "3", "")


def test_a_storage_that_is_another_folder_there_or_none(tmp_path: Path) -> None:
    assert describe(str(tmp_path), "mark", [])["storage"] == "is another folder there"
    assert describe(str(tmp_path / "none"), "mark", [])["storage"] == "is not there"


def test_the_mark_is_gone_when_all_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(address, question, *given):
        return [("a (1.2.3.4)", 0, question(*given)), ("b (1.2.3.5)", 0, question(str(tmp_path / "other"), *given[1:]))]

    monkeypatch.setattr("study.cluster.connection.ask_hosts", ask)
    hosts, well, ill = examine_hosts("1.2.3.4:6379", tmp_path / "results", ["digits"])
    assert hosts == ("hosts", "2", "")
    assert well[0] == "host a (1.2.3.4)" and not well[2]
    assert ill[0] == "host b (1.2.3.5)" and "is not there" in ill[1]
    assert not list((tmp_path / "results").iterdir())


def test_a_lock_that_does_not_lock_between_hosts_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(address, question, *given):
        locked = question(*given)
        with monkeypatch.context() as patch:
            patch.setattr("fcntl.flock", lambda *_: None)
            return [("a", 0, locked), ("b", 0, question(*given))]

    monkeypatch.setattr("study.cluster.connection.ask_hosts", ask)
    _, well, ill = examine_hosts("1.2.3.4:6379", tmp_path / "results", [])
    assert not well[2] and "does not lock between hosts" in ill[1] and "mount it with locks" in ill[2]
    assert not list((tmp_path / "results").iterdir())

"""`measure`: a kept replicate gives its study's numbers again; a network of one's own is measured too; faults are one line."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from command_line import fmm_study

from study.config import Task, TrialConfig
from study.data import load_dataset
from study.errors import UserError
from study.measuring.network import as_plain, load_own, measure_checkpoint, measure_network, parse_statistics
from study.registry import STATISTICS
from study.smoothness import Estimate, IncompleteError
from study.worker.group import run_group

CHOSEN = {
    "input_jacobian": {"num_samples": 8},
    "attention_importance": {"num_samples": 8},
    "noise_accuracy": {"sigmas": [16]},
    "frequency": {"num_pairs": 8},
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict]]:
    """A replicate's final weights, and what its study recorded of it."""
    storage = tmp_path_factory.mktemp("study")
    config = TrialConfig(
        dataset="fake",
        depth=8,
        width=4,
        seed=3,
        split_seed=4,
        epochs=2,
        batch_size=16,
        attention="se",
        attention_form="mul",
    )
    task = Task(
        config=config, cell="c", phase="confirm", block=0, replicate=0, number=0, statistics=CHOSEN, checkpoints="final"
    )
    records = next(event for event in run_group([task], storage) if isinstance(event, list))
    measured = {record["statistic"]: record["estimates"] for record in records if record["kind"] == "measure"}
    return storage / "checkpoints" / config.trial_key / "final.pt", measured


def test_a_kept_replicate_gives_the_numbers_of_its_study(kept: tuple[Path, dict[str, dict]]) -> None:
    path, recorded = kept
    found = measure_checkpoint(path, CHOSEN)
    assert set(found) == set(recorded) == set(CHOSEN)
    for statistic, estimates in recorded.items():
        again = found[statistic]
        assert not again.error and list(again) == list(estimates)
        for name, estimate in estimates.items():
            assert again[name].as_record() == pytest.approx(estimate, nan_ok=True), name


def own() -> torch.nn.Module:
    """A linear network on the fake data set's images, its weights drawn."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    torch.save(own().state_dict(), tmp_path / "own.pt")
    model = load_own(f"{__name__}:own", tmp_path / "own.pt")
    found = measure_network(model, "fake", {"input_jacobian": {}, "attention_importance": {}})
    jacobian = found["input_jacobian"]
    # of a linear network the Jacobian is its weight, at every image
    expected = float(torch.linalg.matrix_norm(model[1].weight.detach()))
    assert jacobian["jacobian_logits_mean"].value == pytest.approx(expected, rel=1e-5)
    assert found["attention_importance"] == {}


def test_one_statistic_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = iter([IncompleteError("a part", {"x": Estimate(1.0, math.nan, 2, True)}), ZeroDivisionError("none")])

    def fail(settings: object, context: object) -> dict:
        raise next(faults)

    for name in ("attention_importance", "path"):
        monkeypatch.setitem(STATISTICS._entries, name, dataclasses.replace(STATISTICS[name], build=fail))
    lines: list[str] = []
    chosen = {"attention_importance": {}, "path": {}, "input_jacobian": {}}
    found = measure_network(own(), "fake", chosen, say=lines.append)
    assert found["attention_importance"].error == "a part" and not found["path"]
    assert "ZeroDivisionError: none" in found["path"].error and len(found["input_jacobian"]) == 9
    partial = {"x": {"value": 1.0, "stderr": None, "num_samples": 2, "converged": True}, "error": "a part"}
    plain = as_plain(found)
    assert plain["attention_importance"] == partial and set(plain["path"]) == {"error"}
    assert len(plain["input_jacobian"]) == 9
    assert lines[0] == "measuring 3 statistics on fake (cpu)"
    assert [line.split(":")[0] for line in lines[1:]] == [f"{i}/3 {name}" for i, name in enumerate(chosen, 1)]


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (["pth"], [], "unknown statistic 'pth' (did you mean 'path'?)"),
        (["path"], ["path.num_pair=3"], "unknown setting 'num_pair' (did you mean 'num_pairs'?)"),
        (["path"], ["pathnum=3"], "expected STATISTIC.KEY=VALUE"),
        (["path"], ["paht.num_pairs=3"], "'paht' is not measured (did you mean 'path'?)"),
    ],
)
def test_bad_settings_are_named(names: list[str], settings: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_statistics(names, settings)
    assert message in str(caught.value)


def test_all_statistics_where_none_is_named() -> None:
    assert set(parse_statistics([], ["path.num_pairs=7"])) == set(STATISTICS.names())
    assert parse_statistics(["path"], ["path.num_pairs=7"]) == {"path": {"num_pairs": 7}}


def test_files_that_are_no_weights_are_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "plain.pt")
    for name, message in (
        ("absent.pt", "no checkpoint at"),
        ("text.pt", "cannot be read as weights"),
        ("list.pt", "holds a list, not a state dict"),
        ("plain.pt", "is no replicate's checkpoint"),
    ):
        with pytest.raises(UserError, match=message):
            measure_checkpoint(tmp_path / name, {})
    with pytest.raises(UserError, match="does not fit --model"):
        load_own(f"{__name__}:own", tmp_path / "plain.pt")
    with pytest.raises(UserError, match="expected module:function"):
        load_own(f"{__name__}:absent", tmp_path / "plain.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.pt", "plain.pt", "text.pt"]


def test_the_command(kept: tuple[Path, dict[str, dict]]) -> None:
    chosen = ("--statistic", "input_jacobian", "--set", "input_jacobian.num_samples=8")
    done = fmm_study("measure", str(kept[0]), "--json", *chosen)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["input_jacobian"]["jacobian_logits_mean"]
    assert found["value"] == pytest.approx(kept[1]["input_jacobian"]["jacobian_logits_mean"]["value"])
    assert found["num_samples"] == 8 and math.isfinite(found["stderr"])


def test_the_dataset_must_be_there(tmp_path: Path) -> None:
    load_dataset("fake")
    with pytest.raises(UserError, match="unknown dataset 'fakee'"):
        measure_network(own(), "fakee", {})


ODD = {
    "of another depth": (lambda kept: kept["config"].update(depth=14), "does not fit the configuration that it holds"),
    "of another width": (lambda kept: kept["config"].update(width=8), "does not fit the configuration that it holds"),
    "no weights": (lambda kept: kept.update(model=None), "does not fit the configuration that it holds"),
    "a list of weights": (lambda kept: kept.update(model=[1]), "does not fit the configuration that it holds"),
    "weights of other types": (
        lambda kept: kept["model"].update({"stem.0.weight": 3}),
        "does not fit the configuration",
    ),
    "numbers for names": (lambda kept: kept["model"].update({7: torch.ones(2)}), "does not fit the configuration"),
    "no configuration": (lambda kept: kept.update(config=None), "holds a configuration that is none"),
    "an unknown setting": (lambda kept: kept["config"].update(widht=8), "did you mean 'width'"),
    "an unknown dataset": (lambda kept: kept["config"].update(dataset="digit"), "did you mean 'digits'"),
    "an unknown operator": (lambda kept: kept["config"].update(merge="ad"), "did you mean 'add'"),
    "a depth that is none": (lambda kept: kept["config"].update(depth=9), "depth"),
}


@pytest.mark.parametrize(("change", "told"), ODD.values(), ids=ODD)
def test_weights_that_do_not_fit_their_configuration_are_one_line(kept, change, told, tmp_path: Path) -> None:
    held = torch.load(kept[0], weights_only=True)
    change(held)
    torch.save(held, tmp_path / "odd.pt")
    done = fmm_study("measure", str(tmp_path / "odd.pt"), "--statistic", "input_jacobian")
    assert done.returncode == 2 and told in done.stderr and done.stderr.count("\n") == 1, done.stderr

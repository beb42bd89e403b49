"""A network of one's own: where it may come from, what it may be, on whose images, and what is said when it does not fit."""

import importlib
import io
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from picture_files import write_images
from rich.console import Console
from torch import nn

from study.data import load_dataset
from study.errors import UserError
from study.measuring.network import (
    Measured,
    as_device,
    load_own,
    measure_checkpoint,
    measure_file,
    measure_network,
    parse_statistics,
)
from study.measuring.state_dict import fit_state_dict
from study.printing.measured import print_measured
from study.smoothness import Estimate

JACOBIAN = {"input_jacobian": {"num_samples": 8}}
# what `measure` must not need; a replicate's own levels are in the package
HIDDEN = ("ray", "optuna", "mlflow")


def linear(num_classes: int = 4, num_inputs: int = 64) -> nn.Module:
    """A linear network on the fake data set's images."""
    return nn.Sequential(nn.Flatten(), nn.Linear(num_inputs, num_classes))


def normalised() -> nn.Module:
    """With batch norm, whose running statistics no training has touched."""
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))


class NoParameters(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2)).tanh()[:, :4]


class Given(nn.Module):
    """Whatever it is told to give."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: torch.Tensor) -> object:
        return self.value(x) if callable(self.value) else self.value


@pytest.mark.parametrize("model", [linear(), normalised(), NoParameters()], ids=["linear", "batchnorm", "bare"])
def test_any_module_is_measured_and_left_as_it_was(model: nn.Module) -> None:
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = measure_network(model, load_dataset("fake"), JACOBIAN)
    assert found["input_jacobian"]["jacobian_logits_mean"].value > 0
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (linear(10), r"gives outputs of shape \(2, 10\) for 2 images; fake has 4 classes, so \(2, 4\) was expected"),
        (linear(4, 100), r"does not take the images of fake, \(N, 1, 8, 8\): .*mat1 and mat2 shapes"),
        (Given({"logits": 1}), "gives a dict, not a tensor of logits"),
        (Given(lambda x: x.flatten(1)[:, :4] / 0), "not finite"),
    ],
    ids=["classes", "images", "dict", "finite"],
)
def test_a_network_that_does_not_fit_is_one_line(model: nn.Module, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        measure_network(model, "fake", JACOBIAN)
    assert "\n" not in str(caught.value)


class Averaged(nn.Module):
    """With a running mean that has no protocol; in training mode it may want more than images."""

    def __init__(self, wants: str = "") -> None:
        super().__init__()
        self.net, self.wants = normalised(), wants
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.net(x)
        if self.training:
            if self.wants:
                raise ValueError(self.wants)
            self.mean.lerp_(z.detach().mean(0), 0.1)
        return z - self.mean


def test_running_statistics_that_stay_as_they_were_are_told() -> None:
    for model, wanted in ((Averaged(), ["'mean'"]), (Averaged("labels"), []), (normalised(), [])):
        told: list[str] = []
        state = torch.get_rng_state()
        measure_network(model, "fake", JACOBIAN, say=told.append)
        assert [line.rpartition(": ")[2] for line in told if line.startswith("left as training")] == wanted
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda:77", r"device 'cuda:77' cannot be used \(.*\); here: cpu"),
        ("gpu", "device 'gpu' cannot be used"),
        ("meta", "holds no values"),
    ],
)
def test_a_device_that_is_not_there_is_named(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        as_device(name)
    with pytest.raises(UserError, match=message):
        load_own(f"{__name__}:linear", tmp_path / "none.pt", device=name)
    with pytest.raises(UserError, match=message):
        measure_checkpoint(tmp_path / "none.pt", JACOBIAN, device=name)


@pytest.mark.parametrize("key", ["", "state_dict", "model", "model_state_dict", "net", "my_own_key"])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "_orig_mod.", "module._orig_mod.", "net.", "model.module."]
)
def test_a_state_dict_may_be_wrapped(key: str, prefix: str, tmp_path: Path) -> None:
    weights = linear().state_dict()
    kept = {f"{prefix}{name}": value for name, value in weights.items()}
    torch.save({key: kept, "epoch": 3} if key else kept, tmp_path / "own.pt")
    model = load_own(f"{__name__}:linear", tmp_path / "own.pt")
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_other_parts_of_a_file_are_told_and_parts_may_be_compiled(tmp_path: Path) -> None:
    """As Lightning writes it: weights of the network, of a loss, and of an optimiser."""
    net = nn.Sequential(linear(), nn.BatchNorm1d(4))
    kept = {f"model.{name.replace('0.1.', '0._orig_mod.1.')}": value for name, value in net.state_dict().items()}
    held = {"state_dict": kept | {"loss.weight": torch.ones(3)}, "optimizer": {"state": {0: {"v": torch.ones(2)}}}}
    own = nn.Sequential(linear(), nn.BatchNorm1d(4))
    assert fit_state_dict(own, {**held, "epoch": torch.tensor(3), "version": "2.5"}, "w.pt") == ["loss.weight"]
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in own.state_dict().items())
    torch.save({"state_dict": {**{f"m.{k}": v for k, v in linear().state_dict().items()}, "loss.w": torch.ones(1)}},
               tmp_path / "own.pt")  # fmt: skip
    told: list[str] = []
    load_own(f"{__name__}:linear", tmp_path / "own.pt", say=told.append)
    assert told == [f"left out of {tmp_path / 'own.pt'}, as no part of the network: 'loss.w'"]


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({}, "no state dict in it; its keys: "),
        ({"epoch": 3}, "no state dict in it; its keys: 'epoch'"),
        ({"a": {"x": torch.ones(1)}, "b": {"x": torch.ones(1)}}, "several could be: 'a', 'b'"),
        ({"1.weight": torch.ones(4, 64)}, "missing '1.bias'"),
        ({"model.1.weight": torch.ones(4, 64)}, "missing '1.bias'"),
        ({"1.weight": torch.ones(4, 64), "1.bias": torch.ones(4), "2.bias": torch.ones(1)}, "unexpected '2.bias'"),
        ({"1.weight": torch.ones(4, 64), "1.bais": torch.ones(4)}, r"did you mean '1.bais'"),
        ({"1.weight": torch.ones(3, 64), "1.bias": torch.ones(4)}, r"of another shape 1.weight \(3, 64\) for \(4, 64\)"),
        ({f"{i}.x": torch.ones(1) for i in range(9)}, "unexpected '0.x', '1.x', '2.x' and 6 more"),
        (
            {f"{p}.{k}": v for p in ("student", "teacher") for k, v in nn.Sequential(
                nn.Flatten(), nn.Linear(64, 4)).state_dict().items()},
            "the weights of several networks fit, under 'student.', 'teacher.'",
        ),
    ],
    ids=["empty", "no tensor", "two", "missing", "missing under a prefix", "unexpected", "mistyped", "shape", "many", "both"],
)  # fmt: skip
def test_what_does_not_fit_is_named(held: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        fit_state_dict(linear(), held, "own.pt does not fit")
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


def test_a_pickled_network_is_refused_with_what_to_save(tmp_path: Path) -> None:
    torch.save(linear(), tmp_path / "whole.pt")
    with pytest.raises(UserError, match=r"save a state dict, torch.save\(model.state_dict\(\), path\)"):
        load_own(f"{__name__}:linear", tmp_path / "whole.pt")


def test_model_and_dataset_go_together(tmp_path: Path) -> None:
    given = {"device": "cpu", "say": lambda line: None}
    with pytest.raises(UserError, match=r"--model needs --dataset, what the network is measured on: .*digits"):
        measure_file(tmp_path / "x.pt", {}, model="a:b", dataset="", **given)
    with pytest.raises(UserError, match=r"unknown dataset 'digit' .did you mean 'digits'"):
        measure_file(tmp_path / "x.pt", {}, model="a:b", dataset="digit", **given)
    with pytest.raises(UserError, match="--dataset 'digits' goes with --model"):
        measure_file(tmp_path / "x.pt", {}, model="", dataset="digits", **given)


def test_the_command_needs_no_ray_no_optuna_no_mlflow_and_measures_ones_own_images(tmp_path: Path) -> None:
    """From a folder with a module of one's own, on a folder of images, where the three cannot be imported."""
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(48, 2))\n"
    )
    for seed, name in enumerate(("dark", "light")):
        write_images(tmp_path / "data" / "image_folder" / "train" / name, 20, seed=seed)
    torch.save(
        {"state_dict": nn.Sequential(nn.Flatten(), nn.Flatten(), nn.Linear(48, 2)).state_dict()}, tmp_path / "w.pt"
    )
    script = f"import sys\nfor name in {HIDDEN}: sys.modules[name] = None\nfrom study.cli import main\nmain()"
    command = [sys.executable, "-c", script, "measure", "w.pt", "--model", "my_nets:make", "--dataset", "image_folder"]
    command += ["--statistic", "input_jacobian", "--statistic", "attention_importance"]
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "FMM_STUDY_DATA": str(tmp_path / "data"), "PYTHONPATH": root}
    done = subprocess.run([*command, "--json"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["attention_importance"] == {} and len(found["input_jacobian"]) == 9
    assert set(found["input_jacobian"]["jacobian_logits_mean"]) == {"value", "stderr", "num_samples", "converged"}
    assert done.stderr.splitlines()[0] == "measuring 2 statistics on image_folder (cpu)"
    assert done.stderr.splitlines()[1].startswith("1/2 input_jacobian: ")


def test_what_is_printed() -> None:
    found = {
        "near": Measured({"a": Estimate(0.5, 0.25, 8, True), "b": Estimate(1.0, math.nan, 8, False)}),
        "half": Measured({"c": Estimate(2.0, 0.5, 4, True)}, "no pairs of one class"),
        "none": Measured({}),
    }
    console = Console(file=io.StringIO(), width=100)
    print_measured(found, console)
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    for line in ("a 0.5 0.25 8", "b 1 nan 8 not converged", "no pairs of one class", "c 2 0.5 4"):
        assert line in lines
    assert lines[-2:] == ["none", "nothing to measure on this network"]


def test_the_page_says_what_can_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module of docs/measuring.md is measured with the settings of its command line."""
    page = (Path(__file__).parents[2] / "docs" / "measuring.md").read_text()
    (tmp_path / "my_nets.py").write_text(page.split("```python\n")[1].split("```")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    torch.save(importlib.import_module("my_nets").make().state_dict(), "weights.pt")
    (setting,) = re.findall(r"--set '(attention_importance.*)'", page)
    chosen = parse_statistics(["attention_importance"], [setting, "attention_importance.num_samples=8"])
    found = measure_file(
        Path("weights.pt"), chosen, model="my_nets:make", dataset="digits", device="cpu", say=lambda line: None
    )
    assert "attention_importance_layer2_spearman_zero" in found["attention_importance"]
    assert len(found["attention_importance"].kept["by_image"]["image"]) == 16

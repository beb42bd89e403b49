"""Options of the training step: each trains as the plain step does; what cannot be had is left out, what fails is dropped."""

import dataclasses

import pytest
import torch
from trainings import train

import study.training.lane as module
from study.config import TrialConfig
from study.data import load_dataset, split
from study.data.parts import Together
from study.models import build_network
from study.training import evaluate
from study.training.fused import Ended, train_together
from study.training.lane import Lane
from study.training.loop import train_epoch
from study.training.member import Member
from study.training.options import OPTIONS, obstacle, usable

CONFIG = TrialConfig(dataset="fake", depth=8, width=4, seed=1, split_seed=2, epochs=2, batch_size=16, lr=0.05)
CLOSE = {"rtol": 2e-3, "atol": 2e-4}  # float32, after some epochs
VARIANTS = [
    {"attention": "se", "attention_form": "mul", "weight_decay": 1e-3},
    {"network": "wrn", "depth": 10, "width": 1, "dropout": 0.3, "augment": "pad_crop"},
    {"merge": "mul", "jacobian_penalty": 0.01},
]
RECIPE = {
    "optimizer": "adamw", "lr": 0.01, "decayed": "weights", "clip_norm": 0.5, "label_smoothing": 0.1, "mixup": 0.4,
    "ema_decay": 0.8,
}  # fmt: skip
VARIANTS.append(RECIPE)


def member(config=CONFIG, checkpoint=None):
    data, parts = load_dataset("fake"), split(load_dataset("fake"), config.split_seed)
    model = build_network(config, num_classes=data.num_classes, mean=data.mean, deviation=data.deviation)
    return Member(
        model=model, train_split=parts.train, val_split=parts.val, config=config, checkpoint=checkpoint
    )  # fmt: skip


def run(options, *configs, **given):
    members = [member(config) for config in configs]
    ended = {e.index: e.outcome for e in train_together(members, Together, options=options) if isinstance(e, Ended)}
    return [one.model for one in members], [ended[index] for index in range(len(members))]


def alone(config):
    one = member(config)
    *_, trained = train(one.model, one.train_split, one.val_split, config, None)
    return one.model, trained


def assert_alike(model, other, exact=False):
    expected = other.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name, **({"rtol": 0, "atol": 0} if exact else CLOSE))


@pytest.mark.parametrize("variant", VARIANTS, ids=["attention", "dropout", "penalty", "recipe"])
@pytest.mark.parametrize("num", [1, 2])
def test_channels_innermost_and_weights_in_one_vector_train_as_the_plain_step(variant, num):
    configs = [dataclasses.replace(CONFIG, **variant, seed=seed) for seed in range(num)]
    models, ended = run(["fused", "channels_last"], *configs)
    for model, trained, config in zip(models, ended, configs, strict=True):
        other, expected = alone(config)
        assert_alike(model, other)
        assert trained.epoch == 2 and trained.best.keys() == expected.best.keys()
        for name, curve in expected.curves.items():
            assert trained.curves[name] == pytest.approx(curve, rel=1e-2), name
        # what is kept, resumed and measured lies as ever
        assert all(value.is_contiguous() for value in [*model.parameters(), *trained.best.values()])


def test_one_vector_alone_changes_the_update_by_rounding_alone():
    one, other = member(), member()
    Lane([one], Together, ["fused"]).epoch(0)
    train_epoch(other, 0)
    for ours, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            one.optimizer.state[ours]["momentum_buffer"], other.optimizer.state[theirs]["momentum_buffer"], **CLOSE
        )


@pytest.mark.parametrize("num", [1, 2])
def test_channels_lie_innermost_in_every_convolution(monkeypatch, num):
    seen = []
    convolve = torch.nn.functional.conv2d

    def watched(pixels, weight, *given):
        seen.append((pixels, weight))
        return convolve(pixels, weight, *given)

    monkeypatch.setattr(torch.nn.functional, "conv2d", watched)
    lane = Lane([member(dataclasses.replace(CONFIG, seed=seed)) for seed in range(num)], Together, ["channels_last"])
    for name, value in lane._stack.params.items():
        if value.dim() == 5:
            each = value[0]
            assert each.is_contiguous(memory_format=torch.channels_last), name
    lane._stack(torch.rand(num, 4, 1, 8, 8))
    if num == 1:
        inside = [(x, w) for x, w in seen if w.shape[1] > 1 and w.shape[2] > 1]
        assert len(inside) == 6
        assert all(t.is_contiguous(memory_format=torch.channels_last) for pair in inside for t in pair)


def test_bfloat16_is_for_the_steps_alone():
    one = member()
    lane = Lane([one], Together, ["bf16"])
    (metrics,) = lane.epoch(0)
    assert {value.dtype for value in one.model.parameters()} == {torch.float32}
    found = evaluate(one.model, one.val_split.batches(1024), halves=True)
    assert {name: metrics[f"val/{name}"] for name in found} == pytest.approx(found, rel=1e-6)
    other = member()
    plain = train_epoch(other, 0)
    assert metrics["train/loss"] == pytest.approx(plain["train/loss"], rel=0.05)
    assert metrics["train/loss"] != pytest.approx(plain["train/loss"], rel=1e-6)
    seen = []
    lane._stack._structure.conv.register_forward_hook(lambda part, given, out: seen.append(out.dtype))
    lane.train(1)
    lane.evaluate()
    assert set(seen) == {torch.bfloat16, torch.float32} and seen[-1] == torch.float32


def test_what_is_compiled_is_forward_and_loss_once_for_replicates_of_one_network(monkeypatch):
    """By dynamo alone: that every level compiles into one graph, forwards and backwards, ``test_contract`` tests."""
    compiled, traced = torch.compile, []

    def backend(traced_module, inputs):
        traced.append(len(inputs))
        return traced_module.forward

    monkeypatch.setattr(torch, "compile", lambda call, **given: compiled(call, backend=backend, **given))
    torch._dynamo.reset()
    configs = [dataclasses.replace(CONFIG, seed=seed) for seed in (1, 2)]
    for config in configs:
        models, _ = run(["compile"], config)
        assert_alike(models[0], alone(config)[0])
    assert len(traced) == 1  # the second replicate finds it made
    torch._dynamo.reset()


class Recorded:
    """In place of a GPU: a graph is the call itself."""

    def __init__(self, monkeypatch):
        self.warmed, self.captured, self.replayed = 0, 0, 0
        monkeypatch.setattr(module, "warm_up", self.warm_up)
        monkeypatch.setattr(module, "capture", self.capture)
        monkeypatch.setattr(module, "usable", lambda options, config, device: frozenset(options))

    def warm_up(self, step):
        for _ in range(3):
            step()
            self.warmed += 1

    def capture(self, step):
        self.captured += 1

        def replay():
            self.replayed += 1
            step()

        return replay


@pytest.mark.parametrize("num", [1, 2])
@pytest.mark.parametrize("changes", [{"network": "wrn", "depth": 10, "width": 1, "dropout": 0.3}, RECIPE])
def test_a_graph_is_captured_once_its_warm_up_does_not_count_and_it_sees_every_batch(monkeypatch, num, changes):
    configs = [dataclasses.replace(CONFIG, seed=seed, **changes) for seed in range(num)]
    plain, _ = run(["fused"], *configs)
    seen = Recorded(monkeypatch)
    models, _ = run(["graph"], *configs)
    for model, other in zip(models, plain, strict=True):
        assert_alike(model, other, exact=True)
    assert (seen.warmed, seen.captured, seen.replayed) == (3, 1, 6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("num", [1, 4])
@pytest.mark.parametrize("changes", [{}, RECIPE])
def test_a_graph_on_a_gpu_trains_as_the_step_that_it_captured(num, changes):
    found = []
    for options in (["fused"], ["graph"]):
        configs = [dataclasses.replace(CONFIG, seed=seed, **changes) for seed in range(num)]
        lane = Lane([on_gpu(member(config)) for config in configs], Together, options)
        found.append([lane.epoch(epoch) for epoch in range(2)])
    for ours, theirs in zip(found[1], found[0], strict=True):
        assert [m["train/loss"] for m in ours] == pytest.approx([m["train/loss"] for m in theirs], rel=1e-3)


def on_gpu(one):
    parts = {
        "train_split": one.train_split.to(torch.device("cuda")),
        "val_split": one.val_split.to(torch.device("cuda")),
    }
    return Member(model=one.model.cuda(), config=one.config, checkpoint=None, **parts)


def test_what_stands_against_an_option_is_said(monkeypatch):
    penalised = dataclasses.replace(CONFIG, jacobian_penalty=0.1)
    assert "twice" in obstacle("compile", penalised, "cuda") and "twice" in obstacle("graph", penalised, "cuda")
    assert obstacle("graph", CONFIG, "cpu") == "there is no GPU" and obstacle("graph", CONFIG, "cuda") == ""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert "no C++ compiler" in obstacle("compile", CONFIG, "cpu")
    assert usable(OPTIONS, CONFIG, "cpu") == {"fused", "channels_last", "bf16"}


def test_a_step_that_fails_goes_on_plain_from_the_start_of_the_epoch(monkeypatch):
    update, calls = Lane._update, []

    def failing(self, *given):
        calls.append(self.options)
        if len(calls) > 2:
            raise RuntimeError("the compiler has died")
        update(self, *given)

    monkeypatch.setattr(Lane, "_update", failing)
    with pytest.warns(UserWarning, match="a step with fused failed .*compiler has died"):
        models, ended = run(["fused"], CONFIG)
    model, trained = alone(CONFIG)
    assert_alike(models[0], model, exact=True)
    assert ended[0].curves == trained.curves and len(calls) == 3


def test_out_of_memory_down_to_one_alone_is_the_plain_training_to_the_last_digit(monkeypatch):
    sizes = []

    def full(self, *given):
        sizes.append(len(self.members))
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(Lane, "_update", full)
    configs = [dataclasses.replace(CONFIG, seed=seed) for seed in range(4)]
    with pytest.warns(UserWarning, match="out of memory|OutOfMemory") as told:
        models, ended = run(["channels_last"], *configs)
    assert sizes == [4, 2, 1]
    assert [str(warning.message).rpartition("on with ")[2] for warning in told][:2] == ["2 at once", "1 at once"]
    for model, trained, config in zip(models, ended, configs, strict=True):
        other, expected = alone(config)
        assert_alike(model, other, exact=True)
        assert trained.curves == expected.curves

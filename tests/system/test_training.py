"""The training loop against hand-written updates; reproducible and resumable bit for bit; checkpoints that are safe."""

import dataclasses
import math
import os
import random

import numpy as np
import pytest
import torch
from torch import nn
from trainings import train

from study.config import TrialConfig
from study.data import load_dataset, split
from study.models import build_network
from study.training import Progress, Trained, evaluate, load_checkpoint, save_checkpoint
from study.training.member import EXPLOSION

CONFIG = TrialConfig(
    dataset="fake", depth=8, width=4, seed=1, split_seed=2, epochs=5, batch_size=16, lr=0.1, weight_decay=1e-3, warmup_epochs=1
)  # fmt: skip

# too fast for so few images: the validation loss is best after the first epoch
EARLY_BEST = dataclasses.replace(CONFIG, schedule="constant", lr=0.5)


def network(config=CONFIG) -> nn.Module:
    return build_network(config, num_classes=4, mean=(0.5,), deviation=(0.3,))


def run(config=CONFIG, checkpoint=None, model=None, stop_after=None, parts=None):
    """The trained model and what was told; ``stop_after`` epochs the training is dropped, as by a kill."""
    model = model or network(config)
    train_split, val_split = parts or ((s := split(load_dataset("fake"), 2)).train, s.val)
    told = []
    for event in train(model, train_split, val_split, config, checkpoint):
        told.append(event)
        if stop_after is not None and len(told) == stop_after:
            break
    return model, told


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def assert_same_training(first, second):
    (one, told), (two, told_again) = first, second
    assert same(one.state_dict(), two.state_dict())
    assert told[-1].curves == told_again[-1].curves
    assert told[-1].best_epoch == told_again[-1].best_epoch and same(told[-1].best, told_again[-1].best)
    assert (told[-1].epoch, told[-1].stopped) == (told_again[-1].epoch, told_again[-1].stopped)


@dataclasses.dataclass
class Plain:
    """A split of plain features in float64; remembers what was asked for."""

    x: torch.Tensor
    labels: torch.Tensor
    asked: list = dataclasses.field(default_factory=list)

    def __len__(self):
        return len(self.labels)

    def epoch(self, order, size, augment, seed, rows=slice(None)):
        for start in range(0, len(order) - size + 1, size):
            index = order[start : start + size]
            self.asked.append(index.tolist())
            yield self.x[index], self.labels[index]

    def batches(self, size):
        yield self.x, self.labels


def plain(n=6) -> Plain:
    generator = torch.Generator().manual_seed(0)
    return Plain(torch.randn(n, 3, dtype=torch.float64, generator=generator), torch.arange(n) % 2)


class Fixed(nn.Module):
    """Logits that do not depend on the weights, one value while training and one in evaluation."""

    def __init__(self, training: float, evaluation: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.values = (evaluation, training)

    def forward(self, x):
        logits = torch.zeros(len(x), 2) + 0 * self.weight
        logits[:, 0] = logits[:, 0] + self.values[self.training]
        return logits


@pytest.mark.parametrize(
    ("schedule", "warmup", "rates"),
    [("constant", 0.0, (0.5, 0.5)), ("cosine", 0.0, (0.5, 0.25)), ("cosine", 1.0, (0.25, 0.5))],
)
def test_two_steps_of_sgd_by_hand(schedule, warmup, rates):
    data, model = plain(), nn.Linear(3, 2).double()
    x, labels = data.x.numpy(), data.labels.numpy()
    weight, bias = (p.detach().numpy().copy() for p in model.parameters())
    config = dataclasses.replace(
        CONFIG, epochs=2, batch_size=6, lr=0.5, momentum=0.9, weight_decay=0.01, schedule=schedule, warmup_epochs=warmup
    )  # fmt: skip
    velocity_w, velocity_b, losses = np.zeros_like(weight), np.zeros_like(bias), []
    for rate in rates:
        logits = x @ weight.T + bias
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        losses.append(-np.log(p[np.arange(6), labels]).mean())
        residual = (p - np.eye(2)[labels]) / 6
        velocity_w = 0.9 * velocity_w + residual.T @ x + 0.01 * weight
        velocity_b = 0.9 * velocity_b + residual.sum(0) + 0.01 * bias
        weight, bias = weight - rate * velocity_w, bias - rate * velocity_b
    _, told = run(config, model=model, parts=(data, data))
    np.testing.assert_allclose(model.weight.detach().numpy(), weight, rtol=1e-12)
    np.testing.assert_allclose(model.bias.detach().numpy(), bias, rtol=1e-12)
    assert told[-1].curves["train/loss"] == pytest.approx(losses, rel=1e-6)  # summed in float32


def test_an_epoch_shows_each_image_once_and_the_order_is_shared_by_cells():
    orders = []
    for merge in ("add", "mul"):
        data = plain(10)
        config = dataclasses.replace(CONFIG, epochs=3, batch_size=4, merge=merge)
        run(config, model=nn.Linear(3, 2).double(), parts=(data, plain(4)))
        assert [len(batch) for batch in data.asked] == [4, 4] * 3  # a short last batch is left out
        orders.append([data.asked[i] + data.asked[i + 1] for i in (0, 2, 4)])
    assert orders[0] == orders[1]
    assert all(len(set(order)) == 8 for order in orders[0]) and len(set(map(tuple, orders[0]))) == 3
    data = plain(10)
    run(dataclasses.replace(config, seed=2), model=nn.Linear(3, 2).double(), parts=(data, plain(4)))
    assert data.asked[0] + data.asked[1] != orders[0][0]


def test_training_learns_and_tells():
    _, told = run()
    trained = told[-1]
    assert [event.epoch for event in told[:-1]] == [1, 2, 3, 4, 5] and all(e.epochs == 5 for e in told[:-1])
    assert isinstance(told[0], Progress) and isinstance(trained, Trained)
    assert [event.val_loss for event in told[:-1]] == trained.curves["val/loss"]
    halves = {"val/accuracy_half1", "val/accuracy_half2"}
    assert set(trained.curves) == {"train/loss", "train/accuracy", "val/loss", "val/accuracy", *halves}
    assert all(len(curve) == 5 for curve in trained.curves.values())
    assert trained.curves["val/accuracy"][-1] > 0.9 and trained.curves["val/loss"][-1] < trained.curves["val/loss"][0]
    assert trained.stopped == "" and trained.resumed_from == 0
    assert trained.curves["val/loss"][trained.best_epoch - 1] == min(trained.curves["val/loss"])


def test_best_weights_are_those_of_the_best_epoch():
    model, told = run(EARLY_BEST)
    assert told[-1].best_epoch == 1
    model.load_state_dict(told[-1].best)
    found = evaluate(model, split(load_dataset("fake"), 2).val.batches(1024))
    assert found["loss"] == min(told[-1].curves["val/loss"])


def test_evaluation_by_hand_in_batches_of_any_size():
    model, val = network(), split(load_dataset("fake"), 2).val
    logits = model.eval()(val.pixels()).detach().double()
    model.train()
    expected_loss = float(-logits.log_softmax(1)[torch.arange(16), val.labels].mean())
    correct = (logits.argmax(1) == val.labels).double()
    for size in (1, 5, 16, 100):
        found = evaluate(model, val.batches(size), halves=True)
        assert found["accuracy_half1"] == pytest.approx(float(correct[::2].mean()))
        assert found["accuracy_half2"] == pytest.approx(float(correct[1::2].mean()))
        assert found["loss"] == pytest.approx(expected_loss, rel=1e-5)
        assert found["accuracy"] == pytest.approx(float(correct.mean()))
    assert set(evaluate(model, val.batches(16))) == {"accuracy", "loss"}
    assert model.training


def test_training_is_reproducible_and_leaves_global_generators_alone():
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())  # noqa: NPY002
    models = network(), network()
    torch.set_rng_state(before[0])  # building a layer draws; training must not
    first = run(model=models[0])
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[2]
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    torch.manual_seed(1234)
    assert_same_training(first, run(model=models[1]))
    assert not same(first[0].state_dict(), run(dataclasses.replace(CONFIG, seed=9))[0].state_dict())


# a new optimiser each epoch, a short last batch, norms over parts of a batch
LITERAL = dataclasses.replace(
    CONFIG, merge="authors_8", optimizer_made="each_epoch", last_batch="keep", norm_parts=2, norm_momentum=0.5
)
SE = dataclasses.replace(CONFIG, attention="se", attention_form="add", merge="sig_bn")


@pytest.mark.parametrize("after", [1, 2, 4, 5])
@pytest.mark.parametrize("config", [CONFIG, EARLY_BEST, SE, LITERAL], ids=["add", "early best", "se", "literal"])
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path, after, config):
    path = tmp_path / "folder" / "state.pt"
    run(config, path, stop_after=after)
    resumed = run(config, path, model=network(dataclasses.replace(config, seed=77)))  # other weights: all are loaded
    assert resumed[1][-1].resumed_from == after and len(resumed[1]) == 5 - after + 1
    assert_same_training(run(config), resumed)
    assert [p.name for p in path.parent.iterdir()] == ["state.pt"]


def test_nan_and_exploding_losses_diverge():
    nan = run(dataclasses.replace(CONFIG, lr=1e6, weight_decay=1e6))[1][-1]
    assert nan.stopped == "diverged" and nan.epoch < 5 and not math.isfinite(nan.curves["train/loss"][-1])
    limit = EXPLOSION * math.log(2)
    data = Plain(torch.zeros(4, 1), torch.ones(4, dtype=torch.long))  # the loss is the first logit, when it is large
    for logit, stopped in ((limit * 1.01, "diverged"), (limit * 0.99, "")):
        told = run(dataclasses.replace(CONFIG, batch_size=4), model=Fixed(logit, 0.0), parts=(data, data))[1]
        assert told[-1].stopped == stopped and told[-1].epoch == (1 if stopped else 5)


def test_a_validation_loss_that_is_not_finite_diverges_at_the_last_epoch_only():
    data = Plain(torch.zeros(4, 1), torch.ones(4, dtype=torch.long))
    told = run(dataclasses.replace(CONFIG, batch_size=4), model=Fixed(0.0, math.nan), parts=(data, data))[1]
    assert told[-1].stopped == "diverged" and told[-1].epoch == 5 and not told[-1].best


def test_the_stop_curve_prunes_what_is_worse_and_nothing_else():
    losses = run()[1][-1].curves["val/loss"]
    just_enough = tuple(losses)
    assert run(dataclasses.replace(CONFIG, stop_curve=just_enough))[1][-1].stopped == ""
    for epoch in range(5):
        curve = (*losses[:epoch], losses[epoch] * 0.999, *losses[epoch + 1 :])
        trained = run(dataclasses.replace(CONFIG, stop_curve=curve))[1][-1]
        # in the last epoch there is nothing left to save
        assert (trained.stopped, trained.epoch) == (("pruned", epoch + 1) if epoch < 4 else ("", 5))
        assert trained.curves["val/loss"] == losses[: trained.epoch]
    data = Plain(torch.zeros(4, 1), torch.ones(4, dtype=torch.long))
    config = dataclasses.replace(CONFIG, batch_size=4, stop_curve=(1e9,) * 5)
    assert run(config, model=Fixed(0.0, math.nan), parts=(data, data))[1][-1].stopped == "pruned"


def spoil(path, how):
    data = path.read_bytes()
    spoilt = {"half": data[: len(data) // 2], "last byte": data[:-1], "empty": b"", "text": b"not a checkpoint\n"}
    path.write_bytes(spoilt[how])
    return spoilt[how]


@pytest.mark.parametrize("how", ["half", "last byte", "empty", "text"])
def test_a_damaged_checkpoint_starts_afresh_and_is_kept_aside(tmp_path, how):
    path = tmp_path / "state.pt"
    run(checkpoint=path, stop_after=3)
    damaged = spoil(path, how)
    resumed = run(checkpoint=path)
    assert resumed[1][-1].resumed_from == 0
    assert_same_training(run(), resumed)
    aside = [p for p in tmp_path.iterdir() if ".damaged" in p.name]
    assert len(aside) == 1 and aside[0].read_bytes() == damaged


class Evil:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_a_checkpoint_never_runs_code(tmp_path):
    path, marker = tmp_path / "state.pt", tmp_path / "ran"
    torch.save({"model": Evil(marker)}, path)
    assert load_checkpoint(path) is None
    assert not marker.exists() and not path.exists()
    torch.save({"model": Evil(marker)}, path)
    torch.load(path, weights_only=False)  # the check can fail: this is what would have run
    assert marker.exists()


def test_a_checkpoint_is_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    assert load_checkpoint(path) is None
    save_checkpoint({"epoch": 1, "w": torch.ones(2)}, path)

    def cut_short(state, file):
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", cut_short)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint({"epoch": 2}, path)
    held = load_checkpoint(path)
    assert held["epoch"] == 1 and torch.equal(held["w"], torch.ones(2))

"""Recipes: optimisers, decay, clipping. Each is torch's own loop, step by step; goes on bit for bit; the bad are refused."""

import dataclasses
import itertools

import pytest
import torch
from torch import nn
from trainings import train

from study.config import TrialConfig
from study.data import load_dataset, split
from study.data.parts import Together
from study.errors import UserError
from study.models import build_network
from study.training import Member
from study.training.fused import train_together
from study.training.loop import epoch_order
from study.training.loop import train as train_member

CONFIG = TrialConfig(
    dataset="fake", depth=8, width=4, seed=1, split_seed=2, epochs=2, batch_size=8, lr=0.05, weight_decay=1e-2,
    schedule="constant",
)  # fmt: skip
RECIPES = {
    "nesterov": {"optimizer": "nesterov", "momentum": 0.8},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "momentum": 0.8, "beta2": 0.95},
    "decayed": {"decayed": "weights", "weight_decay": 0.3},
    "decayed by adamw": {"optimizer": "adamw", "lr": 0.01, "decayed": "weights", "weight_decay": 0.3},
    "clipped": {"clip_norm": 0.5},
    "made each epoch": {"optimizer": "adamw", "lr": 0.01, "optimizer_made": "each_epoch"},
}
ALL = {
    "optimizer": "adamw", "lr": 0.01, "beta2": 0.95, "decayed": "weights", "clip_norm": 0.5,
}  # fmt: skip


@dataclasses.dataclass
class Exact:
    """24 images in float64: three batches of 8."""

    pixels: torch.Tensor
    labels: torch.Tensor

    @classmethod
    def drawn(cls, seed, num=24):
        generator = torch.Generator().manual_seed(seed)
        return cls(torch.rand((num, 1, 8, 8), dtype=torch.float64, generator=generator), torch.arange(num) % 4)

    def __len__(self):
        return len(self.labels)

    def epoch(self, order, size, augment, seed, rows=slice(None)):
        for index in order.split(size):
            yield self.pixels[index], self.labels[index]

    def batches(self, size):
        yield self.pixels, self.labels


def network(config):
    return build_network(config, num_classes=4, mean=(0.5,), deviation=(0.25,)).double()


def torch_optimizer(model, config):
    weights = [p for p in model.parameters() if config.decayed == "all" or p.dim() > 1]
    others = [p for p in model.parameters() if config.decayed == "weights" and p.dim() <= 1]
    groups = [{"params": weights, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, config.beta2))
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.optimizer == "nesterov")


def by_hand(config, seen):
    """A network trained by torch alone, and the loss of its last epoch."""
    model = network(config).train()
    optimizer, losses = torch_optimizer(model, config), []
    for epoch in range(config.epochs):
        if config.optimizer_made == "each_epoch":
            optimizer = torch_optimizer(model, config)
        losses = []
        for index in epoch_order(len(seen), config.seed, epoch).split(config.batch_size):
            loss = nn.CrossEntropyLoss()(model(seen.pixels[index]), seen.labels[index])
            optimizer.zero_grad()
            loss.backward()
            if config.clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            losses.append(float(loss.detach()))
    return model, sum(losses) / len(losses)


@pytest.mark.parametrize("changes", [*RECIPES.values(), ALL], ids=[*RECIPES, "all"])
def test_a_training_is_that_of_torchs_own_parts(changes):
    config, seen = dataclasses.replace(CONFIG, **changes), Exact.drawn(0)
    theirs, loss = by_hand(config, seen)
    plain, _ = by_hand(CONFIG, seen)
    ours = network(config)
    *_, trained = train(ours, seen, Exact.drawn(1), config, None)
    assert trained.curves["train/loss"][-1] == pytest.approx(loss, rel=1e-6)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-9, atol=1e-11, msg=name)
    # the recipe counts
    assert not torch.allclose(ours.head.weight, plain.head.weight, rtol=1e-6)


def member(config, folder=None):
    data, parts = load_dataset("fake"), split(load_dataset("fake"), config.split_seed)
    model = build_network(config, num_classes=data.num_classes, mean=data.mean, deviation=data.deviation)
    path = folder / f"{config.seed}.pt" if folder else None
    return Member(model=model, train_split=parts.train, val_split=parts.val, config=config, checkpoint=path)


@pytest.mark.parametrize("changes", [*RECIPES.values(), ALL], ids=[*RECIPES, "all"])
def test_killed_after_an_epoch_it_goes_on_bit_for_bit(changes, tmp_path):
    """Alone; three together; and what was begun alone goes on together."""
    configs = [dataclasses.replace(CONFIG, **changes, seed=seed, epochs=2, batch_size=64) for seed in range(2)]
    whole = member(configs[0])
    list(train_member(whole))
    list(itertools.islice(train_member(member(configs[0], tmp_path)), 1))
    resumed = member(configs[0], tmp_path)
    assert resumed.trained.epoch == 1
    list(train_member(resumed))
    assert_equal(resumed, whole)

    together = [member(config) for config in configs]
    list(train_together(together, Together))
    list(itertools.islice(train_together([member(c, tmp_path / "b") for c in configs], Together), 2))
    again = [member(config, tmp_path / "b") for config in configs]
    assert [one.trained.epoch for one in again] == [1, 1]
    list(train_together(again, Together))
    for one, expected in zip(again, together, strict=True):
        assert_equal(one, expected)
    assert_close(together[0], whole)

    for config in configs:
        list(itertools.islice(train_member(member(config, tmp_path / "c")), 1))
    mixed = [member(config, tmp_path / "c") for config in configs]
    list(train_together(mixed, Together))
    assert_close(mixed[0], whole)


def assert_equal(one, other):
    assert one.trained.curves == other.trained.curves
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


def assert_close(one, other):
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(value, other.model.state_dict()[name], rtol=5e-3, atol=1e-3, msg=name)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": "adam"}, "'optimizer' = 'adam': expected sgd or nesterov or adamw.*did you mean 'adamw'"),
        ({"optimizer": "nesterov", "momentum": 0.0}, "'momentum' = 0.0: expected above 0 with optimizer = 'nesterov'"),
        ({"beta2": 0.9}, "'beta2' = 0.9: expected 0.999 unless optimizer is adamw"),
        ({"optimizer": "adamw", "beta2": 1.0}, "'beta2' = 1.0: expected a number from 0 to below 1"),
        ({"decayed": "none"}, "'decayed' = 'none': expected all or weights"),
        ({"clip_norm": -1.0}, "'clip_norm' = -1.0: expected a finite number of at least 0"),
    ],
)
def test_what_a_recipe_cannot_be(values, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CONFIG, **values)

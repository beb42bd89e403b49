"""Recipes: each is a loop of torch's own parts, step by step; goes on bit for bit; what is bad is refused."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from exact_images import Exact
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.transforms.v2 import MixUp

from study.config import TrialConfig
from study.data import load_dataset, split
from study.data.parts import Together
from study.errors import UserError
from study.models import build_network
from study.seeding import derive_seed
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
    "smoothed": {"label_smoothing": 0.2},
    "mixed": {"mixup": 0.4},
    "averaged": {"ema_decay": 0.8},
    "made each epoch": {"optimizer": "adamw", "lr": 0.01, "optimizer_made": "each_epoch"},
}
ALL = {
    "optimizer": "adamw", "lr": 0.01, "beta2": 0.95, "decayed": "weights", "clip_norm": 0.5, "label_smoothing": 0.1,
    "mixup": 0.4, "ema_decay": 0.8,
}  # fmt: skip


def network(config):
    return build_network(config, num_classes=4, mean=(0.5,), deviation=(0.25,)).double()


def torch_optimizer(model, config):
    weights = [p for p in model.parameters() if config.decayed == "all" or p.dim() > 1]
    others = [p for p in model.parameters() if config.decayed == "weights" and p.dim() <= 1]
    groups = [{"params": weights, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, config.beta2))
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.optimizer == "nesterov")


def by_hand(config, seen, held):
    """A network trained by torch alone, its average, and losses: of the last epoch, and on ``held``."""
    model = network(config).train()
    # torch's AveragedModel with buffers; where there is no decay, the weights
    decay = get_ema_multi_avg_fn(config.ema_decay) if config.ema_decay else None
    average = AveragedModel(model, multi_avg_fn=decay, use_buffers=True) if decay else model
    optimizer, losses = torch_optimizer(model, config), []
    for epoch in range(config.epochs):
        if config.optimizer_made == "each_epoch":
            optimizer = torch_optimizer(model, config)
        losses, shares = [], itertools.repeat(1.0)
        if config.mixup:
            generator = np.random.default_rng(derive_seed(config.seed, "mixup", epoch))
            shares = generator.beta(config.mixup, config.mixup, len(seen) // config.batch_size)
        batches = epoch_order(len(seen), config.seed, epoch).split(config.batch_size)
        for index, share in zip(batches, shares, strict=False):
            pixels, labels = seen.pixels[index], seen.labels[index]
            mixing = MixUp(num_classes=4)
            if config.mixup:
                # transform takes the share that its own draw would give
                pixels = mixing.transform(pixels, {"lam": share, "labels": labels, "batch_size": len(labels)})
            criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
            logits = model(pixels)
            loss = share * criterion(logits, labels) + (1 - share) * criterion(logits, labels.roll(1))
            optimizer.zero_grad()
            loss.backward()
            if config.clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            if config.ema_decay:
                average.update_parameters(model)
            losses.append(float(loss.detach()))
    kept = average.module if config.ema_decay else model
    told = functional.cross_entropy(kept.eval()(held.pixels), held.labels)
    return model, kept, sum(losses) / len(losses), float(told.detach())


@pytest.mark.parametrize("changes", [*RECIPES.values(), ALL], ids=[*RECIPES, "all"])
def test_a_training_is_that_of_torchs_own_parts(changes):
    config = dataclasses.replace(CONFIG, **changes)
    seen, held = (Exact.drawn(seed, num=24, channels=1) for seed in range(2))
    model, kept, loss, val_loss = by_hand(config, seen, held)
    one = Member(model=network(config), train_split=seen, val_split=held, config=config, checkpoint=None)
    list(train_member(one))
    assert one.trained.curves["train/loss"][-1] == pytest.approx(loss, rel=1e-6)
    assert one.trained.curves["val/loss"][-1] == pytest.approx(val_loss, rel=1e-6)
    assert_state(one.model, model)
    one.take_average()
    assert_state(one.model, kept)
    best = one.trained.best
    assert one.trained.best_epoch < 2 or all(torch.equal(best[n], v) for n, v in one.model.state_dict().items())
    # the recipe counts
    _, plain, _, _ = by_hand(CONFIG, seen, held)
    assert not torch.allclose(one.model.head.weight, plain.head.weight, rtol=1e-6)


def assert_state(model, other):
    for name, value in other.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-9, atol=1e-11, msg=name)


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
    assert one.trained.curves == other.trained.curves and one.average.keys() == other.average.keys()
    for name, value in one.average.items():
        assert torch.equal(value, other.average[name]), name
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


def assert_close(one, other):
    assert one.average.keys() == other.average.keys()
    for name, value in one.average.items():
        torch.testing.assert_close(value, other.average[name], rtol=5e-3, atol=1e-3, msg=name)
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
        ({"label_smoothing": 1.0}, "'label_smoothing' = 1.0: expected a number from 0 to below 1"),
        ({"mixup": 1e-9}, "'mixup' = 1e-09: expected 0, or at least 0.001"),
        ({"mixup": 2e3}, "'mixup' = 2000.0: expected at most 1,000"),
        ({"ema_decay": 1.0}, "'ema_decay' = 1.0: expected a number from 0 to below 1"),
        ({"clip_norm": -1.0}, "'clip_norm' = -1.0: expected a finite number of at least 0"),
    ],
)
def test_what_a_recipe_cannot_be(values, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CONFIG, **values)

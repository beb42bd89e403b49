"""Modules that draw anew for each training step: told once before it, from a seed that a resumption repeats."""

import dataclasses
import itertools

import torch
from torch import nn
from trainings import train

from study.config import TrialConfig
from study.data import load_dataset, split
from study.seeding import derive_seed
from study.training.loop import DrawsEachStep

CONFIG = TrialConfig(dataset="fake", depth=8, seed=5, split_seed=2, epochs=3, batch_size=16)
STEPS = 3  # of 48 images


class Noise(nn.Module):
    """Features times a mask, drawn in ``start_step``; whole in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.told, self.mask = [], None

    def start_step(self, seed):
        self.told.append(seed)
        self.mask = (torch.rand(64, generator=torch.Generator().manual_seed(seed)) < 0.5).float()

    def forward(self, x):
        self.told.append("train" if self.training else "eval")
        return x * self.mask if self.training else x


def network(mask=Noise) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), mask(), nn.Linear(64, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=torch.Generator().manual_seed(0)) - 0.5)
    return model


def run(model, config=CONFIG, checkpoint=None, stop_after=None):
    parts = split(load_dataset("fake"), 2)
    *_, event = itertools.islice(train(model, parts.train, parts.val, config, checkpoint), stop_after)
    return event


def test_each_step_is_told_before_it_and_evaluation_is_not():
    model, expected = network(), []
    run(model)
    for epoch in range(3):
        for step in range(STEPS):
            expected += [derive_seed(5, "masks", epoch, step), "train"]
        expected.append("eval")
    assert model[1].told == expected
    assert len({seed for seed in expected if isinstance(seed, int)}) == 9


def test_every_module_that_draws_is_told_and_the_others_are_left_alone():
    model = nn.Sequential(Noise(), nn.Sequential(nn.Flatten(), Noise()), nn.Linear(64, 4))
    assert [isinstance(module, DrawsEachStep) for module in model.modules()] == [False, True, False, False, True, False]
    model[0].forward = lambda x: x  # 8x8 images: its mask does not fit them
    run(model, dataclasses.replace(CONFIG, epochs=1))
    assert [seed for seed in model[1][1].told if isinstance(seed, int)] == model[0].told and len(model[0].told) == STEPS


def test_a_resumed_training_draws_the_same(tmp_path):
    whole, dropped, resumed = network(), network(), network()
    trained = run(whole)
    run(dropped, checkpoint=tmp_path / "state.pt", stop_after=1)
    event = run(resumed, checkpoint=tmp_path / "state.pt")
    assert event.resumed_from == 1 and event.curves == trained.curves
    assert torch.equal(whole[2].weight, resumed[2].weight)
    # the masks matter
    other = network()
    run(other, dataclasses.replace(CONFIG, seed=6))
    assert not torch.equal(whole[2].weight, other[2].weight)

"""The parts of a fused training: the replicates' data side by side, and one optimiser for all."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

import study.data.parts as together_module
from study.data import load_dataset, split
from study.data.parts import Together
from study.registry import AUGMENTATIONS
from study.training.lane import cross_entropies
from study.training.member import LightSGD
from study.training.stack import Stack, StackedSGD


@pytest.mark.parametrize("augment", AUGMENTATIONS.names())
@pytest.mark.parametrize("how", ["ahead", "one by one", "side by side"])
def test_each_replicate_sees_what_it_sees_alone(augment, how, monkeypatch):
    parts = [split(load_dataset("fake"), seed).train for seed in range(3)]
    if how == "side by side":
        monkeypatch.setattr(together_module, "Split", type("Other", (), {}))
    if how == "one by one":
        monkeypatch.setattr(together_module, "AHEAD", 1)
    orders = [torch.randperm(len(parts[0]), generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    found = list(Together(parts).epoch(orders, 7, augment, [5, 6, 7]))
    assert len(found) == len(parts[0]) // 7 and found[0][0].shape == (3, 7, 1, 8, 8)
    for index, (part, order) in enumerate(zip(parts, orders, strict=True)):
        expected = list(part.epoch(order, 7, augment, 5 + index))
        for (pixels, labels), (own, marked) in zip(found, expected, strict=True):
            assert torch.equal(pixels[index], own) and torch.equal(labels[index], marked)


def test_parts_of_different_sizes_are_refused():
    parts = split(load_dataset("fake"), 1)
    with pytest.raises(ValueError, match="one size"):
        Together([parts.train, parts.val])


class Branches(nn.Module):
    """Two layers, of which one is used when asked for."""

    def __init__(self, seed, both):
        super().__init__()
        self.used, self.spare = nn.Linear(3, 2), nn.Linear(3, 2)
        self.both = both
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)

    def forward(self, x):
        return self.used(x) + self.spare(x) if self.both else self.used(x)


@pytest.mark.parametrize("both", [True, False])
def test_stacked_sgd_is_sgd_with_each_replicates_settings(both):
    settings = [(0.1, 0.9, 0.0), (0.3, 0.0, 1e-2), (0.2, 0.5, 1e-3)]
    x, target = torch.randn((2, 3, 5, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(1)).unbind()
    models = [Branches(seed, both) for seed in range(3)]
    optimizers = [
        torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, weight_decay=decay)
        for model, (lr, momentum, decay) in zip(models, settings, strict=True)
    ]
    references = [Branches(seed, both) for seed in range(3)]
    for reference, (lr, momentum, decay), own, wanted in zip(references, settings, x, target, strict=True):
        sgd = torch.optim.SGD(reference.parameters(), lr=lr, momentum=momentum, weight_decay=decay)
        for step in range(4):
            sgd.param_groups[0]["lr"] = lr / (step + 1)
            sgd.zero_grad()
            (reference(own) - wanted[:, :2]).square().mean().backward()
            sgd.step()
    rates = torch.tensor([lr for lr, _, _ in settings], dtype=torch.float64)
    for begin in (0, 2):  # handed back and stacked anew in between
        stack = Stack(models)
        stacked = StackedSGD(stack, optimizers)
        for step in (begin, begin + 1):
            loss = (stack(x, training=True) - target[..., :2]).square().mean((1, 2)).sum()
            gradients = torch.autograd.grad(loss, list(stack.params.values()), allow_unused=True)
            stacked.step(gradients, rates / (step + 1))
        stack.hand_back()
        stacked.hand_back()
    for model, reference in zip(models, references, strict=True):
        for name, value in reference.named_parameters():
            torch.testing.assert_close(model.get_parameter(name), value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_light_sgd_is_torchs_own(momentum):
    """Bit for bit, also when it goes on from the other's state."""
    pairs = []
    for kind in (torch.optim.SGD, LightSGD):
        model = Branches(0, both=True)
        pairs.append((model, kind(model.parameters(), lr=0.1, momentum=momentum, weight_decay=1e-2)))
    x = torch.randn((6, 5, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for step, images in enumerate(x):
        for model, optimizer in pairs:
            optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
            optimizer.zero_grad(set_to_none=True)
            model(images).square().mean().backward()
            optimizer.step()
        if step == 2:
            states = [copy.deepcopy(optimizer.state_dict()) for _, optimizer in pairs]
            for (_, optimizer), held in zip(pairs, reversed(states), strict=True):
                optimizer.load_state_dict(held)
    (theirs, _), (ours, _) = pairs
    for name, value in theirs.named_parameters():
        assert torch.equal(value, ours.get_parameter(name)), name
        assert not torch.equal(value, Branches(0, both=True).get_parameter(name))


def test_a_training_does_not_import_the_compiler():
    """It would take every worker of a study a second."""
    lines = [
        "import sys",
        "from study.config import TrialConfig",
        "from study.data import load_dataset, split",
        "from study.models import build_network",
        "from study.training import Member, train",
        "config = TrialConfig(dataset='digits', merge='add', depth=8, width=4, seed=0, split_seed=0, epochs=1)",
        "held = load_dataset('digits')",
        "model = build_network(config, num_classes=10, mean=held.mean, deviation=held.deviation)",
        "parts = split(held, 0)",
        "one = Member(model=model, train_split=parts.train, val_split=parts.val, config=config, checkpoint=None)",
        "list(train(one))",
        "print(one.trained.epoch, sorted({'torch._dynamo', 'sklearn', 'triton'} & set(sys.modules)))",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout == "1 []\n", done.stderr


def test_cross_entropies_are_each_replicates_own():
    generator = torch.Generator().manual_seed(3)
    logits, labels = torch.randn((3, 5, 4), generator=generator), torch.arange(15).view(3, 5) % 4
    expected = [nn.functional.cross_entropy(logits[index], labels[index]) for index in range(3)]
    torch.testing.assert_close(cross_entropies(logits, labels), torch.stack(expected))

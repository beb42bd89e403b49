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
from study.training.optimizer import LightAdamW, LightSGD
from study.training.stack import Stack
from study.training.stacked import stacked_optimizer


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


# torch's own optimisers by ours: the settings of three replicates (momentum, second beta, decay)
OWN = {
    "sgd": lambda parameters, lr, beta1, beta2, decay: torch.optim.SGD(
        parameters, lr=lr, momentum=beta1, weight_decay=decay
    ),
    "nesterov": lambda parameters, lr, beta1, beta2, decay: torch.optim.SGD(
        parameters, lr=lr, momentum=beta1 or 0.1, weight_decay=decay, nesterov=True
    ),
    "adamw": lambda parameters, lr, beta1, beta2, decay: torch.optim.AdamW(
        parameters, lr=lr, betas=(beta1, beta2), weight_decay=decay
    ),
}
SETTINGS = [(0.1, 0.9, 0.999, 0.0), (0.3, 0.0, 0.9, 1e-2), (0.2, 0.5, 0.99, 1e-3)]


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("clips", [None, (0.1, 0.3, 1e6)])
def test_a_stacked_optimizer_is_torchs_with_each_replicates_settings(kind, both, clips):
    x, target = torch.randn((2, 3, 5, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(1)).unbind()
    models, references = ([Branches(seed, both) for seed in range(3)] for _ in range(2))
    optimizers = [OWN[kind](model.parameters(), *given) for model, given in zip(models, SETTINGS, strict=True)]
    for index, (reference, given) in enumerate(zip(references, SETTINGS, strict=True)):
        theirs = OWN[kind](reference.parameters(), *given)
        for step in range(4):
            theirs.param_groups[0]["lr"] = given[0] / (step + 1)
            theirs.zero_grad()
            (reference(x[index]) - target[index][:, :2]).square().mean().backward()
            if clips:
                nn.utils.clip_grad_norm_(reference.parameters(), clips[index])
            theirs.step()
    for begin in (0, 2):  # handed back and stacked anew in between
        stack = Stack(models)
        stacked = stacked_optimizer(stack, optimizers, clips)
        planned = stacked.plan([[lr / (step + 1) for lr, *_ in SETTINGS] for step in (begin, begin + 1)])
        for given in torch.tensor(planned, dtype=torch.float64):
            loss = (stack(x) - target[..., :2]).square().mean((1, 2)).sum()
            gradients = torch.autograd.grad(loss, list(stack.params.values()), allow_unused=True)
            stacked.step(gradients, given)
        stack.hand_back()
        stacked.hand_back()
    for model, reference in zip(models, references, strict=True):
        for name, value in reference.named_parameters():
            torch.testing.assert_close(model.get_parameter(name), value, rtol=1e-12, atol=1e-12)


LIGHT = [
    (torch.optim.SGD, LightSGD, {"momentum": 0.0}),
    (torch.optim.SGD, LightSGD, {"momentum": 0.9}),
    (torch.optim.SGD, LightSGD, {"momentum": 0.9, "nesterov": True}),
    (torch.optim.AdamW, LightAdamW, {"betas": (0.8, 0.99)}),
]


@pytest.mark.parametrize(("theirs", "ours", "settings"), LIGHT)
def test_a_light_optimizer_is_torchs_own(theirs, ours, settings):
    """Bit for bit, also when it goes on from the other's state."""
    pairs = []
    for kind in (theirs, ours):
        model = Branches(0, both=True)
        pairs.append((model, kind(model.parameters(), lr=0.1, weight_decay=1e-2, **settings)))
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


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_neither_training_nor_counting_imports_the_compiler(optimizer):
    """It would take every worker of a study a second."""
    lines = [
        "import sys",
        "from study.config import TrialConfig",
        "from study.data import load_dataset, split",
        "from study.models import build_network, num_flops",
        "from study.training import Member, train",
        f"config = TrialConfig(dataset='digits', depth=8, width=4, seed=0, split_seed=0, epochs=1, optimizer={optimizer!r})",
        "held = load_dataset('digits')",
        "model = build_network(config, num_classes=10, mean=held.mean, deviation=held.deviation)",
        "parts = split(held, 0)",
        "one = Member(model=model, train_split=parts.train, val_split=parts.val, config=config, checkpoint=None)",
        "list(train(one))",
        "print(one.trained.epoch, sorted({'torch._dynamo', 'sklearn', 'triton'} & set(sys.modules)))",
        "print(num_flops(model, held.image_shape) > 0, 'torch._dynamo' in sys.modules)",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout == "1 []\nTrue False\n", done.stderr


def test_cross_entropies_are_each_replicates_own():
    generator = torch.Generator().manual_seed(3)
    logits, labels = torch.randn((3, 5, 4), generator=generator), torch.arange(15).view(3, 5) % 4
    expected = [nn.functional.cross_entropy(logits[index], labels[index]) for index in range(3)]
    torch.testing.assert_close(cross_entropies(logits, labels), torch.stack(expected))

"""Re-estimated on the images of training, statistics are those that training came to: all levels, and plug-ins' own."""

import copy

import pytest
import torch
from operators import MATCHED, PLAIN
from torch import nn
from torch.nn import functional

from study.config import TrialConfig
from study.errors import UserError
from study.models import build_network
from study.plugins import check_merge
from study.registry import ATTENTION_FORMS, ATTENTIONS, MERGES, NETWORKS
from study.smoothness import reestimated_batchnorm
from study.smoothness.batchnorm import not_reestimated

PAIRS = [(a, form) for a in ATTENTIONS.names() for form in ATTENTION_FORMS.names() if "none" not in (a, form)]
# as dropout does, noise has other values in training: there, statistics are those of the network that is evaluated
OPERATORS = [MERGES[name] for name in PLAIN + MATCHED if name != "noise_gate"]
VARIANTS = [{"merge": entry.name} for entry in OPERATORS]
VARIANTS += [{"merge": entry.name, "merge_site": "branch"} for entry in OPERATORS if "matches" not in entry.traits]
VARIANTS += [{"attention": a, "attention_form": form} for a, form in PAIRS]


def network(variant, name="cifar_resnet") -> nn.Module:
    depth, width = NETWORKS[name].traits["smallest_depth"], 1 if "wrn" in name else 4
    config = TrialConfig(dataset="fake", network=name, depth=depth, width=width, seed=3, split_seed=0, **variant)
    model = build_network(config, num_classes=4, mean=(0.5,), deviation=(0.3,))
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():  # off the start, where gates are zero
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def images(side, num=6):
    return torch.rand(num, 1, side, side, generator=torch.Generator().manual_seed(1))


def floats(model):
    return {name: buffer.clone() for name, buffer in model.named_buffers() if buffer.is_floating_point()}


@torch.no_grad()
def assert_reestimated_as_trained(model, x) -> None:
    """Trained to the end on one batch, here in two passes: with a momentum of 1 the last batch alone counts."""
    momenta = {module: module.momentum for module in model.modules() if getattr(module, "momentum", None) is not None}
    for module in momenta:
        module.momentum = 1.0
    model.train()
    for _ in range(2):
        model(x)
    for module, momentum in momenta.items():
        module.momentum = momentum
    trained, direct = floats(model), model.eval()(x)
    with reestimated_batchnorm(model, x, len(x)):
        for name, value in floats(model).items():
            torch.testing.assert_close(value, trained[name], rtol=1e-4, atol=1e-5, msg=name)
        torch.testing.assert_close(model(x), direct, rtol=1e-3, atol=1e-4)
    after = floats(model)
    assert all(torch.equal(after[name], value) for name, value in trained.items())


@pytest.mark.parametrize("name", NETWORKS.names())
def test_every_level_in_every_network(name):
    x = images(32 if name == "imagenet_resnet" else 8)
    # attention is in the blocks of authors_wrn what it is in those of wrn
    for variant in VARIANTS[: -len(PAIRS)] if name == "authors_wrn" else VARIANTS:
        assert_reestimated_as_trained(network(variant, name), x)


@pytest.mark.parametrize("attention", ["se", "sk"])
def test_the_additive_twin_is_measured_as_it_was_trained(attention):
    """Trained by gradients, then passed to convergence: the deviation that weighs u is the trained one, far from 1."""
    model, x, y = network({"attention": attention, "attention_form": "add"}).train(), images(8), torch.arange(6) % 4
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        for _ in range(200):
            model(x)
        trained, direct = floats(model), model.eval()(x)
        with reestimated_batchnorm(model, x, len(x)):
            got, logits = floats(model), model(x)
    deviations = [name for name in trained if name.endswith("attention.statistics.running_var")]
    assert len(deviations) == 3
    for name in deviations:
        assert (trained[name] - 1).abs().max() > 0.1
        torch.testing.assert_close(got[name], trained[name], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        one = copy.deepcopy(model)
        for module in one.modules():
            if hasattr(module, "statistics"):
                module.statistics.reset_running_stats()
        wrong = (one(x) - direct).norm()
    assert (logits - direct).norm() < 0.01 * wrong


# --- plug-ins ---------------------------------------------------------------------------------------------------------


class Scale(nn.Module):
    """A running root mean square, as the protocol asks."""

    def __init__(self, channels=4):
        super().__init__()
        self.momentum = 0.1
        self.register_buffer("square", torch.ones(channels))

    def reset_running_stats(self):
        self.square.fill_(1.0)

    def forward(self, x):
        if self.training:
            self.square.lerp_(x.detach().square().mean((0, 2, 3)), self.momentum)
        return x / (self.square + 1e-5).sqrt().view(1, -1, 1, 1)


class WithoutProtocol(nn.Module):
    """A running mean that nobody can reset."""

    def __init__(self, channels=4):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))

    def forward(self, x):
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * x.detach().mean((0, 2, 3))
        return x - self.mean.view(1, -1, 1, 1)


class GatedByItsParent(nn.Module):
    """A batch norm that is only asked while the module around it trains."""

    def __init__(self, channels=4):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)

    def forward(self, x):
        if self.training:
            self.norm(x.detach())
        return x / (self.norm.running_var.clone() + 1e-5).sqrt().view(1, -1, 1, 1)


class Frozen(nn.BatchNorm2d):
    """Always in evaluation mode."""

    def train(self, mode=True):
        return super().train(False)


class Kept(nn.BatchNorm2d):
    """Another convention: the momentum is the share of what was."""

    def forward(self, x):
        if self.training:
            self.running_mean.mul_(self.momentum).add_((1 - self.momentum) * x.detach().mean((0, 2, 3)))
        return x - self.running_mean.view(1, -1, 1, 1)


class Subclass(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(2 * x)


OWN = {
    "batch norm": lambda: nn.BatchNorm2d(4),
    "a subclass of it": lambda: Subclass(4),
    "instance norm": lambda: nn.InstanceNorm2d(4, track_running_stats=True),
    "by the protocol": Scale,
    "without the protocol": WithoutProtocol,
    "gated by its parent": GatedByItsParent,
    "frozen": lambda: Frozen(4),
    "of no statistics": lambda: nn.BatchNorm2d(4, track_running_stats=False),
}
NOT_SET = {"without the protocol": ["1.mean"], "gated by its parent": ["1.norm.running_mean", "1.norm.running_var"]}


def with_part(part):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        part,
        nn.ReLU(),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


@pytest.mark.parametrize("own", OWN)
def test_a_module_of_ones_own_is_measured_as_it_was_trained(own):
    model, x = with_part(OWN[own]()), images(8)
    with torch.no_grad():
        for _ in range(150):
            model.train()(x)
        direct = model.eval()(x)
        with reestimated_batchnorm(model, x, len(x)):
            torch.testing.assert_close(model(x), direct, rtol=1e-3, atol=1e-4)
    assert not_reestimated(model, x, x.square()) == NOT_SET.get(own, [])


def test_statistics_that_cannot_be_set_are_kept_and_others_are_estimated_beside_them():
    model, x = with_part(Kept(4)), images(8)
    with torch.no_grad():
        model.train()(x)
        before = floats(model)
        with reestimated_batchnorm(model, x, 3):
            assert torch.equal(model[1].running_mean, before["1.running_mean"])
            assert not torch.equal(model[3].running_mean, before["3.running_mean"])


def test_what_does_not_depend_on_images_is_no_running_statistic():
    model = with_part(nn.Identity())
    nn.utils.parametrizations.spectral_norm(model[4])
    model[5].register_buffer("calls", torch.zeros(()))
    model[5].register_forward_hook(lambda module, given, output: module.calls.add_(1) and None)
    state = torch.get_rng_state()
    assert not_reestimated(model, images(8), 1 - images(8)) == []
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("own", OWN)
def test_a_plugins_own_test_finds_statistics_that_are_not_reestimated(own):
    class Merged(nn.Module):
        def __init__(self, channels):
            super().__init__()
            part = OWN[own]()
            self.part, self.few = part, 4

        def forward(self, x, f):
            return x + torch.cat([self.part(f[:, : self.few]), f[:, self.few :]], 1)

    MERGES.register("own_part", formula="", source="")(Merged)
    if own not in NOT_SET:
        check_merge("own_part")
        return
    with pytest.raises(UserError, match=r"merge 'own_part': .*'part\..*reset_running_stats.*momentum"):
        check_merge("own_part")

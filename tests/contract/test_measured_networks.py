"""Every statistic on networks that are written in other ways: layers of two names, tied tensors, scaled-dot-product attention.

What is measured is the function, so another way to write it down gives the same numbers; and the network is left as it was.
"""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from toys import SMALL, assert_same, conv_context, drawn, gated_net, gen, images, run, snapshot

from analysis.claims.advice import MORE
from study.errors import UserError
from study.plugins import check_attention, check_merge
from study.registry import ATTENTIONS, MERGES, STATISTICS
from study.smoothness.clamped import gated_modules
from study.smoothness.untouched import places_of_weights, untouched, with_weights
from study.training.stack import Stack

ALL = STATISTICS.names()


class TwoNames(nn.Module):
    """The layers of ``gated_net``, and the first ones under names of their own as well."""

    def __init__(self):
        super().__init__()
        layers = gated_net()
        self.conv1, self.bn1 = layers[0], layers[1]
        self.layers = layers

    def forward(self, x):
        return self.layers(x)


class Tied(nn.Module):
    """One weight in two layers: each a place of its own, the second transposed in use."""

    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Linear(49, 6, bias=False), nn.Linear(49, 6, bias=False)
        self.decode.weight = self.encode.weight
        self.out = nn.Linear(49, 3)
        drawn(self)
        with torch.no_grad():
            self.encode.weight.mul_(0.2)

    def forward(self, x):
        hidden = functional.linear(x.flatten(1), self.encode.weight).relu()
        return self.out(hidden @ self.decode.weight)


class Untied(Tied):
    """The same function with one name for the weight."""

    def __init__(self):
        super().__init__()
        del self.decode

    def forward(self, x):
        hidden = functional.linear(x.flatten(1), self.encode.weight).relu()
        return self.out(hidden @ self.encode.weight)


class Attended(nn.Module):
    """Scaled-dot-product attention between the rows of an image."""

    def __init__(self):
        super().__init__()
        self.project, self.head = nn.Linear(7, 24), nn.Linear(8, 3)
        drawn(self)

    def forward(self, x):
        query, key, value = self.project(x[:, 0]).chunk(3, -1)
        attended = functional.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])
        return self.head(attended[:, 0].relu().mean(1))


class ByHand(Attended):
    def forward(self, x):
        query, key, value = self.project(x[:, 0]).chunk(3, -1)
        attended = (query @ key.mT / 8**0.5).softmax(-1) @ value
        return self.head(attended.relu().mean(1))


PLAIN = {"two names": (TwoNames, gated_net), "tied": (Tied, Untied), "attended": (Attended, ByHand)}


@pytest.mark.parametrize("pair", PLAIN)
@pytest.mark.parametrize("name", ALL)
def test_a_network_has_the_same_numbers_however_it_is_written_and_is_left_as_it_was(name, pair):
    found = []
    for make in PLAIN[pair]:
        net = make().train()
        functional.cross_entropy(net(images(4)), torch.tensor([0, 1, 2, 0])).backward()
        before = snapshot(net)
        places = {place: net.get_parameter(place) for place in dict(net.named_parameters(remove_duplicate=False))}
        found.append(run(name, conv_context(net, images(12)), **SMALL[name]))
        assert_same(before, snapshot(net))
        assert all(net.get_parameter(place) is value for place, value in places.items())
    if name == "loss_slices" and pair == "two names":
        return  # a direction goes by a weight's first name, which is another one here
    assert found[0].keys() == found[1].keys()
    for key, value in found[0].items():
        assert value.value == pytest.approx(found[1][key].value, rel=1e-3, abs=1e-5, nan_ok=True), key


def test_weights_take_effect_in_all_their_places_and_go():
    for make in (TwoNames, Tied):
        net = make()
        weights = {name: 1.5 * value.detach() for name, value in net.named_parameters()}
        assert list(weights) == list(places_of_weights(net))
        changed = copy.deepcopy(net)
        with torch.no_grad():
            for name, value in changed.named_parameters():
                value.copy_(weights[name])
        before = snapshot(net)
        torch.testing.assert_close(with_weights(net, weights, images(4)), changed(images(4)))
        with pytest.raises(RuntimeError):
            with_weights(net, weights, torch.rand(4, 1, 2, 2, generator=gen()))
        assert_same(before, snapshot(net))


def test_whatever_is_done_to_a_network_is_undone():
    net = TwoNames().train()
    net(images(4)).sum().backward()
    before, first = snapshot(net), net.conv1.weight
    with pytest.raises(KeyError), untouched(net):
        for parameter in net.parameters():
            parameter.data.mul_(3)
            parameter.requires_grad_(False)
            parameter.grad = None
        net.bn1.running_mean.add_(1)
        net.bn1.running_var = torch.full((6,), 7.0)
        net.eval()
        net.conv1.weight = nn.Parameter(torch.zeros_like(first))
        raise KeyError
    assert_same(before, snapshot(net))
    assert net.conv1.weight is first is net.layers[0].weight


def test_a_gate_of_two_names_is_one_layer():
    net = gated_net()
    net.looks = net[3].gate
    net.attention = net[3]
    assert list(gated_modules(net)) == ["3"] and gated_modules(net)["3"] == (net[3], net[3].gate)
    gate_first = nn.Module()
    gate_first.looks, gate_first.block = net[3].gate, net[3]
    assert list(gated_modules(gate_first)) == ["block"]


def test_networks_that_train_as_one_may_have_layers_of_two_names():
    models = [TwoNames().train(), TwoNames().train()]
    for parameter in models[1].parameters():
        parameter.data.mul_(0.5)
    stack, x = Stack(models), torch.stack([images(4), images(4, seed=1)])
    expected = [copy.deepcopy(model)(x[index]) for index, model in enumerate(models)]
    for _ in range(2):
        got = stack(x)
        torch.testing.assert_close(got, torch.stack(expected), rtol=1e-4, atol=1e-5)
        gradients = stack.gradients(got.square().sum())
        assert len(gradients) == len(list(models[0].parameters()))
        assert all(gradient is not None and gradient.shape[0] == 2 for gradient in gradients)


def test_the_checks_of_plugins_look_for_it():
    from study.models.attention.gates import Gate

    class Named(Gate):
        """Its layer has two names."""

        last = ("fc",)

        def __init__(self, channels):
            super().__init__()
            self.fc = nn.Conv2d(channels, channels, 1)
            self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(1), self.fc)

        def forward(self, x):
            return self.layers(x).sigmoid()

    class Aside(nn.Module):
        """It keeps its weight outside its parameters too, and uses that one."""

        def __init__(self, channels):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(channels, 1, 1))
            self.aside = [self.scale]

        def forward(self, x, f):
            return x + self.aside[0] * f

    ATTENTIONS.register("named", formula="", source="")(Named)
    MERGES.register("aside", formula="", source="")(Aside)
    check_attention("named")
    with pytest.raises(UserError, match="merge 'aside': does not follow weights that are put in the place of its own"):
        check_merge("aside")


def test_what_makes_an_estimate_converge_is_a_setting_of_its_statistic():
    """The advice that claims give names it; a statistic of a user's own has none."""
    ours = {name for name in ALL if STATISTICS[name].build.__module__.startswith("study.")}
    assert set(MORE) == ours
    for name, setting in MORE.items():
        assert setting in STATISTICS[name].traits["settings"].__dataclass_fields__, name

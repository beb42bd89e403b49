"""Settings of smoothness statistics, and what every registered statistic must keep to."""

import copy
import json
import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from toys import conv_context as context
from toys import conv_net, gen, images

from study.config import measure_key
from study.errors import UserError
from study.registry import STATISTICS
from study.smoothness import IncompleteError, estimate_names, measure, parse_settings, settings_in_key
from study.smoothness.context import exact_evaluation

BUILT_IN = ("input_jacobian", "noise_stability", "path")
SMALL = {
    "decision_regions": {"num_planes": 2, "num_points": 5},
    "hessian": {"num_samples": 20, "split": "test", "num_probes": 2, "num_steps": 4},
    "input_jacobian": {"num_samples": 20},
    "loss_slices": {"num_samples": 20, "split": "test", "num_directions": 2, "num_points": 3, "num_square": 3},
    "noise_stability": {"num_samples": 20, "sigmas": [4, 16], "num_draws": 2},
    "path": {"num_pairs": 20, "num_steps": 8},
    "path_picture": {"num_pairs": 3, "num_steps": 4},
}


def snapshot(net: nn.Module) -> tuple:
    grads = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    modes = [m.training for m in net.modules()]
    momenta = [m.momentum for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    return copy.deepcopy(net.state_dict()), grads, modes, momenta


def assert_same(a: tuple, b: tuple) -> None:
    assert all(torch.equal(a[0][k], b[0][k]) for k in a[0])
    assert all((g is None and h is None) or torch.equal(g, h) for g, h in zip(a[1], b[1], strict=True))
    assert a[2:] == b[2:]


def trained_a_little() -> nn.Module:
    net = conv_net().train()
    net[5].eval()  # a frozen part keeps its own mode
    net[4].momentum = None
    net[0](images()).sum().backward()  # only some parameters have gradients
    net[1](net[0](images(seed=3)))
    return net


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mapping", "message"),
    [
        ("pth", {}, "unknown statistic 'pth' .did you mean 'path'"),
        ("path", {"num_pair": 3}, "unknown setting 'num_pair' .did you mean 'num_pairs'"),
        ("path", {"num_pairs": 0}, "'num_pairs' must be a positive whole number, not 0"),
        ("path", {"num_pairs": 2.0}, "'num_pairs' must be a positive whole number, not 2.0"),
        ("path", {"num_pairs": True}, "'num_pairs' must be a positive whole number, not True"),
        ("path", {"num_steps": 1}, "'num_steps' must be 2 or more, not 1"),
        ("path", {"split": "tests"}, "unknown split 'tests' .did you mean 'test'"),
        ("noise_stability", {"split": 3}, "'split' must be a name, not 3"),
        ("noise_stability", {"sigmas": 4}, "'sigmas' must be a list of one value or more, not 4"),
        ("noise_stability", {"sigmas": []}, "'sigmas' must be a list"),
        ("noise_stability", {"sigmas": [4, -1]}, "'sigmas' must be a positive number, not -1"),
        ("noise_stability", {"sigmas": [math.nan]}, "'sigmas' must be a positive number, not nan"),
        ("noise_stability", {"sigmas": [4, 4.0]}, "'sigmas' holds a value twice"),
    ],
)
def test_bad_settings_are_named(name, mapping, message) -> None:
    with pytest.raises(UserError, match=message):
        parse_settings(name, mapping)


def test_key_holds_only_what_differs_from_the_defaults() -> None:
    assert settings_in_key("path", {}) == settings_in_key("path", {"num_pairs": 1000, "split": "test"}) == {}
    assert settings_in_key("path", {"num_pairs": 256, "num_steps": 32}) == {"num_pairs": 256}
    settings = settings_in_key("noise_stability", {"sigmas": [4, 16], "num_draws": 2})
    assert settings == settings_in_key("noise_stability", {"sigmas": [4.0, 16], "num_draws": 2})
    assert json.loads(json.dumps(settings)) == {"sigmas": [4.0, 16.0], "num_draws": 2}
    assert measure_key("t", "noise_stability", settings) != measure_key("t", "noise_stability", {})


def test_co_primaries_have_their_names() -> None:
    assert "jacobian_unit_logits_mean_log" in estimate_names("input_jacobian", parse_settings("input_jacobian", {}))
    assert "path_different_excess_variation_log" in estimate_names("path", parse_settings("path", {}))


# --- what every statistic keeps to ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STATISTICS.names())
def test_statistic_leaves_everything_as_found_and_gives_the_names_it_told(name: str) -> None:
    net, x = trained_a_little(), images()
    before = snapshot(net)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    flags = torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    settings = parse_settings(name, SMALL.get(name, {}))
    with torch.no_grad():
        estimates = measure(name, settings, context(net, x))
    assert_same(before, snapshot(net))
    assert not x.requires_grad
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2][1])  # noqa: NPY002
    assert (torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision) == flags
    # a statistic for some networks only has nothing to say of this one
    told = [] if "only" in STATISTICS[name].traits else estimate_names(name, settings)
    assert sorted(estimates) == sorted(told)
    assert measure(name, settings, context(net, x)) == estimates


@pytest.mark.parametrize("name", STATISTICS.names())
def test_statistic_documents_itself(name: str) -> None:
    entry = STATISTICS[name]
    assert entry.formula
    assert entry.source.startswith("https://")
    assert entry.build.__doc__


@pytest.mark.parametrize("name", BUILT_IN)
def test_fewer_images_than_asked_are_told(name: str) -> None:
    estimates = measure(name, parse_settings(name, {}), context(conv_net(), images(6)))  # three classes of two
    counts = {n: e.num_samples for n, e in estimates.items()}
    expected = {n: 6 if name != "path" else 3 if "same" in n else 12 for n in counts}
    assert counts == expected


@pytest.mark.parametrize("name", BUILT_IN)
def test_outputs_that_are_not_finite_are_refused(name: str) -> None:
    net = conv_net()
    with torch.no_grad():
        net[-1].bias[0] = math.nan
    with pytest.raises(UserError, match="not finite"):
        measure(name, parse_settings(name, SMALL[name]), context(net, images()))
    with pytest.raises(UserError, match=r"shape \(8, 3\), not \(N, 4\)"):
        measure(name, parse_settings(name, SMALL[name]), context(conv_net(), images(), num_classes=4))


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_network_that_mixes_its_batch_is_refused(name: str) -> None:
    class Mixed(nn.Module):
        def __init__(self, mix):
            super().__init__()
            self.net, self.mix = conv_net(), mix

        def forward(self, x):
            z = self.net(x)
            return z * torch.sigmoid(self.mix(z))

    by_place = lambda z: torch.arange(len(z))[:, None].to(z)  # noqa: E731
    for mix in (lambda z: z.roll(1, 0), lambda z: z.flip(0), by_place):
        with pytest.raises(UserError, match="rest of its batch"):
            measure(name, parse_settings(name, SMALL[name]), context(Mixed(mix), images()))
    measure(name, parse_settings(name, SMALL[name]), context(Mixed(lambda z: z), images()))


def test_one_class_only_gives_the_same_class_half_and_the_reason() -> None:
    settings = parse_settings("path", SMALL["path"])
    with pytest.raises(IncompleteError, match=r"split 'test' \(6 images\) has no different-class pair") as caught:
        measure("path", settings, context(conv_net(), images(6), torch.zeros(6, dtype=torch.long)))
    assert caught.value.estimates.keys() == {n for n in estimate_names("path", settings) if "same" in n}
    with pytest.raises(UserError, match="no same-class and no different-class pair"):
        measure("path", settings, context(conv_net(), images(1)))


@pytest.mark.parametrize("name", BUILT_IN)
def test_out_of_memory_halves_the_chunk(name: str) -> None:
    class Small(nn.Module):
        def __init__(self, room):
            super().__init__()
            self.net, self.room = conv_net(), room

        def forward(self, x):
            if len(x) > self.room:
                raise torch.OutOfMemoryError("no room")
            return self.net(x)

    settings = parse_settings(name, SMALL[name])
    tight, plain = (measure(name, settings, context(n, images())) for n in (Small(3), conv_net()))
    for key, value in plain.items():
        assert tight[key].value == pytest.approx(value.value, rel=1e-3, abs=1e-5), key
    with pytest.raises(torch.OutOfMemoryError):
        measure(name, settings, context(Small(0), images()))
    with pytest.raises(RuntimeError, match="size"):  # another error is not retried
        measure(name, settings, context(conv_net(), torch.rand(9, 1, 2, 2, generator=gen())))


def test_exact_evaluation_restores_settings_after_an_error() -> None:
    net = trained_a_little()
    before = snapshot(net)
    with pytest.raises(KeyError), exact_evaluation(net):
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
        raise KeyError
    assert torch.backends.cudnn.conv.fp32_precision != "ieee"
    assert_same(before, snapshot(net))

"""Settings of smoothness statistics, and what every registered statistic must keep to."""

import dataclasses
import inspect
import json
import math
import random
import re

import numpy as np
import pytest
import torch
from torch import nn
from toys import SMALL, assert_same, conv_net, gated_net, images, snapshot
from toys import conv_context as context

from study.config import measure_key
from study.errors import UserError
from study.registry import STATISTICS
from study.smoothness import estimate_names, measure, parse_settings, settings_in_key
from study.smoothness.context import exact_evaluation


def trained_a_little() -> nn.Module:
    net = conv_net().train()
    net[5].eval()  # a frozen part keeps its own mode
    net[4].momentum = None
    net[0](images()).sum().backward()  # only some parameters have gradients
    net[1](net[0](images(seed=3)))
    return net


# --- settings ---------------------------------------------------------------------------------------------------------

# Measure keys hold what differs from the defaults: another default would give old measurements a new meaning.
DEFAULTS = {
    "adaptive_sharpness": {
        "num_samples": 256,
        "split": "train",
        "norm": "linf",
        "rhos": (0.002, 0.008),
        "num_steps": 20,
        "average_rhos": (0.05, 0.2),
        "num_draws": 10,
        "tolerance": 0.05,
    },
    "attention_importance": {
        "num_samples": 256,
        "num_halves": 100,  # with revision 3
        "num_shuffles": 100,
        "split": "test",
        "gates": ("gate",),
    },
    "attention_shapley": {"num_samples": 32, "num_orders": 32, "split": "test", "gates": ("gate",)},
    "decision_regions": {"num_planes": 20, "num_points": 40, "margin": 0.1, "draw": 1, "split": "test"},
    "frequency": {"num_pairs": 1000, "num_steps": 32, "split": "test", "above": (1, 2, 4, 8), "tolerance": 0.05},
    "hessian": {
        "num_samples": 256,
        "split": "train",
        "num_probes": 5,
        "num_steps": 20,
        "max_steps": 100,
        "tolerance": 0.01,
    },
    "input_curvature": {"num_samples": 512, "split": "test", "steps": (0.1, 0.5, 1.0)},
    "input_jacobian": {"num_samples": 256, "split": "test"},
    "linear_regions": {
        "num_pairs": 128,
        "num_samples": 128,
        "num_steps": 32,
        "sigmas": (4.0, 16.0),
        "tolerance": 0.1,
        "split": "test",
    },
    "local_lipschitz": {"num_samples": 64, "split": "test", "max_iterations": 100, "tolerance": 0.001},
    "loss_slices": {
        "num_samples": 256,
        "split": "train",
        "num_directions": 5,
        "num_points": 21,
        "num_square": 15,
        "radius": 1.0,
    },
    "noise_accuracy": {"num_samples": 1024, "split": "test", "sigmas": (8.0, 16.0, 32.0, 64.0), "num_draws": 4},
    "noise_stability": {"num_samples": 1024, "split": "test", "sigmas": (1.0, 4.0, 16.0, 64.0), "num_draws": 4},
    "path": {"num_pairs": 1000, "num_steps": 32, "split": "test"},
    "path_picture": {"num_pairs": 8, "num_steps": 64, "draw": 1, "split": "test"},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_frozen(name):
    assert dataclasses.asdict(STATISTICS[name].traits["settings"]()) == DEFAULTS[name]


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
        ("noise_accuracy", {"sigmas": [0, 8]}, "'sigmas' must be a positive number, not 0"),
        ("noise_accuracy", {"sigmas": [8, 8]}, "'sigmas' holds a value twice"),
        ("frequency", {"above": [2, 2]}, "'above' holds a value twice"),
        ("frequency", {"above": [1.5]}, "'above' must be a positive whole number, not 1.5"),
        ("frequency", {"num_steps": 33}, "'num_steps' must be even, not 33"),
        ("frequency", {"num_steps": 16}, r"'num_steps' must be more than twice the largest of 'above' .8., not 16"),
        ("frequency", {"above": [3, 16]}, r"'num_steps' must be more than twice the largest of 'above' .16., not 32"),
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
    # formula and source in the module's docstring, the rest in the function's
    module, own = inspect.getdoc(inspect.getmodule(entry.build)), inspect.getdoc(entry.build)
    assert module.splitlines()[-1] == f"Source: {entry.source}"
    for word in ("Units|nats|number of|probability", "Cost", "[Ss]tandard error|over pairs", "Raises"):
        assert re.search(word, own), word


def test_exact_evaluation_restores_settings_after_an_error() -> None:
    # torch's default; a worker that a test ran in this process has set another for good
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    net = trained_a_little()
    before = snapshot(net)
    with pytest.raises(KeyError), exact_evaluation(net):
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
        raise KeyError
    assert torch.backends.cudnn.conv.fp32_precision != "ieee"
    assert_same(before, snapshot(net))


@pytest.mark.parametrize("name", STATISTICS.names())
def test_what_the_temperature_changes_is_what_an_unfitted_one_leaves_unconverged(name: str) -> None:
    """A network's logits are scaled by the temperature in some estimates; those, and no others, depend on its fit."""
    net, x, settings = gated_net(), images(), parse_settings(name, SMALL.get(name, {}))
    fitted, hotter = (measure(name, settings, context(net, x, temperature=t)) for t in (1.5, 3.0))
    unfitted = measure(name, settings, context(net, x, temperature_converged=False))
    same = {key: value.value == pytest.approx(hotter[key].value, nan_ok=True) for key, value in fitted.items()}
    for key, value in fitted.items():
        if value.converged and value.value:  # zero stays zero on any scale
            assert unfitted[key].converged == same[key], key
        assert unfitted[key].value == pytest.approx(value.value, nan_ok=True), key

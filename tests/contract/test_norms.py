"""Norms and activations in the place of batch norm and ReLU: in every network, operator and gate, with equal parameters."""

import dataclasses
import math

import pytest
import torch
from operators import PLAIN
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from study.config import TrialConfig
from study.errors import UserError
from study.models import build_network, num_flops, num_params
from study.models.norms import ClampedBatchNorm2d, RunningMoments, ScaleShift, replace_norms
from study.registry import ATTENTION_FORMS, ATTENTIONS, MERGES, NETWORKS
from study.smoothness import reestimated_batchnorm

CONFIG = TrialConfig(dataset="fake", depth=8, width=4, seed=1, split_seed=2)
NORMS = ["group", "layer", "none"]
BUILT = [
    {"network": e.name, "depth": e.traits["smallest_depth"], "width": 1 if "wrn" in e.name else 4}
    for e in NETWORKS
    if e.traits.get("activation")
]
# at the branch, operators that make its norm themselves, and one whose norm it replaces
BRANCH = [name for name in PLAIN if hasattr(MERGES[name].build(4), "row")] + ["mul_bn"]
MERGED = [{"merge": name} for name in PLAIN] + [{"merge": name, "merge_site": "branch"} for name in BRANCH]
ATTENDED = [
    {"attention": attention, "attention_form": form}
    for attention in ATTENTIONS.names()
    for form in ATTENTION_FORMS.names()
    if (attention == "none") == (form == "none")
]


def built(**changes):
    return build_network(dataclasses.replace(CONFIG, **changes), num_classes=4, mean=(0.5,), deviation=(0.25,))


def images(num=4, seed=1):
    return torch.rand((num, 1, 16, 16), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("levels", BUILT + MERGED + ATTENDED, ids=lambda levels: "-".join(map(str, levels.values())))
def test_every_level_has_the_norm_that_is_asked_for_and_the_parameters_of_batch_norm(levels):
    batch = built(**levels)
    own = [module for module in batch.modules() if type(module) in (nn.BatchNorm2d, ClampedBatchNorm2d)]
    for norm, kind in (("group", nn.GroupNorm), ("layer", nn.GroupNorm), ("none", ScaleShift)):
        other = built(**levels, norm=norm)
        assert sum(type(module) is kind for module in other.modules()) == len(own)
        left = [module for module in other.modules() if isinstance(module, nn.BatchNorm2d)]
        assert all(type(module) is RunningMoments for module in left)
        # equal wherever two networks share a name; a clamped shift is the same constant
        for names in ("named_parameters", "named_buffers"):
            ours = {n: v for n, v in getattr(other, names)() if "running_" not in n and "num_batches" not in n}
            theirs = {n: v for n, v in getattr(batch, names)() if "running_" not in n and "num_batches" not in n}
            assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)
        assert num_params(other) == num_params(batch)
        x = images().requires_grad_()
        out = other.train()(x)
        (gradient,) = torch.autograd.grad(out.square().sum(), x)
        assert out.shape == (4, 4) and (norm == "none" or (out.isfinite().all() and gradient.isfinite().all()))
        state = {name: value.clone() for name, value in other.state_dict().items()}
        built(**levels, norm=norm, seed=2).load_state_dict(state)


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(1, 1), (8, 1), (16, 1), (24, 1), (32, 2), (34, 2), (37, 1), (64, 4), (512, 32), (2048, 128)],
)
def test_group_and_layer_norm_are_those_of_the_paper(channels, groups):
    """By hand: mean and biased variance over the positions and channels of a group, of each image by itself."""
    x = torch.randn((3, channels, 5, 4), dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3 + 1
    for norm, num in (("group", groups), ("layer", 1)):
        model = nn.Sequential(nn.BatchNorm2d(channels)).double()
        nn.init.normal_(model[0].weight, generator=torch.Generator().manual_seed(1))
        nn.init.normal_(model[0].bias, generator=torch.Generator().manual_seed(2))
        weight, bias = (value.detach().view(1, -1, 1, 1) for value in (model[0].weight, model[0].bias))
        replace_norms(model, norm)
        parts = x.view(3, num, -1)
        scaled = (parts - parts.mean(2, keepdim=True)) / (parts.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(model(x), scaled.view_as(x) * weight + bias, rtol=1e-10, atol=1e-10)
    model = nn.Sequential(nn.BatchNorm2d(channels)).double()
    model[0].weight.data, model[0].bias.data = weight.flatten(), bias.flatten()
    replace_norms(model, "none")
    torch.testing.assert_close(model(x), x * weight + bias)


def test_constants_of_a_form_stay_constants():
    for norm in NORMS:
        merge = built(merge="authors_22", norm=norm).stages[0][0].merge
        assert merge.bn_x.bias.eq(1).all() and not isinstance(merge.bn_x.bias, nn.Parameter)
        assert isinstance(merge.bn_x.weight, nn.Parameter) and "bn_x.bias" not in merge.state_dict()


def test_a_module_of_two_names_is_replaced_once():
    model = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())
    model.append(model[0])
    replace_norms(model, "layer")
    assert model[0] is model[2] and type(model[0]) is nn.GroupNorm


class OwnNorm(nn.BatchNorm2d):
    """A batch norm of a class of its own."""


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 1, 1)), "'norm' = 'layer': the network has no batch norm"),
        (
            nn.Sequential(nn.BatchNorm2d(2), OwnNorm(2)),
            "'norm' = 'layer': '1' is a OwnNorm, which is no plain batch norm",
        ),
    ],
)
def test_what_has_no_place_for_another_norm(model, message):
    with pytest.raises(UserError, match=message):
        replace_norms(model, "layer")


def test_only_running_moments_are_estimated_anew_without_batch_norm():
    plain = built(norm="group").train()
    x = images(8)
    before = plain.eval()(x)
    with reestimated_batchnorm(plain, x, 4):
        assert torch.equal(plain(x), before)
    tracked = built(norm="group", attention="se", attention_form="add")
    (statistics,) = {m for m in tracked.stages[0][0].modules() if isinstance(m, RunningMoments)}
    with reestimated_batchnorm(tracked, x, 4):
        assert not statistics.running_var.eq(1).any()
    assert statistics.running_var.eq(1).all()


class Ops(TorchDispatchMode):
    """Names of the operations."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("levels", [*BUILT, {"merge": "mul", "merge_site": "branch"}], ids=str)
def test_each_activation_takes_the_place_of_every_relu(levels):
    found = {}
    for activation in ("relu", "gelu", "silu"):
        network = built(**levels, activation=activation)
        with Ops() as ops:
            network(images())
        assert {name for name in ops.seen if name in ("relu", "gelu", "silu")} == {activation}
        found[activation] = ops.seen.count(activation)
        assert num_flops(network, (1, 16, 16)) == num_flops(built(**levels), (1, 16, 16))
    assert len(set(found.values())) == 1 and found["relu"] > 3


def test_an_activation_is_torchs():
    block = built(activation="gelu").stages[0][0].eval()
    h = torch.randn((2, 4, 6, 6), generator=torch.Generator().manual_seed(1))
    f = block.bn2(block.conv2(functional.gelu(block.bn1(block.conv1(h)))))
    torch.testing.assert_close(block(h), functional.gelu(h + f))
    assert math.isclose(float(functional.gelu(torch.tensor(1.0))), 0.5 * (1 + math.erf(1 / math.sqrt(2))), rel_tol=1e-6)


def test_what_a_formula_names_stays():
    with Ops() as ops:
        built(merge="star", attention="se", attention_form="mul", activation="silu")(images())
    assert {"hardtanh", "relu", "silu"} <= set(ops.seen)  # relu6 of star, ReLU inside the gate


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"norm": "instance"}, "'norm' = 'instance': expected batch or group or layer or none"),
        ({"norm": "group", "norm_parts": 2}, "'norm_parts' = 2: expected 1 unless norm is batch"),
        ({"norm": "none", "norm_momentum": 0.2}, "'norm_momentum' = 0.2: expected 0.1 unless norm is batch"),
        ({"activation": "elu"}, "'activation' = 'elu': expected relu or gelu or silu.*did you mean"),
    ],
)
def test_what_cannot_go_together(values, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CONFIG, **values)


def test_a_network_with_activations_of_its_own_refuses_another(monkeypatch):
    registered = NETWORKS["cifar_resnet"]
    monkeypatch.setitem(NETWORKS._entries, "cifar_resnet", dataclasses.replace(registered, traits={}))
    with pytest.raises(UserError, match="'activation' = 'gelu': network 'cifar_resnet' has no place for it"):
        built(activation="gelu")

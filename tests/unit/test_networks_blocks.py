"""Bottlenecks and pre-activation blocks with merge operators: sites, norms, places, attention; and what all networks share."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from study.config import TrialConfig
from study.errors import UserError
from study.models import build_network
from study.models.blocks import BlockParts, Bottleneck, PreActivationBlock
from study.models.merges.normalised import FORMS
from study.models.merges.plain import Add
from study.registry import NETWORKS

# two blocks a stage where that is cheap
SMALL = {
    "cifar_resnet": {"depth": 14, "width": 4},
    "cifar_resnet_bottleneck": {"depth": 20, "width": 4},
    "wrn": {"depth": 16, "width": 1},
    "authors_wrn": {"depth": 16, "width": 1},
    "imagenet_resnet": {"depth": 18, "width": 4},
}
# blocks of another kind: tests/unit/test_networks_starnet.py
STARS = {"cifar_starnet"}
NEW = [name for name in SMALL if name != "cifar_resnet"]


def network(name, **changes) -> nn.Module:
    config = TrialConfig(**{"dataset": "fake", "network": name, "seed": 1, "split_seed": 0} | SMALL[name] | changes)
    return build_network(config, num_classes=4, mean=(0.5,), deviation=(0.25,))


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pixels(n=6):
    return torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def built(block, *shape, merge, site, attention="none"):
    """In float64 and evaluation, every parameter and statistic off its start."""
    form = "none" if attention == "none" else "native"
    parts = BlockParts(merge=merge, merge_site=site, attention=attention, attention_form=form)
    one = block(*shape, parts).double().eval()
    for index, (name, tensor) in enumerate(one.state_dict().items()):
        if tensor.is_floating_point():
            values = draw(*tensor.shape, seed=index)
            tensor.copy_(values.abs() + 0.5 if "running_var" in name else values / max(tensor[0].numel(), 1) ** 0.5)
    return one


def bn(x, norm):
    shape = (1, -1, 1, 1)
    scale = norm.weight / (norm.running_var + 1e-5).sqrt()
    return (x - norm.running_mean.view(shape)) * scale.view(shape) + norm.bias.view(shape)


def joined(merge, x, f):
    """The operators of these tests by hand."""
    if getattr(merge, "form", None) == FORMS["sig_bn"]:
        return torch.sigmoid(bn(f, merge.bn_f)) * bn(x, merge.bn_x)
    return {"Add": lambda: x + f, "Multiply": lambda: x * f, "NoSkip": lambda: f}[type(merge).__name__]()


def conv(x, weight, stride=1):
    return functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)


def norms(block) -> list[str]:
    return [name for name, module in block.named_modules() if isinstance(module, nn.BatchNorm2d)]


def test_every_network_is_in_these_tests():
    assert {*SMALL, *STARS} == set(NETWORKS.names())


@pytest.mark.parametrize("attention", ["none", "se"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("site", ["skip", "branch"])
@pytest.mark.parametrize("merge", ["add", "mul", "sig_bn", "none"])
def test_a_bottleneck_is_its_formula(merge, site, stride, attention):
    channels = 8 if stride == 1 else 6
    block = built(Bottleneck, channels, 8, stride, merge=merge, site=site, attention=attention)
    assert block.conv2.weight.shape == (2, 2, 3, 3)  # a quarter of 8
    own = merge == "sig_bn"
    h = draw(3, channels, 5, 7, seed=90)
    g = bn(conv(h, block.conv1.weight), block.bn1).relu()
    inner = conv(g, block.conv2.weight, stride)
    if site == "branch":
        inner = inner if own else bn(inner, block.bn2)
        at = functional.max_pool2d(g, 1, stride)  # the places on which the 3x3 kernels are centred
        inner = joined(block.merge, at, inner)
    else:
        inner = bn(inner, block.bn2)
    f = conv(inner.relu(), block.conv3.weight)
    f = block.attention(f if own and site == "skip" else bn(f, block.bn3))
    x = h
    if stride == 2 and (site, merge) != ("skip", "none"):
        x = conv(h, block.shortcut[0].weight, 2)
        x = x if own and site == "skip" else bn(x, block.shortcut[1])
    expected = joined(block.merge, x, f) if site == "skip" else x + f
    torch.testing.assert_close(block(h), expected.relu(), rtol=1e-11, atol=1e-12)
    projected = ["shortcut.1"] if stride == 2 else []
    assert norms(block) == {
        ("sig_bn", "skip"): ["bn1", "bn2", "merge.bn_f", "merge.bn_x"],
        ("sig_bn", "branch"): ["bn1", "bn3", *projected, "merge.bn_f", "merge.bn_x"],
        ("none", "skip"): ["bn1", "bn2", "bn3"],
    }.get((merge, site), ["bn1", "bn2", "bn3", *projected])


@pytest.mark.parametrize("attention", ["none", "se"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("site", ["skip", "branch"])
@pytest.mark.parametrize("merge", ["add", "mul", "sig_bn", "none"])
def test_a_pre_activation_block_is_its_formula(merge, site, stride, attention):
    channels = 8 if stride == 1 else 6
    block = built(PreActivationBlock, channels, 8, stride, merge=merge, site=site, attention=attention)
    h = draw(3, channels, 5, 7, seed=90)
    a = bn(h, block.bn1).relu()
    g = bn(conv(a, block.conv1.weight, stride), block.bn2).relu()
    f = block.attention(conv(g, block.conv2.weight))
    x = h if stride == 1 or (site, merge) == ("skip", "none") else conv(a, block.shortcut[0].weight, 2)
    expected = joined(block.merge, x, f) if site == "skip" else x + joined(block.merge, g, f)
    torch.testing.assert_close(block(h), expected, rtol=1e-11, atol=1e-12)
    assert block(h).min() < 0  # no ReLU after the merge
    # an operator's own norms are the only ones on the two paths: none of the block's is left out for them
    assert norms(block) == ["bn1", "bn2", *(["merge.bn_f", "merge.bn_x"] if merge == "sig_bn" else [])]


@pytest.mark.parametrize("name", NEW)
def test_no_operator_at_the_branch_is_addition_at_the_skip(name):
    for where in ("all", "first"):
        plain, branch = network(name), network(name, merge="none", merge_site="branch", merge_where=where)
        assert plain.state_dict().keys() == branch.state_dict().keys()
        assert torch.equal(plain(pixels()), branch(pixels()))
    assert not torch.allclose(plain(pixels()), network(name, merge="add", merge_site="branch")(pixels()))


@pytest.mark.parametrize("name", SMALL)
def test_the_operator_is_in_the_chosen_blocks_and_attention_in_all(name):
    for where, chosen in (("all", "11"), ("first", "10"), ("last", "01"), ("alternate", "10")):
        for site in ("skip", "branch"):
            model = network(name, merge="mul", merge_where=where, merge_site=site, attention="se", attention_form="mul")
            for stage in model.stages:
                assert "".join("0" if isinstance(block.merge, Add) else "1" for block in stage) == chosen
                assert all(block.merge_site == ("skip" if isinstance(block.merge, Add) else site) for block in stage)
                assert not any(isinstance(block.attention, nn.Identity) for block in stage)


@pytest.mark.parametrize("name", NEW)
def test_names_shared_by_two_cells_start_at_equal_weights(name):
    reference = dict(network(name).named_parameters())
    for changes in ({"merge": "star"}, {"merge": "mul", "merge_site": "branch"}, {"merge": "sig_bn"}):
        other = dict(network(name, **changes).named_parameters())
        shared = reference.keys() & other.keys()
        assert {"conv.weight", "head.weight", "stages.1.1.conv1.weight"} <= shared
        assert all(torch.equal(reference[key], other[key]) for key in shared), changes


@pytest.mark.parametrize("name", NEW)
def test_an_unknown_level_is_answered_with_the_nearest(name):
    for changes, message in (
        ({"merge": "mull"}, r"unknown merge 'mull' .did you mean 'mul'"),
        ({"merge_site": "brnch"}, r"unknown merge_site 'brnch' .did you mean 'branch'"),
        ({"merge_where": "frist"}, r"unknown merge_where 'frist' .did you mean 'first'"),
        ({"attention": "see", "attention_form": "mul"}, r"unknown attention 'see' .did you mean 'se'"),
    ):
        with pytest.raises(UserError, match=message):
            network(name, **changes)


def test_pixels_are_normalised_inside():
    for name, settings in SMALL.items():
        model = network(name).eval()
        x = pixels(2)
        shifted = (
            NETWORKS[name].build(num_classes=4, mean=(0.0,), deviation=(1.0,), parts=BlockParts(), **settings).eval()
        )
        shifted.load_state_dict({k: v for k, v in model.state_dict().items() if "normalize" not in k}, strict=False)
        torch.testing.assert_close(model(x), shifted((x - 0.5) / 0.25))

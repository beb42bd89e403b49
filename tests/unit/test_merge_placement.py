"""Where an operator sits: skip or branch, and in which blocks."""

import pytest
import torch
from operators import MATCHED, PLAIN
from torch import nn
from torch.nn import functional

from study.config import TrialConfig
from study.errors import UserError
from study.models import build_network
from study.models.blocks import BasicBlock, BlockParts
from study.models.merges.placement import blocks_chosen
from study.models.merges.plain import Add
from study.planning.plan import make_plan
from study.registry import MERGES


def network(**changes) -> nn.Module:
    config = TrialConfig(**{"dataset": "fake", "depth": 20, "width": 4, "seed": 1, "split_seed": 0} | changes)
    return build_network(config, num_classes=4, mean=(0.5,), deviation=(0.25,))


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pixels(n=6):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("where", "chosen"),
    [("all", "111 111 111"), ("first", "100 100 100"), ("last", "001 001 001"), ("alternate", "101 010 101")],
)
def test_the_operator_is_in_the_chosen_blocks_and_add_in_the_others(where, chosen):
    for site in ("skip", "branch"):
        stages = network(merge="mul", merge_where=where, merge_site=site).stages
        found = ["".join("0" if isinstance(block.merge, Add) else "1" for block in stage) for stage in stages]
        assert " ".join(found) == chosen
        for stage in stages:
            assert all(block.merge_site == ("skip" if isinstance(block.merge, Add) else site) for block in stage)


def test_blocks_are_counted_through_the_network():
    assert blocks_chosen("merge_where", "alternate", [2, 2, 2]) == [[True, False]] * 3
    assert blocks_chosen("merge_where", "alternate", [1, 1, 1]) == [[True], [False], [True]]
    assert blocks_chosen("merge_where", "last", [1, 2]) == [[True], [False, True]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"merge_site": "brnch"}, r"unknown merge_site 'brnch' \(did you mean 'branch'\?\)"),
        ({"merge_site": "zzz"}, r"unknown merge_site 'zzz' \(known: branch, skip\)"),
        ({"merge_where": "frist"}, r"unknown merge_where 'frist' \(did you mean 'first'\?\)"),
        ({"merge_where": "zzz"}, r"unknown merge_where 'zzz' \(known: all, alternate, first, last\)"),
    ],
)
def test_an_unknown_level_is_answered_with_the_nearest(changes, message):
    with pytest.raises(UserError, match=message):
        network(**changes)


def test_site_and_place_are_factors_of_a_study(spec_of):
    fixed = {"dataset": "fake", "depth": 14, "width": 4, "epochs": 2, "batch_size": 16}
    factors = {"merge": ["mul"], "merge_site": ["skip", "branch"], "merge_where": ["all", "last"]}
    names = [cell.name for cell in make_plan(spec_of(factors=factors, fixed=fixed)).cells]
    assert names == [f"fake/d14/mul{site}/merge_where={where}" for site in ("", "@branch") for where in ("all", "last")]
    with pytest.raises(UserError, match=r"unknown merge_where 'lst'.*'last'"):
        make_plan(spec_of(factors=factors | {"merge_where": ["lst"]}, fixed=fixed))


@pytest.mark.parametrize("attention", ["none", "se"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("merge", ["mul", "sig_bn", "none"])
def test_at_the_branch_the_outer_skip_is_additive(merge, stride, attention):
    form = "none" if attention == "none" else "native"
    block = BasicBlock(
        4,
        4 * stride,
        stride,
        BlockParts(merge=merge, merge_site="branch", attention=attention, attention_form=form),
    )
    block.double().eval()
    for index, (name, tensor) in enumerate(block.state_dict().items()):
        if "bn" in name and tensor.ndim:
            tensor.copy_(draw(len(tensor), seed=index).abs() + 0.5)
    h = draw(2, 4, 6, 6)
    g = torch.relu(block.bn1(block.conv1(h)))
    f = block.attention(block.bn2(block.conv2(g)))
    inner = {
        "mul": lambda: g * f,
        "none": lambda: f,
        "sig_bn": lambda: torch.sigmoid(block.merge.bn_f(f)) * block.merge.bn_x(g),
    }[merge]()
    skip = h if stride == 1 else block.shortcut[1](block.shortcut[0](h))
    assert stride == 1 or isinstance(block.shortcut[1], nn.BatchNorm2d)
    torch.testing.assert_close(block(h), torch.relu(skip + inner), rtol=1e-12, atol=1e-12)


def test_no_operator_at_the_branch_is_addition_at_the_skip():
    for where in ("all", "first"):
        plain, branch = network(), network(merge="none", merge_site="branch", merge_where=where)
        assert plain.state_dict().keys() == branch.state_dict().keys()
        assert torch.equal(plain(pixels()), branch(pixels()))
    assert not torch.allclose(plain(pixels()), network(merge="add", merge_site="branch")(pixels()))


@pytest.mark.parametrize("merge", PLAIN + MATCHED)
def test_every_operator_works_at_the_branch(merge):
    model = network(merge=merge, merge_site="branch", merge_where="last", depth=14)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(2):
        model.zero_grad()
        functional.cross_entropy(model(pixels()), torch.arange(6) % 4).backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
    model.double().eval()
    x = pixels().double()
    if not MERGES[merge].traits.get("mixes_batch"):
        torch.testing.assert_close(model(x[2:4]), model(x)[2:4], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("where", "chosen"),
    [("all", "111 111 111"), ("first", "100 100 100"), ("last", "001 001 001"), ("alternate", "101 010 101")],
)
def test_attention_is_in_the_chosen_blocks_whatever_the_operator(where, chosen):
    levels = {"attention": "se", "attention_form": "mul", "attention_where": where}
    stages = network(**levels, merge="mul", merge_where="first").stages
    found = ["".join("0" if isinstance(block.attention, nn.Identity) else "1" for block in stage) for stage in stages]
    assert " ".join(found) == chosen
    assert [[isinstance(block.merge, Add) for block in stage] for stage in stages] == [[False, True, True]] * 3


def test_attention_that_is_somewhere_is_a_factor_of_a_study(spec_of):
    fixed = {"dataset": "fake", "depth": 14, "width": 4, "epochs": 2, "batch_size": 16}
    factors = {"merge": ["add"], "attention": ["se"], "attention_form": ["mul"], "attention_where": ["all", "last"]}
    names = [cell.name for cell in make_plan(spec_of(factors=factors, fixed=fixed)).cells]
    assert names == [f"fake/d14/add/se.mul/attention_where={where}" for where in ("all", "last")]
    with pytest.raises(UserError, match=r"unknown attention_where 'lst'.*'last'"):
        make_plan(spec_of(factors=factors | {"attention_where": ["lst"]}, fixed=fixed))
    with pytest.raises(
        UserError, match=r"one and the same network.*attention_where picks the same blocks at this depth"
    ):
        make_plan(spec_of(factors=factors | {"attention_where": ["all", "first"]}, fixed=fixed | {"depth": 8}))

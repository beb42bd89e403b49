"""``add_matched_<operator>``: addition with the operator's parameters and FLOPs, to half a hidden channel."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import study.models  # noqa: F401  registers the parts
from study.config import TrialConfig
from study.errors import UserError
from study.models import build_network, num_flops, num_params
from study.models.blocks import BlockParts
from study.models.merges.matched import MatchedAdd
from study.models.merges.plain import Add
from study.printing.levels import levels
from study.registry import MERGES, NETWORKS

MATCHED = {entry.traits["matches"]: entry.name for entry in MERGES if "matches" in entry.traits}
# those that cost half a hidden channel a block or more, at 16 channels, and those that cost less
DEAR = ["adapt_gate", "concat", "highway", "star", "star_sum"]
# their norms stand in for more of the block's than they hold
SAVING = ["sig1_bn", "sig_sig_bn_f"]


def outline(network, depth, width, merge, site="skip", where="all") -> nn.Module:
    """Shapes alone."""
    with torch.device("meta"):
        return NETWORKS[network].build(
            depth=depth, width=width, num_classes=10, mean=(0.5,) * 3, deviation=(0.5,) * 3,
            parts=BlockParts(merge=merge, merge_site=site, merge_where=where),
        )  # fmt: skip


def drawn(merge, network="cifar_resnet", depth=20, width=8, **changes) -> nn.Module:
    config = TrialConfig(
        dataset="fake", network=network, depth=depth, width=width, seed=1, split_seed=0, merge=merge, **changes
    )
    return build_network(config, num_classes=4, mean=(0.5,), deviation=(0.25,))


def pixels(n=6):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def blocks(model) -> list[nn.Module]:
    return [block for stage in model.stages for block in stage]


def widths(model) -> list[int]:
    return [block.conv1.out_channels for block in blocks(model)]


def channel(block) -> int:
    """Parameters that one hidden channel more, or less, costs here: the larger, counted by hand."""
    outer = block.conv1.in_channels
    if hasattr(block, "conv3"):
        # 1x1 in, norm, 3x3 from m to m, norm, 1x1 out: the 3x3 grows by 9 ((m + 1)^2 - m^2)
        return outer + block.conv3.out_channels + 4 + 9 * (2 * block.conv1.out_channels + 1)
    return 9 * (outer + block.conv2.out_channels) + 2


def test_there_is_one_for_each_operator_with_parameters_and_for_no_other():
    plain = [entry for entry in MERGES if not entry.traits.keys() & {"matches", "row"}]
    costly = {entry.name for entry in plain if list(entry.build(4).parameters())}
    assert set(MATCHED) == costly and {*DEAR, *SAVING, "rezero", "mix", "mul_bn", "sig_bn"} <= costly
    assert {"add", "mul", "none", "noise_gate"}.isdisjoint(costly)
    assert all(name == f"add_matched_{operator}" for operator, name in MATCHED.items())
    rows = {row["name"]: row for row in levels("merge")}
    assert rows["add_matched_star"]["extra_params"] == "as star"
    assert rows["add_matched_star"]["formula"] == "x + F, F's hidden width widened to the parameters of star"
    cheap = {operator for operator, name in MATCHED.items() if "under half a hidden channel" in rows[name]["formula"]}
    assert cheap == costly - set(DEAR)
    with pytest.raises(UserError, match=r"unknown merge 'add_matched_sta' .did you mean 'add_matched_star'"):
        drawn("add_matched_sta")


def test_the_operator_is_addition_of_as_many_channels_as_the_branch_gives():
    merge, x = MatchedAdd(3), torch.arange(2 * 5 * 2 * 2.0).view(2, 5, 2, 2)
    f = torch.full((2, 3, 2, 2), 0.5)
    assert torch.equal(merge(x, f), torch.stack([x[:, 0], x[:, 1], x[:, 2]], 1) + 0.5)
    assert torch.equal(merge(x[:, :3], f), Add(3)(x[:, :3], f)) and not list(merge.parameters())


def test_hidden_widths_by_hand():
    # star costs 3 C^2 + 4 C: 832, 3200 and 12544 at 16, 32 and 64 channels. A hidden channel costs 290; 434 and 578;
    # 866 and 1154. 832 = 3 * 290 - 38; 832 - 38 = 3 * 290 - 76; 832 - 76 = 3 * 290 - 114; 3200 - 114 = 7 * 434 + 48;
    # 3248 = 6 * 578 - 220; 2980 = 5 * 578 + 90; 12634 = 15 * 866 - 356; 12188 = 11 * 1154 - 506; 12038 = 10 * 1154 + 498
    for site in ("skip", "branch"):
        matched, star = (outline("cifar_resnet", 20, 16, name, site) for name in ("add_matched_star", "star"))
        assert widths(matched) == [19, 19, 19, 39, 38, 37, 79, 75, 74]
        assert num_params(star) - num_params(matched) == 498
    few = outline("cifar_resnet", 20, 16, "add_matched_star", where="last")
    assert widths(few) == [16, 16, 19, 32, 32, 37, 64, 64, 75]  # -38; 3162 = 5 * 578 + 272; 12816 = 11 * 1154 + 122


@pytest.mark.parametrize(
    ("network", "depth", "width"),
    [("cifar_resnet", 8, 8), ("cifar_resnet", 20, 16), ("cifar_resnet", 32, 4), ("cifar_resnet_bottleneck", 11, 8),
     ("cifar_resnet_bottleneck", 29, 16), ("wrn", 10, 1), ("wrn", 16, 10), ("imagenet_resnet", 18, 64),
     ("imagenet_resnet", 50, 64)],
    ids=str,
)  # fmt: skip
def test_parameters_match_to_half_a_hidden_channel_after_every_block(network, depth, width):
    for settings in (("skip", "all"), ("branch", "all"), ("skip", "alternate")):
        plain = outline(network, depth, width, "add", *settings)
        for operator in ("star", "mul_bn", "rezero", "sig1_bn"):
            theirs = outline(network, depth, width, operator, *settings)
            ours = outline(network, depth, width, MATCHED[operator], *settings)
            owed = 0
            for mine, other, bare in zip(blocks(ours), blocks(theirs), blocks(plain), strict=True):
                owed += num_params(other) - num_params(mine)
                wider = mine.conv1.out_channels - bare.conv1.out_channels
                assert wider >= 0 and (wider == 0 or isinstance(mine.merge, MatchedAdd)), (operator, settings)
                if isinstance(mine.merge, MatchedAdd):
                    last = mine
                    # nothing is narrowed: what an operator saves is not taken from addition
                    assert owed <= channel(mine) / 2 and (wider == 0 or owed >= -channel(mine) / 2)
            assert num_params(theirs) - num_params(ours) == owed
            if operator not in SAVING:
                assert abs(owed) <= channel(last) / 2, (operator, settings)
            if operator == "star":  # the check can fail
                assert num_params(theirs) - num_params(plain) > 4 * abs(owed)


@pytest.mark.parametrize(
    ("network", "depth", "width", "allowed"),
    [("cifar_resnet", 20, 16, 0.01), ("wrn", 10, 1, 0.01), ("wrn", 16, 10, 0.001),
     ("imagenet_resnet", 18, 64, 0.002), ("cifar_resnet_bottleneck", 29, 16, 0.03),
     ("cifar_resnet_bottleneck", 11, 16, 0.08), ("imagenet_resnet", 50, 64, 0.03)],
    ids=str,
)  # fmt: skip
def test_flops_match_to_a_stated_share(network, depth, width, allowed):
    size = (3, 64, 64) if network == "imagenet_resnet" else (3, 32, 32)
    plain = num_flops(outline(network, depth, width, "add"), size)
    for operator, site in (("star", "skip"), ("concat", "branch"), ("highway", "skip")):
        theirs = num_flops(outline(network, depth, width, operator, site), size)
        ours = num_flops(outline(network, depth, width, MATCHED[operator], site), size)
        assert abs(ours / theirs - 1) < min(allowed, 1 - plain / theirs), (operator, site)


@pytest.mark.parametrize("operator", sorted(set(MATCHED) - set(DEAR)))
def test_what_costs_less_than_half_a_channel_leaves_a_small_network_as_it_is(operator):
    for site in ("skip", "branch"):
        ours, plain = drawn(MATCHED[operator], depth=8, merge_site=site), drawn("add", depth=8, merge_site=site)
        assert ours.state_dict().keys() == plain.state_dict().keys()
        assert torch.equal(ours(pixels()), plain(pixels()))
        # half a channel of the last stage: 9 (16 + 32) + 2, halved
        assert abs(num_params(drawn(operator, depth=8, merge_site=site)) - num_params(ours)) <= 217


def test_small_costs_add_up_over_a_deep_network():
    deep = {name: outline("cifar_resnet", 110, 16, name) for name in ("add", "mul_bn", "add_matched_mul_bn")}
    # 32, 64 and 128 a block with the identity for a shortcut, 0 where the projection's norm is left out
    assert num_params(deep["mul_bn"]) - num_params(deep["add"]) == 18 * 32 + 17 * 64 + 17 * 128 == 3840
    wider = [a - b for a, b in zip(widths(deep["add_matched_mul_bn"]), widths(deep["add"]), strict=True)]
    assert set(wider) == {0, 1} and sum(wider) == 6
    assert num_params(deep["add_matched_mul_bn"]) - num_params(deep["mul_bn"]) == 2 * 290 + 2 * 578 + 2 * 1154 - 3840


@pytest.mark.parametrize(
    ("network", "depth", "width"),
    [("cifar_resnet", 14, 8), ("cifar_resnet_bottleneck", 11, 8), ("wrn", 10, 1), ("imagenet_resnet", 18, 8)],
)
@pytest.mark.parametrize("site", ["skip", "branch"])
def test_parameters_of_one_shape_start_as_those_of_plain_addition(network, depth, width, site):
    plain = dict(drawn("add", network, depth, width, merge_site=site).named_parameters())
    ours = dict(drawn("add_matched_star", network, depth, width, merge_site=site).named_parameters())
    assert ours.keys() == plain.keys()
    equal = {name for name in ours if ours[name].shape == plain[name].shape}
    assert all(torch.equal(ours[name], plain[name]) for name in equal)
    # others lie on the hidden map, in blocks alone
    inside = ("conv1.weight", "conv2.weight", "conv3.weight", "bn1.weight", "bn1.bias", "bn2.weight", "bn2.bias")
    assert all(name.startswith("stages.") and name.endswith(inside) for name in ours.keys() - equal)
    assert len(ours.keys() - equal) >= 3 * len(blocks(drawn("add", network, depth, width)))


@pytest.mark.parametrize("attention", ["none", "se"])
@pytest.mark.parametrize("site", ["skip", "branch"])
def test_it_trains_and_attention_changes_no_width(site, attention):
    form = "none" if attention == "none" else "mul"
    for name, depth, width in (("cifar_resnet", 14, 8), ("wrn", 10, 1), ("cifar_resnet_bottleneck", 11, 8)):
        settings = {"merge_site": site, "attention": attention, "attention_form": form}
        model = drawn("add_matched_highway", name, depth, width, **settings)
        assert widths(model) == widths(outline(name, depth, width, "add_matched_highway", site))
        losses = []
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
        for _ in range(12):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(pixels()), torch.arange(6) % 4)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.7 * losses[0]
        assert all(parameter.grad.any() for parameter in model.parameters())

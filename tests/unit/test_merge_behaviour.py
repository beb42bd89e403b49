"""Behaviour at initialisation: against an independent walk through the network, closed forms, and what is known to fail."""

import itertools
import math

import pytest
import torch
from operators import MATCHED, PLAIN
from torch.nn import functional

from study.config import TrialConfig
from study.errors import UserError
from study.models import build_network
from study.models.initial_behaviour import format_blocks, format_overview, initial_behaviour, initial_behaviours


def behave(merge, depth, width=8, **changes):
    config = TrialConfig(dataset="none", depth=depth, width=width, seed=0, split_seed=0, merge=merge, **changes)
    return initial_behaviour(config)


def rms(values):
    return math.sqrt(sum(v * v for v in values.flatten().tolist()) / values.numel())


def test_numbers_are_those_of_a_walk_through_the_network():
    config = TrialConfig(dataset="none", depth=14, width=4, seed=3, split_seed=0, merge="mul_id")
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 2, 2])
    found = initial_behaviour(config, x, labels, num_classes=3, mean=(0.5,), deviation=(0.25,))
    torch.manual_seed(99)
    assert found == initial_behaviour(config, x, labels, num_classes=3, mean=(0.5,), deviation=(0.25,))
    model = build_network(config, num_classes=3, mean=(0.5,), deviation=(0.25,))
    h = model.bn(model.conv(model.normalize(x))).relu()
    maps = []
    for stage in model.stages:
        for block in stage:
            h = block(h)
            h.retain_grad()
            maps.append(h)
    logits = model.head(h.mean((2, 3)))
    functional.cross_entropy(logits, labels).backward()
    assert [b.name for b in found.blocks] == [f"stages.{s}.{b}" for s in range(3) for b in range(2)]
    for block, values in zip(found.blocks, maps, strict=True):
        assert block.activation_rms == pytest.approx(rms(values), rel=1e-4)
        assert block.gradient_rms == pytest.approx(rms(values.grad), rel=1e-3)
        assert block.alive == pytest.approx(float((values > 0).float().mean()))
        assert block.activation_max >= float(values.detach().max()) and block.operator == "MultiplyIdentity"


def test_plain_multiplication_is_dead_at_depth_56_and_addition_is_not():
    add, mul = behave("add", 56), behave("mul", 56)
    assert add.outlook == "fair" and 0.5 < add.activation_change < 10 and 0.5 < add.gradient_change < 100
    assert mul.outlook == "activations vanish" and mul.blocks[-1].alive == 0 == mul.blocks[-1].activation_rms
    # relu(x * F) passes about half of what was passed: the share of outputs above zero halves from block to block
    alive = [block.alive for block in mul.blocks[:5]]
    assert all(0.2 < after / before < 0.7 for before, after in itertools.pairwise(alive))
    assert behave("mul", 8).outlook == "fair" and mul.blocks[-1].fp16 == "subnormal"


@pytest.mark.parametrize(
    ("merge", "depth", "outlook"),
    [
        ("none", 110, "gradients explode"), ("mul_bn", 110, "gradients explode"), ("glu", 110, "activations vanish"),
        ("mix_100", 56, "activations explode"), ("mul_id", 56, "activations explode"), ("rezero", 110, "fair"),
        ("add_alias", 110, "fair"), ("sig_sig", 110, "fair"), ("tanh_gate", 56, "fair"),
    ],
)  # fmt: skip
def test_outlooks(merge, depth, outlook):
    assert behave(merge, depth).outlook == outlook


def test_scales_of_closed_form():
    # rezero starts as the identity on maps that a ReLU left: the scale stays to the last bit within a stage
    rezero = behave("rezero", 20).blocks
    assert rezero[0].activation_rms == rezero[1].activation_rms == rezero[2].activation_rms
    # glu: every block scales by s(F) with F standard normal: E s(F)^2 = 0.293 by quadrature
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    weight = torch.exp(-grid * grid / 2) / math.sqrt(2 * math.pi)
    factor = math.sqrt(float(torch.trapezoid(grid.sigmoid() ** 2 * weight, grid)))
    glu = behave("glu", 56, width=16).blocks
    assert (glu[8].activation_rms / glu[0].activation_rms) ** (1 / 8) == pytest.approx(factor, rel=0.1)


def test_the_start_at_the_branch_and_in_chosen_blocks():
    # the additive skip keeps a multiplied branch alive, and so does addition in every other block
    for changes in ({"merge_site": "branch"}, {"merge_where": "alternate"}, {"merge_where": "last"}):
        found = behave("mul", 56, **changes)
        assert found.blocks[-1].alive > 0.2 and found.blocks[-1].activation_rms > 0.1
        assert len({block.operator for block in found.blocks}) == (1 if "merge_site" in changes else 2)


def test_half_precision():
    small = initial_behaviours(merges=PLAIN + MATCHED, depths=[8], width=4)
    assert [one.config.merge for one in small] == PLAIN + MATCHED
    for one in small:
        assert one.bf16_finite and all(0 < block.bf16_error < 0.1 for block in one.blocks), one.config.merge
        assert all(block.fp16 == "fits" for block in one.blocks)
    assert "overflows" in [block.fp16 for block in behave("mix_100", 56).blocks]
    assert "gradient lost" in [block.fp16 for block in behave("glu", 110).blocks]


def test_tables_that_a_user_prints():
    found = [behave("add", 8), behave("mul", 56)]
    lines = format_blocks(found[0]).splitlines()
    assert lines[0] == "merge add, depth 8, width 8: fair" and lines[1].split()[:2] == ["block", "operator"]
    assert [line.split()[0] for line in lines[2:]] == ["stages.0.0", "stages.1.0", "stages.2.0"]
    assert all(line.endswith("fits") for line in lines[2:])
    overview = format_overview(found).splitlines()
    assert (
        len(overview) == 3 and overview[2].split()[:2] == ["mul", "56"] and overview[2].endswith("activations vanish")
    )
    assert "of 27 blocks)" in overview[2] and overview[1].endswith("fair")


def test_bad_levels_are_refused():
    with pytest.raises(UserError, match="unknown merge 'ad'"):
        behave("ad", 8)
    with pytest.raises(UserError, match="depth = 9"):
        behave("add", 9)

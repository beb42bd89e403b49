"""``authors_wrn``: against numbers of the authors' public network file, its start, and the rows inside the branch by hand."""

import math

import numpy as np
import pytest
import torch
from operators import authors_rows
from torch import nn
from torch.nn import functional

from study.config import TrialConfig
from study.models import build_network, num_params
from study.models.blocks import AuthorsBlock, BasicBlock, BlockParts, PreActivationBlock
from study.models.fixed_draws import HashedDropout
from study.models.merges.inside import ROWS_INSIDE
from study.registry import MERGES

# Of xyegithub/Featrue-map-multiplication at b5cfdce, networks/wide_resnet.py, its merge as the notes have the row: on the
# weights and images below, float64, no dropout: first loss, norm of the first gradient (weights of two dimensions and more),
# loss of the third step, then in evaluation mean absolute logit and loss. Ours differed by 0: docs/method.md.
ORIGINAL = {
    1: (1.89136486104, 1.89714616947, 2.36855885522, 0.395115435865, 2.11483986397),
    2: (1.74692758083, 1.34790376723, 2.22269784296, 2.50356682873, 6.33097904451),
    8: (2.07372152399, 3.80879477388, 2.05679087351, 0.531983511989, 2.29191915831),
    14: (1.75550087604, 6.73934758384, 2.48962750314, 1.58975216506, 3.90504303528),
    21: (1.81237344742, 6.16025886273, 2.24176323452, 5.35206490444e13, 7.12354473561e13),
    42: (2.09297187762, 4.73770896779, 2.24167439609, 0.134057036677, 2.00151564082),
    46: (1.91202707476, 6.40414751473, 2.20006551698, 0.399112731486, 2.17510147503),
}


def network(width=1, depth=16, seed=11, **changes) -> nn.Module:
    config = TrialConfig(
        dataset="fake", network="authors_wrn", depth=depth, width=width, seed=seed, split_seed=0, **changes
    )
    return build_network(config, num_classes=7, mean=(0.0,) * 3, deviation=(1.0,) * 3).double()


def draw(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


@torch.no_grad()
def fill(model, row) -> None:
    drawn = np.random.default_rng(row)
    for name, parameter in model.named_parameters():
        values = torch.from_numpy(drawn.standard_normal(tuple(parameter.shape)))
        scale = name.split(".")[-2].startswith("bn") and name.endswith("weight")
        wide = parameter.dim() > 1
        parameter.copy_(values * (2 / parameter[0].numel()) ** 0.5 if wide else 0.1 * values + float(scale))


@pytest.mark.parametrize("row", ORIGINAL)
def test_it_gives_the_numbers_of_the_original(row):
    model = network(merge=f"authors_{row}")
    fill(model, row)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    losses, norms = [], []
    for step in range(3):
        drawn = np.random.default_rng(step)
        x, labels = torch.from_numpy(drawn.standard_normal((12, 3, 16, 16))), torch.from_numpy(drawn.integers(0, 7, 12))
        loss = functional.cross_entropy(model.train()(x), labels)
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.cat([p.grad.flatten() for p in model.parameters() if p.dim() > 1]).norm()))
        losses.append(float(loss.detach()))
        optimizer.step()
    with torch.no_grad():
        logits = model.eval()(x)
    evaluated = [float(logits.abs().mean()), float(functional.cross_entropy(logits, labels))]
    assert [losses[0], norms[0], losses[2]] == pytest.approx(ORIGINAL[row][:3], rel=1e-9)
    # running statistics of nine tenths one batch amplify last digits
    assert evaluated == pytest.approx(ORIGINAL[row][3:], rel=1e-6)


def test_it_starts_as_theirs():
    """Xavier-uniform with gain sqrt 2: within sqrt(12 / (fan_in + fan_out)), of variance 4 / (fan_in + fan_out)."""
    model = network(width=4, merge="authors_52", merge_site="branch")
    convolutions = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    # stem, two a block, three projections, and A of each block
    assert len(convolutions) == 1 + 12 + 3 + 6
    for name, layer in convolutions.items():
        weight = layer.weight.detach()
        fans = (weight.shape[0] + weight.shape[1]) * weight[0, 0].numel()
        assert layer.bias.eq(0).all() and weight.abs().max() < math.sqrt(12 / fans), name
        # a uniform variable's square has a relative standard deviation of sqrt(4 / 5)
        assert float(weight.square().mean()) * fans / 4 == pytest.approx(1, abs=4 * math.sqrt(0.8 / weight.numel())), (
            name
        )
    bound = 1 / math.sqrt(model.head.in_features)
    assert 0.5 * bound < model.head.bias.abs().max() < bound and 0.9 * bound < model.head.weight.abs().max() < bound
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.weight.eq(1).all() and norm.bias.eq(0).all() for norm in norms)
    assert model.bn.momentum == 0.9 and {norm.momentum for norm in norms} == {0.1, 0.9}
    # by name, as elsewhere
    other = dict(network(width=4, merge="authors_8").named_parameters())
    shared = {name: value for name, value in model.named_parameters() if name in other}
    assert len(shared) > 40 and all(torch.equal(value, other[name]) for name, value in shared.items())


def test_it_has_their_number_of_parameters():
    """WRN-16-10 with biases, for 101 classes: counted by hand."""
    widths, total, before = [160, 320, 640], 3 * 9 * 16 + 16, 16
    for width in widths:
        for channels in (before, width):
            total += 2 * channels + 9 * channels * width + width + 2 * width + 9 * width * width + width + 2 * width
            total += channels * width + width if channels != width else 0
        before = width
    total += 2 * 640 + 640 * 101 + 101
    config = TrialConfig(
        dataset="fake", network="authors_wrn", depth=16, width=10, seed=0, split_seed=0, merge="authors_1"
    )
    with torch.device("meta"):
        model = build_network(config, num_classes=101, mean=(0.5,) * 3, deviation=(0.5,) * 3, weights=False)
    assert num_params(model) == total


def test_dropout_stands_before_the_second_norm():
    block = AuthorsBlock(4, 4, 1, BlockParts(dropout=0.3)).double().train()
    seen = {}
    for name in ("dropout", "bn2", "conv2"):
        block.get_submodule(name).register_forward_hook(
            lambda m, given, out, name=name: seen.update({name: (given[0], out)})
        )
    block(draw(3, 4, 5, 5))
    assert isinstance(block.dropout, HashedDropout)
    assert seen["bn2"][0] is seen["dropout"][1] and torch.equal(seen["conv2"][0], seen["bn2"][1].relu())
    assert (seen["dropout"][1] == 0).double().mean() == pytest.approx(0.3, abs=0.1)


INSIDE = {int(row["row"]): row for row in authors_rows() if 51 <= int(row["row"]) <= 58}


def test_all_59_rows_are_registered():
    assert set(INSIDE) == set(ROWS_INSIDE)
    assert {entry.traits["row"] for entry in MERGES if "row" in entry.traits} == set(range(1, 60))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("row", INSIDE)
def test_a_row_inside_the_branch_is_what_the_notes_say(row, stride):
    """The text of the notes, read by Python: h = ...; F = ...; x + F."""
    block = AuthorsBlock(4, 6, stride, BlockParts(merge=f"authors_{row}", merge_site="branch")).double().train()
    with torch.no_grad():
        for index, parameter in enumerate(block.parameters()):
            parameter.copy_(0.5 * draw(*parameter.shape, seed=index))
    h_in = draw(3, 4, 5, 5, seed=50)
    clamped = INSIDE[row]["clamped_before_every_forward"]
    assert clamped in ("", "shift of BN2 = 0")

    def norm(layer, shift):
        return lambda x: functional.batch_norm(x, None, None, layer.weight, shift, training=True)

    def conv2(h):
        return functional.conv2d(h, block.conv2.weight, block.conv2.bias, stride=stride, padding=1)

    first = norm(block.bn1, block.bn1.bias)(h_in).relu()
    names = {
        "u": functional.conv2d(first, block.conv1.weight, block.conv1.bias, padding=1),
        "BN2": norm(block.bn2, torch.zeros(6).double() if clamped else block.bn2.bias),
        "conv2": conv2,
        # a 1x1 convolution with the stride of conv2
        "A": lambda h: functional.conv2d(h, block.merge.adapt.weight, block.merge.adapt.bias, stride=stride),
        "s": torch.sigmoid,
        "relu": torch.relu,
        "x": functional.conv2d(h_in, block.shortcut[0].weight, block.shortcut[0].bias, stride=stride),
    }
    first_part, second, last = INSIDE[row]["merge"].split("; ")
    for part in (first_part, second):
        name, text = part.split(" = ")
        names[name] = eval(text, {}, names)
    torch.testing.assert_close(block(h_in), eval(last, {}, names), rtol=1e-12, atol=1e-12)
    assert ("bias" in dict(block.bn2.named_parameters())) == (not clamped)


def test_row_52_is_adapt_gate_in_other_blocks_and_row_54_is_not():
    for kind in (BasicBlock, PreActivationBlock):
        blocks = {}
        for merge in ("adapt_gate", "authors_52", "authors_54"):
            block = kind(4, 4, 1, BlockParts(merge=merge, merge_site="branch")).double().eval()
            with torch.no_grad():
                for index, parameter in enumerate(block.parameters()):
                    parameter.copy_(draw(*parameter.shape, seed=index))
            blocks[merge] = block(draw(2, 4, 5, 5, seed=9))
        assert torch.equal(blocks["adapt_gate"], blocks["authors_52"])
        assert not torch.allclose(blocks["adapt_gate"], blocks["authors_54"])


def test_row_59_by_hand():
    merge = MERGES["authors_59"].build(3).double()
    with torch.no_grad():
        for index, parameter in enumerate(merge.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=index))
    x, f = draw(4, 3, 2, 2, seed=7), draw(4, 3, 2, 2, seed=8)
    x_hat = functional.batch_norm(x, None, None, merge.bn_x.weight, merge.bn_x.bias, training=True)
    f_hat = functional.batch_norm(f, None, None, merge.bn_f.weight, merge.bn_f.bias, training=True)
    gamma = merge.bn_x.weight.abs()
    attended = torch.stack([x[:, c] / (1 + torch.exp(-gamma[c] / gamma.sum() * x_hat[:, c])) for c in range(3)], 1)
    torch.testing.assert_close(merge(x, f), attended + f_hat, rtol=1e-12, atol=1e-12)

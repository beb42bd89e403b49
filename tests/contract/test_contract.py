"""What every level of a merge, an attention and a network must bear: forward, seed, evaluation, state, half precision.

One small network a variant is trained a little, and all is asked of copies of it. That each level also compiles into one graph
is asked of the parts alone; that a stack of networks trains as each of them, by ``test_fused_levels.py``. Three
``add_matched`` levels stand for all of them at the branch and where they are compiled. No level needs an exception, so a level
that does not keep to this is a fault of that level.
"""

import copy

import pytest
import torch
from operators import MATCHED as ALL_MATCHED
from operators import PLAIN
from torch import nn
from torch.nn import functional

from study.config import TrialConfig
from study.models import build_network
from study.models.attention import build_attention
from study.models.blocks import BasicBlock, BlockParts
from study.registry import ATTENTION_FORMS, ATTENTIONS, MERGES, NETWORKS

MATCHED = ["add_matched_mul_bn", "add_matched_concat", "add_matched_star"]
OPERATORS = PLAIN + MATCHED
PAIRS = [(a, form) for a in ATTENTIONS.names() for form in ATTENTION_FORMS.names() if "none" not in (a, form)]
# what a form does to a graph it does with any gate; those that weigh pairs of positions or single channels stand for all
COMPILED = [(a, form) for a, form in PAIRS if form in ("native", "add", "shuffled") or a in ("se", "non_local")]
SMALLEST = [{"network": entry.name, "depth": entry.traits["smallest_depth"]} for entry in NETWORKS]
VARIANTS = [{"merge": name, "merge_site": "skip"} for name in PLAIN + ALL_MATCHED]
VARIANTS += [{"merge": name, "merge_site": "branch"} for name in OPERATORS]
VARIANTS += [{"attention": a, "attention_form": form} for a, form in PAIRS] + SMALLEST
VARIANTS += [{"attention": "se", "attention_form": form, "merge": "sig_bn"} for a, form in PAIRS if a == "se"]
LABELS = torch.arange(6) % 4


def label(variant):
    return "-".join(map(str, variant.values()))


def network(variant, seed=3) -> nn.Module:
    config = TrialConfig(**{"dataset": "fake", "depth": 8, "width": 8, "seed": seed, "split_seed": 0} | variant)
    return build_network(config, num_classes=4, mean=(0.5, 0.4), deviation=(0.25, 0.5))


def images(variant, seed=0):
    """Six images of 8x8, or 32x32 for ImageNet's networks, which quarter the resolution first.

    At 8x8 they would stride over 1x1 maps, and there torch 2.15 on the CPU gives bfloat16 gradients of a 3x3 convolution
    from memory that it has not written.
    """
    side = 32 if variant.get("network", "").startswith("imagenet") else 8
    return torch.rand(6, 2, side, side, generator=torch.Generator().manual_seed(seed))


def trained_a_little(variant) -> nn.Module:
    """Off the starting point, where gates are zero and running statistics trivial."""
    model = network(variant)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for seed in range(3):
        model.zero_grad()
        functional.cross_entropy(model(images(variant, seed)), LABELS).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_a_level_keeps_to_the_contract(variant):
    model, x = trained_a_little(variant), images(variant)
    check_shape_and_gradients(copy.deepcopy(model), x, variant)
    check_seed_alone_decides(variant, x)
    check_evaluation(copy.deepcopy(model), x, variant)
    check_state_is_carried(copy.deepcopy(model), network(variant, seed=4), x)
    check_bfloat16(model, x)


def check_shape_and_gradients(model, x, variant) -> None:
    model.zero_grad()
    logits = model(x)
    assert logits.shape == (6, 4) and torch.isfinite(logits).all()
    functional.cross_entropy(logits, LABELS).backward()
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all(), name
        if variant.get("attention_form") == "untrained" and ".gate." in name:
            assert not parameter.requires_grad and parameter.grad is None, name
            continue
        # a parameter without a gradient is dead weight, and twins would differ in more than their form
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def check_seed_alone_decides(variant, x) -> None:
    first = network(variant).state_dict()
    torch.manual_seed(99)
    model, other = network(variant), network(variant, seed=4).state_dict()
    assert all(torch.equal(first[name], value) for name, value in model.state_dict().items())
    assert any(not torch.equal(first[name], other[name]) for name in first)
    # and forward draws nothing: two passes in training mode from one state agree and move no generator
    twin, state = copy.deepcopy(model), torch.get_rng_state()
    assert torch.equal(model(x), twin(x))
    assert torch.equal(torch.get_rng_state(), state)


def check_evaluation(model, x, variant) -> None:
    """A pure function of the image, where the level does not mix the batch by declaration."""
    model, x = model.double().eval(), x.double()
    kept = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        whole, again, other = model(x), model(x), model(torch.cat([x[:1], 1 - x[1:]]))
        assert torch.equal(whole, again) and whole.isfinite().all()
        assert not torch.allclose(whole[0], whole[1])  # images do matter
        if any(part.traits.get("mixes_batch") for part in parts(variant)):
            assert not torch.allclose(other[0], whole[0], rtol=1e-11, atol=0)  # the trait is no empty word
        else:
            close = {"rtol": 1e-10, "atol": 1e-12}
            torch.testing.assert_close(model(x[2:3]), whole[2:3], **close)
            torch.testing.assert_close(model(x.flip(0)).flip(0), whole, **close)
            torch.testing.assert_close(other[:1], whole[:1], **close)
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())


def parts(variant):
    return MERGES[variant.get("merge", "add")], ATTENTION_FORMS[variant.get("attention_form", "none")]


def check_state_is_carried(model, other, x) -> None:
    assert not torch.equal(model.eval()(x), other.eval()(x))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(x), other(x))


def check_bfloat16(model, x) -> None:
    model.zero_grad()
    with torch.no_grad():
        exact = copy.deepcopy(model)(x)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    functional.cross_entropy(logits.float(), LABELS).backward()
    assert logits.dtype == torch.bfloat16 and logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    # roundings of some ten layers; the largest of all levels is plain multiplication at the skip, at 4 eps
    error = (logits.float() - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert 0 < error < 10 * torch.finfo(torch.bfloat16).eps


def scattered(module, seed=5) -> nn.Module:
    """A part alone, in float64, its parameters moved off their start."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.double()


def draw(seed):
    return torch.randn(4, 4, 4, 4, generator=torch.Generator().manual_seed(seed)).double()


def compiles(module, *inputs) -> None:
    """One graph, without Python between, with the outputs, gradients and buffers of eager mode.

    ``aot_eager`` traces forward and backward as every backend does, and runs the traces by torch's own kernels.
    """
    torch._dynamo.reset()
    twin = copy.deepcopy(module)
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True, dynamic=False)
    leaves = [[x.clone().requires_grad_() for x in inputs] for _ in range(2)]
    expected, got = module(*leaves[0]), compiled(*leaves[1])
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9)).to(expected)
    for out in (expected, got):
        (out * weight).sum().backward()
    close = {"rtol": 1e-9, "atol": 1e-9} if expected.dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(got, expected, **close)
    for ours, theirs in zip([*leaves[0], *module.parameters()], [*leaves[1], *twin.parameters()], strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        if ours.grad is not None:
            torch.testing.assert_close(theirs.grad, ours.grad, **close)
    for ours, theirs in zip(module.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(theirs, ours, **close)


# one class each: the row with the most clamps, one inside the branch, and NAM
COMPILED_ROWS = {None, 24, 57, 59}


@pytest.mark.parametrize("name", [n for n in OPERATORS if MERGES[n].traits.get("row") in COMPILED_ROWS])
def test_an_operator_compiles_into_one_graph(name):
    compiles(scattered(MERGES[name].build(4)), draw(1), draw(2))


@pytest.mark.parametrize(("attention", "form"), COMPILED)
def test_an_attention_compiles_into_one_graph(attention, form):
    compiles(scattered(build_attention(attention, form, 4)), draw(1))


@pytest.mark.parametrize("site", ["skip", "branch"])
def test_a_block_compiles_into_one_graph_at_either_site(site):
    block = BasicBlock(4, 8, 2, BlockParts(merge="mul_bn", merge_site=site, attention="se", attention_form="mul"))
    compiles(scattered(block), draw(1))


@pytest.mark.parametrize("variant", SMALLEST, ids=label)
def test_a_network_compiles_into_one_graph(variant):
    compiles(network(variant).double(), images(variant).double())

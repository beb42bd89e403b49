"""What every level of a merge, an attention and a network must bear: compilation, half precision, stacking, a step.

``test_registry.py`` holds the contract of forward, seed and state; here it is that of the ways in which a network is run.
Three ``add_matched`` levels stand for all of them. No level needs an exception: each compiles into one graph, keeps to the
tolerance under bfloat16 and stacks with ``randomness="error"``, so a level that does not is a fault of that level.
"""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

from study.config import TrialConfig
from study.models import build_network
from study.models.attention import build_attention
from study.models.blocks import BasicBlock, BlockParts
from study.registry import ATTENTION_FORMS, ATTENTIONS, MERGES, NETWORKS

MATCHED = ["add_matched_mul_bn", "add_matched_concat", "add_matched_star"]
OPERATORS = [entry.name for entry in MERGES if "matches" not in entry.traits] + MATCHED
PAIRS = [(a, form) for a in ATTENTIONS.names() for form in ATTENTION_FORMS.names() if "none" not in (a, form)]
# what a form does to a graph it does with any gate; those that weigh pairs of positions or single channels stand for all
COMPILED = [(a, form) for a, form in PAIRS if form in ("native", "add", "shuffled") or a in ("se", "non_local")]
SMALLEST = [{"network": entry.name, "depth": entry.traits["smallest_depth"]} for entry in NETWORKS]
VARIANTS = [{"merge": name, "merge_site": site} for site in ("skip", "branch") for name in OPERATORS]
VARIANTS += [{"attention": a, "attention_form": form} for a, form in PAIRS] + SMALLEST
LABELS = torch.arange(4)


def label(variant):
    return "-".join(map(str, variant.values()))


def network(variant, seed=3) -> nn.Module:
    config = TrialConfig(**{"dataset": "fake", "depth": 8, "width": 4, "seed": seed, "split_seed": 0} | variant)
    return build_network(config, num_classes=4, mean=(0.5,), deviation=(0.25,))


def images(variant, seed=0):
    """Four images of 8x8, or 32x32 for ImageNet's networks, which quarter the resolution first.

    At 8x8 they would stride over 1x1 maps, and there torch 2.15 on the CPU gives bfloat16 gradients of a 3x3 convolution
    from memory that it has not written.
    """
    side = 32 if variant.get("network", "").startswith("imagenet") else 8
    return torch.rand(4, 1, side, side, generator=torch.Generator().manual_seed(seed))


def step(model, x, lr=0.05) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    functional.cross_entropy(model(x), LABELS).backward()
    optimizer.step()


def trained_a_little(variant) -> nn.Module:
    """Off the starting point; two steps, as non-local attention has one zero layer behind another. No gradients are kept."""
    model = network(variant)
    for seed in (1, 2):
        step(model, images(variant, seed))
        model.zero_grad()
    return model


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


@pytest.mark.parametrize("name", OPERATORS)
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


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_in_bfloat16_a_network_keeps_to_its_logits(variant):
    model = trained_a_little(variant)
    x = images(variant)
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


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_a_stack_of_networks_trains_as_each_of_them(variant):
    """Outputs, gradients and updated buffers in training mode: a group of replicates is trained so."""
    models = [network(variant, seed).double() for seed in (1, 2)]
    x = torch.stack([images(variant, seed).double() for seed in (1, 2)])
    shape, start = copy.deepcopy(models[0]), copy.deepcopy(dict(models[1].named_buffers()))
    parameters, buffers = stack_module_state(copy.deepcopy(models))

    def run(values, kept, x):
        return functional_call(shape, (values, kept), (x,))

    logits = vmap(run, randomness="error")(parameters, buffers, x)
    functional.cross_entropy(logits.flatten(0, 1), LABELS.repeat(2), reduction="sum").backward()
    close = {"rtol": 1e-9, "atol": 1e-11}
    for index, model in enumerate(models):
        single = model(x[index])
        functional.cross_entropy(single, LABELS, reduction="sum").backward()
        torch.testing.assert_close(logits[index], single, **close)
        for name, parameter in model.named_parameters():
            stacked = parameters[name].grad
            assert (stacked is None) == (parameter.grad is None), name
            if stacked is not None:
                torch.testing.assert_close(stacked[index], parameter.grad, **close)
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(buffers[name][index], buffer, **close)
    assert any(not torch.equal(start[name], buffer) for name, buffer in models[1].named_buffers())


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_after_a_step_evaluation_is_a_pure_function_of_the_image(variant):
    model, x = trained_a_little(variant), images(variant)
    step(model, x)
    for name, parameter in model.named_parameters():
        # an untrained gate asks for no gradient; all else has one, at either site
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.requires_grad or variant["attention_form"] == "untrained", name
        assert parameter.isfinite().all() and (parameter.grad is None or parameter.grad.isfinite().all()), name
    model.double().eval()
    kept = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        whole, again = model(x.double()), model(x.double())
        assert torch.equal(whole, again) and whole.isfinite().all()
        assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())
        if any(part.traits.get("mixes_batch") for part in parts(variant)):
            other = model(torch.cat([x[:1], 1 - x[1:]]).double())
            assert not torch.allclose(other[0], whole[0], rtol=1e-11, atol=0)  # the trait is no empty word
        else:
            torch.testing.assert_close(model(x[1:2].double()), whole[1:2], rtol=1e-10, atol=1e-12)


def parts(variant):
    return MERGES[variant.get("merge", "add")], ATTENTION_FORMS[variant.get("attention_form", "none")]

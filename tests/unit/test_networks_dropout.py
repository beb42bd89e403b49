"""Dropout by hash: its masks against Bernoulli's, apart by layer and step, equal on resumption, on ``vmap``, across cells."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

from study.config import TrialConfig
from study.errors import UserError
from study.models import build_network, num_flops, num_params
from study.models.fixed_draws import HashedDropout, hash32
from study.seeding import derive_seed
from study.training.loop import DrawsEachStep

CPU = torch.device("cpu")
SHAPE = torch.Size((32, 8, 16, 16))


def layer(share=0.3, seed=7, step=0) -> HashedDropout:
    one = HashedDropout(share).train()
    one.start_from(derive_seed("layer", seed))
    one.start_step(derive_seed("step", step))
    return one


def network(share=0.3, seed=1, **changes) -> nn.Module:
    values = {"dataset": "fake", "network": "wrn", "depth": 10, "width": 1, "seed": seed, "split_seed": 0}
    config = TrialConfig(**values | {"dropout": share} | changes)
    return build_network(config, num_classes=4, mean=(0.5,), deviation=(0.25,))


def layers(model) -> list[HashedDropout]:
    return [module for module in model.modules() if isinstance(module, HashedDropout)]


def start(model, step) -> nn.Module:
    for one in layers(model):
        one.start_step(derive_seed("replicate", step))
    return model


def pixels(n=6):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9])
def test_keep_share_mean_and_variance_are_bernoullis(share):
    n = SHAPE.numel()
    for step in range(3):
        one = layer(share, step=step)
        kept = one.kept(SHAPE, CPU).double()
        deviation = math.sqrt(share * (1 - share))
        assert abs(float(kept.mean()) - (1 - share)) < 4 * deviation / n**0.5
        out = one(torch.ones(SHAPE, dtype=torch.float64))
        assert set(out.unique().tolist()) == {0.0, 1 / (1 - share)}
        # of x / (1 - p) with probability 1 - p: mean x, variance x^2 p / (1 - p)
        assert float(out.mean()) == pytest.approx(1, abs=4 * deviation / (1 - share) / n**0.5)
        assert float(out.var()) == pytest.approx(share / (1 - share), rel=0.05)
        for margin in (kept.mean((1, 2, 3)), kept.mean((0, 2, 3)), kept.mean((0, 1))):  # images, channels, places
            allowed = 5 * deviation / (n / margin.numel()) ** 0.5
            assert (margin - (1 - share)).abs().max() < allowed


def test_counts_in_runs_of_sixteen_are_binomial():
    share, size = 0.3, 16
    kept = layer(share).kept(SHAPE, CPU).view(-1, size).sum(1)
    counts = torch.bincount(kept, minlength=size + 1).double()
    expected = [math.comb(size, k) * (1 - share) ** k * share ** (size - k) * len(kept) for k in range(size + 1)]
    merged = sum(expected[:7]), float(counts[:7].sum())  # rare ones together, so that each expects five or more
    pairs = [merged, *((e, float(c)) for e, c in zip(expected[7:], counts[7:], strict=True))]
    assert min(e for e, _ in pairs) > 5
    assert sum((c - e) ** 2 / e for e, c in pairs) < 29.6  # 99.9 per cent of chi-squared with 10 degrees of freedom


def test_masks_of_layers_steps_and_places_are_unrelated():
    n, share = SHAPE.numel(), 0.5
    signs = {
        (seed, step): 2 * layer(share, seed, step).kept(SHAPE, CPU).double() - 1 for seed in (1, 2) for step in (1, 2)
    }
    one = signs[1, 1]
    others = [signs[1, 2], signs[2, 1], signs[2, 2], signs[2, 1] * signs[1, 2] * signs[2, 2]]
    others += [one.roll(1, axis) for axis in range(4)] + [one.roll((1, 1), (2, 3)), one.roll(16, 0)]
    for other in others:
        assert abs(float((one * other).mean())) < 4 / n**0.5


def test_no_two_places_of_two_layers_share_their_mask_over_the_steps():
    one, other, shape, steps = layer(0.5, 1), layer(0.5, 2), torch.Size((2**18,)), 60
    # with a mere XOR of the layer's and the step's seed, places whose hashes differ by this would agree in every step
    places = hash32(torch.arange(shape.numel()))
    partner = places ^ int(one.layer_seed) ^ int(other.layer_seed)
    order = places.argsort()
    found = torch.searchsorted(places[order], partner).clamp(max=len(order) - 1)
    mine = (places[order][found] == partner).nonzero().flatten()
    theirs = order[found][mine]
    assert len(mine) > 4  # 2^36 pairs of places, of which one in 2^32
    agree, same_place = torch.zeros(len(mine)), torch.zeros(shape)
    for step in range(steps):
        for drops in (one, other):
            drops.start_step(derive_seed("step", step))
        masks = one.kept(shape, CPU), other.kept(shape, CPU)
        agree += masks[0][mine] == masks[1][theirs]
        same_place += masks[0] == masks[1]
    assert (agree < 0.85 * steps).all()  # five standard deviations
    standard = (same_place - steps / 2) / math.sqrt(steps / 4)
    assert standard.abs().max() < 6 and float(standard.var()) == pytest.approx(1, abs=0.02)


def test_masks_are_frozen_and_those_of_the_hash_in_whole_numbers():
    def hash32(value):
        for _ in range(2):
            value = ((value ^ value >> 16) * 0x45D9F3B) % 2**32
        return value ^ value >> 16

    one = layer(0.5, 3, 4)
    seed = hash32(derive_seed("layer", 3) % 2**32 ^ hash32(derive_seed("step", 4) % 2**32))
    expected = "".join(str(int(hash32(hash32(index) ^ seed) >= 2**31)) for index in range(24))
    found = one.kept(torch.Size((2, 2, 2, 3)), CPU).flatten().int().tolist()
    # results rest on them: another hash would be another experiment
    assert "".join(map(str, found)) == expected == "100001001100001100101110"


def test_the_gradient_is_that_of_the_mask_and_evaluation_is_the_identity():
    one, x = layer(), torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    (slope,) = torch.autograd.grad(one(x).sum(), x)
    torch.testing.assert_close(slope, one.kept(x.shape, CPU).double() / 0.7, rtol=1e-12, atol=0)
    assert torch.autograd.gradcheck(one, (x,))
    assert one.eval()(x) is x
    for dtype in (torch.float16, torch.bfloat16):
        assert one.train()(x.detach().to(dtype)).dtype == dtype
    assert torch.equal(layer(0.0)(x), x)


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, math.nan])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(UserError, match=f"setting 'dropout' = {share}: expected a number from 0 to below 1"):
        HashedDropout(share)


def test_a_mask_stays_within_a_step_and_changes_with_the_next():
    model = start(network(), 1)
    first = model(pixels())
    assert torch.equal(first, model(pixels())) and not torch.allclose(first, start(model, 2)(pixels()))
    assert torch.equal(first, start(model, 1)(pixels()))
    # and in evaluation, or without dropout, no step matters
    model.eval()
    assert torch.equal(start(model, 1)(pixels()), start(model, 2)(pixels()))
    plain = network(0.0).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "layer_seed" not in k})
    assert torch.equal(plain(pixels()), model(pixels()))


def test_a_resumed_training_has_the_masks_it_would_have_had():
    def step(model, optimizer, number):
        optimizer.zero_grad()
        functional.cross_entropy(start(model, number)(pixels()), torch.arange(6) % 4).backward()
        optimizer.step()

    def optimizer_of(model):
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    straight = network()
    optimizer = optimizer_of(straight)
    for number in range(2):
        step(straight, optimizer, number)
    kept = copy.deepcopy({"model": straight.state_dict(), "optimizer": optimizer.state_dict()})
    step(straight, optimizer, 2)
    resumed = network(seed=5)  # other weights and other masks, until the checkpoint is loaded
    resumed.load_state_dict(kept["model"])
    optimizer = optimizer_of(resumed)
    optimizer.load_state_dict(kept["optimizer"])
    wrong = copy.deepcopy(resumed)
    step(resumed, optimizer, 2)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))
    assert not torch.equal(start(wrong, 2)(pixels()), start(wrong, 3)(pixels()))
    assert not [name for name in kept["model"] if "step_seed" in name]
    assert sum(isinstance(module, DrawsEachStep) for module in resumed.modules()) == 3  # the training loop finds them


def test_a_stack_of_networks_is_each_of_them():
    models = [start(network(seed=seed), step) for seed, step in ((1, 4), (2, 9))]
    parameters, buffers = stack_module_state(copy.deepcopy(models))
    assert sum("step_seed" in name for name in buffers) == 3
    x = torch.stack([pixels(), 1 - pixels()])

    def run(values, kept, x):
        return functional_call(models[0], (values, kept), (x,))

    stacked = vmap(run)(parameters, buffers, x)
    for index, model in enumerate(models):
        torch.testing.assert_close(stacked[index], model(x[index]), rtol=1e-4, atol=1e-5)


def test_layers_have_seeds_of_their_own_and_cells_share_them():
    seeds = [int(one.layer_seed) for one in layers(network(depth=16))]
    assert len(set(seeds)) == len(seeds) == 6 and all(0 < seed < 2**32 for seed in seeds)
    for changes in ({"merge": "mul_bn"}, {"merge_site": "branch", "merge": "mul"}, {"share": 0.1}):
        assert [int(one.layer_seed) for one in layers(network(depth=16, **changes))] == seeds
    assert [int(one.layer_seed) for one in layers(network(depth=16, seed=2))] != seeds
    masks = [one.kept(SHAPE, CPU) for one in layers(start(network(), 1))]
    assert not torch.equal(masks[0], masks[1])


def test_dropout_lies_between_the_two_convolutions_and_costs_nothing():
    dropped, plain = network(), network(0.0)
    assert not layers(plain) and num_params(dropped) == num_params(plain)
    assert num_flops(dropped, (1, 8, 8)) == num_flops(plain, (1, 8, 8))
    assert dict(plain.named_parameters()).keys() == dict(dropped.named_parameters()).keys()
    block, h = start(network(merge="mul", merge_site="branch"), 3).stages[1][0], torch.rand(5, 16, 8, 8)
    a = block.bn1(h).relu()
    g = block.bn2(block.conv1(a)).relu()
    thinned = g * block.dropout.kept(g.shape, CPU) / 0.7
    # the operator at the branch takes g whole
    torch.testing.assert_close(block(h), block.shortcut(a) + g * block.conv2(thinned))


def test_networks_without_a_place_refuse_it():
    for name, depth in (("cifar_resnet", 8), ("cifar_resnet_bottleneck", 11), ("imagenet_resnet", 18)):
        message = (
            rf"setting 'dropout' = 0.3: network '{name}' has no place for it \(networks that have: wrn, authors_wrn\)"
        )
        with pytest.raises(UserError, match=message):
            network(network=name, depth=depth)
        assert network(0.0, network=name, depth=depth)

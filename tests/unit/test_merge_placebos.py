"""The two placebos of ``tanh_gate``: who is paired with whom, and what the noise is."""

import pytest
import torch
from torch import nn

from study.config import TrialConfig
from study.errors import UserError
from study.models import build_network, num_flops, num_params
from study.models.fixed_draws import derangement
from study.models.merges.placebos import NoiseGate
from study.registry import MERGES

CPU = torch.device("cpu")


def network(seed=1, **changes) -> nn.Module:
    config = TrialConfig(**{"dataset": "fake", "depth": 8, "width": 8, "seed": seed, "split_seed": 0} | changes)
    return build_network(config, num_classes=4, mean=(0.5,), deviation=(0.25,))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pixels(n=6):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("n", [2, 3, 4, 7, 128, 500])
def test_everyone_is_paired_with_another_one_once(n):
    partner = derangement(n, CPU)
    assert sorted(partner.tolist()) == list(range(n)) and (partner != torch.arange(n)).all()
    again = derangement.__wrapped__(n, CPU)
    assert torch.equal(partner, again)
    if n >= 128:  # sorted by class, neighbours are of one class: partners lie anywhere
        distance = (partner - torch.arange(n)).abs().float()
        assert distance.mean() == pytest.approx(n / 3, rel=0.15)


def test_a_batch_of_one_is_refused_in_one_line():
    for model in (network(merge="tanh_gate_shuffled"), network(merge="tanh_gate_shuffled").eval()):
        with pytest.raises(UserError, match=r"tanh_gate_shuffled.* batch of one") as caught:
            model(pixels(1))
        assert "\n" not in str(caught.value)


def test_a_pairing_first_asked_for_without_gradients_serves_with_them():
    derangement.cache_clear()
    model = network(merge="tanh_gate_shuffled")
    with torch.inference_mode():
        model(pixels())
    model(pixels()).sum().backward()


def test_those_that_mix_the_batch_say_so_and_do():
    assert [e.name for e in MERGES if e.traits.get("mixes_batch")] == ["tanh_gate_shuffled"]
    model = network(merge="tanh_gate_shuffled").double().eval()
    x = pixels().double()
    changed = x.clone()
    changed[4] = 1 - changed[4]
    moved = (model(x) - model(changed)).abs().amax(1) > 1e-6
    # three blocks hand it on along the cycle: to the three before it
    partner, expected = derangement(6, CPU).tolist(), {4}
    for _ in range(3):
        expected |= {i for i, j in enumerate(partner) if j in expected}
    assert {i for i, value in enumerate(moved.tolist()) if value} == expected


def test_placebos_cost_what_the_gate_costs():
    gate = network(merge="tanh_gate")
    for name in ("tanh_gate_shuffled", "noise_gate"):
        placebo = network(merge=name)
        assert num_params(placebo) == num_params(gate)
        assert num_flops(placebo, (1, 8, 8)) == num_flops(gate, (1, 8, 8)) > 0


def test_the_noise_has_the_variance_of_the_gate():
    merge = NoiseGate(4).double()
    merge.start_from(3)
    x, f = draw(16, 4, 6, 6).double().abs() + 0.5, 2 * draw(16, 4, 6, 6, seed=1).double()
    e = merge(x, f) / x - 1
    variance = f.tanh().var((0, 2, 3), unbiased=False)
    torch.testing.assert_close(e.square().mean((0, 2, 3)), variance + 1e-5)
    assert ((1 + e > 0) & (1 + e < 2)).all()  # within the range of 1 + tanh F
    assert torch.equal(merge.eval()(x, f), x)


def test_signs_are_balanced_and_unrelated():
    merge = NoiseGate(8)
    merge.start_from(11)
    r = merge.signs(torch.Size((64, 8, 8, 8)), CPU).double()
    assert set(r.unique().tolist()) == {-1.0, 1.0}
    assert abs(r.mean()) < 4 / r.numel() ** 0.5
    for other in (r.roll(1, 0), r.roll(1, 1), r.roll(1, 2), r.roll(1, 3), r.roll(3, 0), r.roll((1, 1), (0, 1))):
        assert abs((r * other).mean()) < 4 / r.numel() ** 0.5
    for margin in (r.mean((1, 2, 3)), r.mean((0, 2, 3)), r.mean((0, 1))):  # of images, channels, places
        allowed = 5 / (r.numel() / margin.numel()) ** 0.5
        assert margin.abs().max() < allowed
    other = NoiseGate(8)
    other.start_from(12)
    assert abs((r * other.signs(torch.Size((64, 8, 8, 8)), CPU)).mean()) < 4 / r.numel() ** 0.5


def test_blocks_and_seeds_have_noise_of_their_own_and_checkpoints_carry_it():
    seeds = [int(block.merge.noise_seed) for stage in network(merge="noise_gate", depth=14).stages for block in stage]
    assert len(set(seeds)) == 6 and all(0 < seed < 2**32 for seed in seeds)
    one, other = network(merge="noise_gate"), network(seed=2, merge="noise_gate")
    assert int(one.stages[0][0].merge.noise_seed) == seeds[0] != int(other.stages[0][0].merge.noise_seed)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(pixels()), other(pixels()))


def test_signs_are_frozen():
    # results rest on them: another hash would change every noise_gate
    merge = NoiseGate(2)
    merge.start_from(1)
    assert merge.signs(torch.Size((1, 2, 2, 4)), CPU).flatten().tolist() == [
        -1,
        -1,
        -1,
        -1,
        1,
        -1,
        1,
        1,
        1,
        -1,
        1,
        1,
        -1,
        1,
        -1,
        -1,
    ]

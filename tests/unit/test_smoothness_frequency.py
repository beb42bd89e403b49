"""Frequencies along paths: waves, sums of them, a tent and a jump, whose power is known; scipy's transform of a network."""

import math

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor
from toys import Fn, conv_context, gated_net, gen, images, run
from toys import fn_context as context

from study.smoothness import IncompleteError, in_turn, unit_logits
from study.smoothness.frequency import spectrum
from study.smoothness.pairs import draw_pairs

ENDS = torch.tensor([[0.0], [1.0]], dtype=torch.float64)


def along(curve, **settings) -> dict:
    """Estimates on the one path from 0 to 1, by name, of the network whose first logit of two is ``curve``."""
    net = Fn(lambda x: torch.stack([curve(x[:, 0]), 0 * x[:, 0]], 1), 2)
    with pytest.raises(IncompleteError, match="no same-class pair") as caught:
        run("frequency", context(net, ENDS, torch.tensor([0, 1])), **settings)
    assert not any("same" in name for name in caught.value.estimates)
    return {name.replace("_different", ""): value for name, value in caught.value.estimates.items()}


def wave(k: float, t: Tensor) -> Tensor:
    return torch.sin(math.pi * k * t)


@pytest.mark.parametrize("k", [2, 3, 5, 9])
def test_a_single_wave_has_all_its_power_at_its_frequency(k: int) -> None:
    found = along(lambda t: 7 * wave(k, t) + 3 * t - 1, above=[k - 1, k], num_steps=32)
    assert found[f"frequency_logits_above_{k - 1}"].value == pytest.approx(1, abs=1e-12)
    assert found[f"frequency_logits_above_{k}"].value == pytest.approx(0, abs=1e-12)
    assert found["frequency_logits_mean_log"].value == pytest.approx(math.log(k), abs=1e-12)
    assert found["frequency_logits_eligible"].value == 1
    # one pair has no standard error
    assert math.isnan(found["frequency_logits_mean_log"].stderr) and not found["frequency_logits_mean_log"].converged


def test_two_waves_share_the_power_as_their_squares() -> None:
    found = along(lambda t: 3 * wave(2, t) + 4 * wave(5, t), above=[1, 2, 4, 5])
    shares = [found[f"frequency_logits_above_{k}"].value for k in (1, 2, 4, 5)]
    assert shares == pytest.approx([1, 16 / 25, 16 / 25, 0], abs=1e-12)
    assert found["frequency_logits_mean_log"].value == pytest.approx(math.log((9 * 2 + 16 * 5) / 25))


def test_power_is_summed_over_classes() -> None:
    def two(x: Tensor) -> Tensor:
        t = x[:, 0]
        return torch.stack([3 * wave(2, t), 4 * wave(5, t), 0 * t], 1)

    with pytest.raises(IncompleteError) as caught:
        run("frequency", context(Fn(two, 3), ENDS, torch.tensor([0, 1])))
    assert caught.value.estimates["frequency_logits_different_above_2"].value == pytest.approx(16 / 25)


def test_a_tent_has_the_fourier_series_of_a_tent() -> None:
    found = along(lambda t: torch.minimum(t, 1 - t), num_steps=256, above=[1, 2, 3, 4, 8])
    for k in (1, 2, 3, 4, 8):
        # odd half waves alone, in proportion to k^-4; their sum is pi^4 / 96
        below = sum(j**-4 for j in range(1, k + 1, 2)) * 96 / math.pi**4
        assert found[f"frequency_logits_above_{k}"].value == pytest.approx(1 - below, abs=1e-5)
    # of so many points exactly: odd half waves in proportion to sin(pi k / 2 n)^-4
    power = np.sin(np.pi * np.arange(1, 256, 2) / 512) ** -4
    assert found["frequency_logits_above_1"].value == pytest.approx(1 - power[0] / power.sum(), rel=1e-9)


def test_a_jump_has_powers_of_one_over_k_squared() -> None:
    n = 512
    power = spectrum((torch.arange(n + 1, dtype=torch.float64) > n / 2 - 0.25).double().view(1, -1, 1))[0]
    # a jump in the middle less its chord: waves of even k, the sawtooth 1 / 2 - t twice over
    assert power[::2].max() < 1e-4 * power[1]
    expected = (torch.arange(1, 6, dtype=torch.float64) * math.pi) ** -2
    torch.testing.assert_close(power[1:11:2], expected, rtol=1e-3, atol=0)


def test_parseval_and_scipys_transform() -> None:
    curve = torch.randn(5, 17, 3, generator=gen(), dtype=torch.float64)
    g = (
        curve - torch.lerp(curve[:, :1], curve[:, -1:], torch.linspace(0, 1, 17, dtype=torch.float64)[:, None])
    ).numpy()
    power = spectrum(curve).numpy()
    coefficients = scipy.fft.dst(g[:, 1:-1], type=1, axis=1) / 16
    np.testing.assert_allclose(power, (coefficients**2).sum(2), rtol=1e-9)
    np.testing.assert_allclose(16 / 2 * power.sum(1), (g**2).sum((1, 2)), rtol=1e-12)


def test_a_network_against_scipys_transform_on_every_scale() -> None:
    net, x = gated_net(), images(40)
    ctx = conv_context(net, x)
    y = ctx.labels["test"]
    found = run("frequency", ctx, num_pairs=30, num_steps=16, above=[1, 3])
    t = torch.linspace(0, 1, 17)[:, None, None, None]
    for kind in ("same", "different"):
        pairs = draw_pairs(y, 30, kind == "same", ctx.generator(f"path/{kind}/test"))
        with torch.no_grad():
            z = np.stack([net((1 - t) * x[a] + t * x[b]).double().numpy() for a, b in pairs.tolist()])
        exp = np.exp(z / 1.5 - (z / 1.5).max(2, keepdims=True))
        scales = {"logits": z - z.mean(2, keepdims=True), "tempered": exp / exp.sum(2, keepdims=True)}
        scales["unit_logits"] = scales["logits"] / np.linalg.norm(scales["logits"], axis=2, keepdims=True)
        for scale, curve in scales.items():
            at = np.linspace(0, 1, 17)[:, None]
            power = scipy.fft.dst((curve - (1 - at) * curve[:, :1] - at * curve[:, -1:])[:, 1:-1], type=1, axis=1) ** 2
            power = power.sum(2)
            for k in (1, 3):
                share = power[:, k:].sum(1) / power.sum(1)
                got = found[f"frequency_{scale}_{kind}_above_{k}"]
                assert got.value == pytest.approx(share.mean(), rel=1e-4)
                np.testing.assert_allclose(got.samples, share, rtol=1e-2, atol=1e-6)
            mean = np.log((power * np.arange(1, 16)).sum(1) / power.sum(1))
            assert found[f"frequency_{scale}_{kind}_mean_log"].value == pytest.approx(mean.mean(), abs=1e-4)


def curved(x: Tensor) -> Tensor:
    return torch.stack([torch.sin(9 * x[:, 0]), torch.cos(5 * x[:, 0]), x[:, 0]], 1)


def test_size_and_common_shifts_of_logits_change_no_share() -> None:
    x = torch.rand(40, 1, generator=gen(), dtype=torch.float64)
    plain = run("frequency", context(Fn(curved, 3), x), num_pairs=50)
    changed = Fn(lambda x: 7 * curved(x) + torch.exp(3 * x), 3)  # the same moves all classes: no prediction turns on it
    other = run("frequency", context(changed, x), num_pairs=50)
    for name, value in plain.items():
        if "logits" in name:
            assert other[name].value == pytest.approx(value.value, rel=1e-9), name
    grown = Fn(lambda x: curved(x) * torch.exp(3 * x), 3)  # logits that grow along the path
    assert torch.allclose(unit_logits(grown(x)), unit_logits(curved(x)))
    other = run("frequency", context(grown, x), num_pairs=50)
    for name, value in plain.items():
        same = other[name].value == pytest.approx(value.value, rel=1e-9)
        assert same == ("unit_logits" in name or name.endswith("eligible")), name


def test_a_linear_network_has_nothing_but_rounding() -> None:
    w, x = torch.randn(3, 400, generator=gen()), torch.rand(40, 400, generator=gen(1))
    found = run("frequency", context(Fn(lambda x: x @ w.T + 1, 3), x), num_pairs=30)
    for kind in ("same", "different"):
        assert found[f"frequency_logits_{kind}_eligible"].value == 0
        lost = found[f"frequency_logits_{kind}_above_1"]
        assert math.isnan(lost.value) and not lost.converged and lost.num_samples == 0
        # probabilities are curved all the same
        assert found[f"frequency_tempered_{kind}_eligible"].value == 1
        assert found[f"frequency_tempered_{kind}_above_1"].converged


@pytest.mark.parametrize(("straight", "converged"), [(2, True), (4, False)])
def test_straight_paths_are_counted_and_left_out(straight: int, converged: bool) -> None:
    # images on the lower side are mapped straight, the others are curved; pairs are those of one side
    def bent(x: Tensor) -> Tensor:
        t = x[:, 0]
        return torch.stack([(t - 0.5).clamp_min(0) ** 2, 0 * t], 1)

    x = torch.cat([torch.linspace(0, 0.4, straight), torch.linspace(0.6, 1, 10 - straight)])[:, None].double()
    y = (torch.arange(10) >= straight).long()
    found = run("frequency", context(Fn(bent, 2), x, y), num_pairs=1000)
    low, all_pairs = math.comb(straight, 2), math.comb(straight, 2) + math.comb(10 - straight, 2)
    eligible, share = (found[f"frequency_logits_same_{name}"] for name in ("eligible", "above_1"))
    assert eligible.value == pytest.approx(1 - low / all_pairs) and eligible.num_samples == all_pairs
    assert share.num_samples == all_pairs - low and share.converged is converged
    # the single values keep their places
    assert int(share.samples.isnan().sum()) == low and len(share.samples) == all_pairs
    # a parabola's half waves: odd ones, in proportion to k^-6
    power = np.sin(np.pi * np.arange(1, 32, 2) / 64) ** -6 * np.cos(np.pi * np.arange(1, 32, 2) / 64) ** 2
    assert share.value == pytest.approx(1 - power[0] / power.sum(), rel=1e-6)


def test_waves_too_fast_for_the_steps_are_not_converged() -> None:
    x = torch.rand(40, 1, generator=gen(), dtype=torch.float64)

    def net(speed: float) -> Fn:
        return Fn(lambda x: torch.stack([torch.sin(speed * math.pi * x[:, 0]), 0 * x[:, 0]], 1), 2)

    name = "frequency_logits_different_above_4"
    slow, fast = (run("frequency", context(net(speed), x), num_pairs=100)[name] for speed in (6, 150))
    assert slow.converged and not fast.converged
    assert run("frequency", context(net(150), x), num_pairs=20, num_steps=512)[name].converged


def test_a_temperature_that_did_not_converge_marks_its_scale() -> None:
    ctx = conv_context(gated_net(), images(40), temperature_converged=False)
    for name, value in run("frequency", ctx, num_pairs=30, tolerance=9.0).items():
        assert value.converged == ("tempered" not in name or name.endswith("eligible")), name


def test_lines_are_passed_once_for_all_statistics_of_them() -> None:
    order = ["linear_regions", "frequency", "path"]
    assert in_turn(reversed(order)) == order
    seen = []
    net = gated_net()
    net.register_forward_hook(lambda module, given, z: seen.append(len(z)))
    ctx = conv_context(net, images(40), chunk=45)
    run("linear_regions", ctx, num_pairs=5, num_samples=2, num_steps=8, sigmas=[16])
    first = sum(seen)
    small = {"num_pairs": 20, "num_steps": 8}
    run("frequency", ctx, **small, above=[1])
    assert sum(seen) - first == 2 * 15 * 9
    both = run("path", ctx, **small)
    assert sum(seen) - first == 2 * 15 * 9
    assert both == run("path", conv_context(gated_net(), images(40), chunk=45), **small)


def drawn(n: int, seed: int) -> Tensor:
    return torch.rand(n, 4, generator=gen(seed), dtype=torch.float64)


def coverage(num_studies: int, n: int = 60) -> dict[str, tuple[float, float]]:
    """The truth, and the share of 95 % intervals that hold it, of 300 pairs of ``n`` images, which share images."""

    def net(x: Tensor) -> Tensor:
        return torch.stack([torch.sin(6 * x[:, 0]) * x[:, 1], torch.cos(5 * x[:, 2]), x[:, 3] ** 2], 1)

    def estimates(x: Tensor, num_pairs: int, seed: int) -> dict:
        y = torch.arange(len(x)) % 2  # tells nothing of the image: both kinds of pairs have one truth
        settings = {"num_pairs": num_pairs, "num_steps": 16, "above": [1]}
        return run("frequency", context(Fn(net, 3), x, y, seed=seed, chunk=10_000), **settings)

    names = [
        f"frequency_{scale}_different_{name}" for scale in ("logits", "tempered") for name in ("above_1", "mean_log")
    ]
    population = estimates(drawn(20_000, 10**6), 10_000, 0)
    held = dict.fromkeys(names, 0.0)
    for study in range(num_studies):
        found = estimates(drawn(n, study), 300, study)
        for name in names:
            held[name] += (abs(found[name].value - population[name].value) <= 1.96 * found[name].stderr) / num_studies
    return {name: (population[name].value, held[name]) for name in names}


def test_intervals_hold_the_truth_although_pairs_share_images() -> None:
    # as if pairs were independent they do so in .74 to .80
    assert all(0.86 < share < 0.99 for _, share in coverage(100).values())

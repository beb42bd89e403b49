"""Gates that no public library holds against their formulas, written out once more; where every gate starts."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import study.models  # noqa: F401  registers attention
from study.models.attention import build_attention
from study.models.attention.channel import eca_kernel_size
from study.registry import ATTENTION_FORMS, ATTENTIONS

GATES = [name for name in ATTENTIONS.names() if name != "none"]


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gate(name, channels=4, scattered=True):
    built = ATTENTIONS[name].build(channels).double()
    if scattered:
        for index, parameter in enumerate(built.parameters()):
            parameter.data.copy_(draw(*parameter.shape, seed=index) / parameter[0].numel() ** 0.5)
    return built


def normalised(x, bn):
    """The batch norm in training mode, from its definition."""
    mean, square = x.mean((0, 2, 3), keepdim=True), (x**2).mean((0, 2, 3), keepdim=True)
    scale, shift = (t.view(1, -1, 1, 1) for t in (bn.weight, bn.bias))
    return (x - mean) / (square - mean**2 + 1e-5).sqrt() * scale + shift


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def test_simam_by_hand():
    x = torch.tensor([[1.0, 3.0], [5.0, 7.0]], dtype=torch.float64).view(1, 1, 2, 2)
    # mean 4, squared distances 9, 1, 1, 9, their sum over HW - 1 = 3: 20 / 3
    energy = torch.tensor([9.0, 1.0, 1.0, 9.0], dtype=torch.float64) / (4 * (20 / 3 + 1e-4)) + 0.5
    native = ATTENTION_FORMS["native"].build(ATTENTIONS["simam"].build(1), 1)
    assert not list(native.parameters())  # as published
    expected = x * sigmoid(energy).view(1, 1, 2, 2)
    torch.testing.assert_close(native(x), expected, rtol=1e-14, atol=0)
    flat = torch.full((1, 1, 1, 1), 3.0)  # one position: no variance, no division by zero
    torch.testing.assert_close(native(flat), flat * torch.tensor(0.5).sigmoid())


def test_the_inverse_energy_of_simam_is_its_papers():
    """1 / e of the paper's equation 5, e = 4 (v + l) / ((x - mu)^2 + 2 v + 2 l), is the logit."""
    x = draw(2, 3, 4, 4)
    mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True)
    energy = 4 * (variance + 1e-4) / ((x - mean) ** 2 + 2 * variance + 2e-4)
    torch.testing.assert_close(gate("simam", scattered=False)(x), sigmoid(1 / energy), rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("channels", "size"), [(4, 3), (8, 3), (16, 3), (32, 3), (64, 3), (128, 5), (256, 5), (512, 5)]
)
def test_ecas_kernel_size_by_hand(channels, size):
    # (log2 C + 1) / 2 is 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5
    assert eca_kernel_size(channels) == size


def test_eca_is_a_sum_over_neighbouring_channels():
    built, x = gate("eca", 6), draw(2, 6, 3, 5)
    w, pooled = built.conv.weight.flatten(), functional.pad(x.mean((2, 3)), (1, 1))
    logits = torch.stack([(pooled[:, c : c + 3] * w).sum(1) for c in range(6)], dim=1)
    torch.testing.assert_close(built(x)[:, :, 0, 0], sigmoid(logits), rtol=1e-13, atol=0)


def test_nam_by_hand():
    built, x = gate("nam"), draw(3, 4, 2, 5)
    gamma = torch.tensor([0.5, -1.5, 1.0, -0.25], dtype=torch.float64)
    built.bn.weight.data.copy_(gamma)
    weight = torch.tensor([2.0, 6.0, 4.0, 1.0], dtype=torch.float64) / 13
    logits = weight.view(1, -1, 1, 1) * normalised(x, built.bn)
    torch.testing.assert_close(built(x), sigmoid(built.strength.alpha * logits), rtol=1e-11, atol=0)
    built.as_published()
    torch.testing.assert_close(built(x), sigmoid(logits), rtol=1e-11, atol=0)
    assert [name for name, _ in built.named_parameters()] == ["bn.weight", "bn.bias"]
    # the weights made of gamma are constants to the gradient, as in the authors' code
    expected = torch.autograd.grad((sigmoid(logits) * x).sum(), built.bn.weight)
    torch.testing.assert_close(
        torch.autograd.grad((built(x) * x).sum(), built.bn.weight), expected, rtol=1e-9, atol=1e-12
    )


def test_srm_by_hand():
    built, x = gate("srm"), draw(5, 4, 3, 2)
    mean = x.mean((2, 3))
    deviation = (((x - mean[:, :, None, None]) ** 2).mean((2, 3)) + 1e-5).sqrt()
    w = built.conv.weight[:, 0, 0]
    style = (mean * w[:, 0] + deviation * w[:, 1])[:, :, None, None]
    torch.testing.assert_close(built(x), sigmoid(normalised(style, built.bn)), rtol=1e-9, atol=0)
    assert built.eval()(draw(2, 4, 1, 1)).isfinite().all()


def test_bam_by_hand():
    built, x = gate("bam", 3), draw(4, 3, 5, 6)
    w1, bn1 = built.channel[0].weight[:, :, 0, 0], built.channel[1]
    hidden = normalised((x.mean((2, 3)) @ w1.T)[:, :, None, None], bn1).clamp(min=0)[:, :, 0, 0]
    channel = hidden @ built.channel_last.weight[:, :, 0, 0].T + built.channel_last.bias
    h = normalised(torch.einsum("oc,nchw->nohw", built.spatial[0].weight[:, :, 0, 0], x), built.spatial[1]).clamp(min=0)
    for conv, bn in ((built.spatial[3], built.spatial[4]), (built.spatial[6], built.spatial[7])):
        padded, total = functional.pad(h, (4, 4, 4, 4)), 0
        for i, j in itertools.product(range(3), range(3)):
            window = padded[:, :, 4 * i : 4 * i + 5, 4 * j : 4 * j + 6]
            total = total + torch.einsum("oc,nchw->nohw", conv.weight[:, :, i, j], window)
        h = normalised(total, bn).clamp(min=0)
    last = built.spatial_last
    spatial = torch.einsum("oc,nchw->nohw", last.weight[:, :, 0, 0], h) + last.bias.view(1, 1, 1, 1)
    a = sigmoid(channel[:, :, None, None] + spatial)
    torch.testing.assert_close(built(x), a, rtol=1e-9, atol=0)
    native = ATTENTION_FORMS["native"].build(built, 3).double()
    torch.testing.assert_close(native(x), x * (1 + a), rtol=1e-9, atol=1e-12)


def test_cbam_applies_its_spatial_gate_to_the_channel_attended_map():
    built, x = gate("cbam", 8).eval(), draw(2, 8, 4, 4)
    mlp = nn.Sequential(built.fc1, nn.ReLU(), built.fc2)
    expected = sigmoid(sum(mlp(pool.view(2, 8, 1, 1)) for pool in (x.mean((2, 3)), x.flatten(2).max(2).values)))
    torch.testing.assert_close(built(x), expected * built.spatial(x * expected), rtol=1e-13, atol=0)
    assert not torch.allclose(built(x), expected * built.spatial(x))


def test_non_local_weights_are_a_softmax_over_the_positions_attended_to():
    built, x = gate("non_local"), draw(2, 4, 2, 3)
    weights = built(x)
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 6, dtype=torch.float64))
    theta, phi = built.theta(x).flatten(2), built.phi(x).flatten(2)
    expected = torch.empty_like(weights)
    for n, i in itertools.product(range(2), range(6)):
        scores = torch.stack([(theta[n, :, i] * phi[n, :, j]).sum().exp() for j in range(6)])
        expected[n, i] = scores / scores.sum()
    torch.testing.assert_close(weights, expected, rtol=1e-12, atol=0)


def test_sk_weights_are_those_of_the_first_of_two_kernels():
    built, x = gate("sk").eval(), draw(2, 4, 3, 3)
    hidden = built.bn(built.fc1(2 * x.mean((2, 3), keepdim=True))).clamp(min=0)
    first, second = built.fc2(hidden).chunk(2, dim=1)
    torch.testing.assert_close(built(x), first.exp() / (first.exp() + second.exp()), rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", GATES)
def test_with_its_last_layers_at_zero_u_is_zero_and_the_gate_can_leave(name):
    built = gate(name, 8)
    for layer in built.last_layers:
        parameters = list(layer.parameters(recurse=False))
        assert parameters, "a last layer holds parameters of its own"
        for parameter in parameters:
            nn.init.zeros_(parameter)
    x = draw(4, 8, 4, 4)
    u = built.centred(x)
    assert not u.any()
    (u * draw(*u.shape, seed=1)).sum().backward()
    for layer in built.last_layers:  # off zero at the first step: neither of two paths blocks the other
        assert any(parameter.grad.abs().max() > 0 for parameter in layer.parameters())


@pytest.mark.parametrize("name", GATES)
def test_u_is_the_gate_over_its_neutral_value(name):
    built, x = gate(name, 8).eval(), draw(2, 8, 4, 4)
    neutral = 1 / 16 if name == "non_local" else 0.25 if name in ("cbam", "coordinate") else 0.5
    torch.testing.assert_close(built.centred(x), built(x) / neutral - 1, rtol=1e-13, atol=1e-13)
    assert built.centred(x).abs().max() > 1e-3


@pytest.mark.parametrize("name", [entry.name for entry in ATTENTIONS if entry.name != "none"])
def test_parameters_are_those_that_the_registry_tells(name):
    told = ATTENTIONS[name].traits["extra_params"]
    for channels in (4, 6, 8, 16, 64, 128, 512):
        built = sum(p.numel() for p in build_attention(name, "mul", channels).parameters())
        known = {"C": channels, "gcd": math.gcd, "log2": math.log2}
        assert eval(told, known) == built, channels

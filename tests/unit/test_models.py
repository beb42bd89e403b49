"""Networks against torchvision's parts and closed forms, merges and attention against their formulas, initial weights."""

import math

import pytest
import torch
from operators import PLAIN
from torch import nn
from torchvision.models.resnet import BasicBlock as PublicBlock
from torchvision.ops import SqueezeExcitation as PublicSE

from study.config import TrialConfig
from study.errors import UserError
from study.models import build_network, num_flops, num_params
from study.models.attention import build_attention
from study.models.blocks import BasicBlock, BlockParts
from study.models.merges.normalised import FORMS
from study.registry import ATTENTIONS, MERGES

# exact in float32: the float64 references normalise by the very same numbers
MEAN, DEVIATION = (0.5, 0.25, 0.375), (0.25, 0.5, 0.125)


def network(seed=1, channels=3, num_classes=10, **changes) -> nn.Module:
    config = TrialConfig(**{"dataset": "fake", "depth": 8, "width": 8, "seed": seed, "split_seed": 0} | changes)
    return build_network(config, num_classes=num_classes, mean=MEAN[:channels], deviation=DEVIATION[:channels])


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pixels(n=4, channels=3, size=8, seed=0):
    return torch.rand(n, channels, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class PublicCifarResNet(nn.Module):
    """torchvision's basic blocks in the 6n + 2 layout. torchvision itself has ImageNet's stem and four stages only."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        channels = width
        for stage in range(3):
            blocks = []
            for index in range((depth - 2) // 6):
                out, stride = width * 2**stage, 2 if stage and not index else 1
                down = None
                if stride == 2:
                    down = nn.Sequential(nn.Conv2d(channels, out, 1, 2, bias=False), nn.BatchNorm2d(out))
                blocks.append(PublicBlock(channels, out, stride, down))
                channels = out
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, 10)

    def forward(self, x):
        mean, deviation = (torch.tensor(v, dtype=x.dtype).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
        h = torch.relu(self.bn1(self.conv1((x - mean) / deviation)))
        h = self.layer3(self.layer2(self.layer1(h)))
        return self.fc(nn.functional.adaptive_avg_pool2d(h, 1).flatten(1))


def public_name(name: str) -> str:
    for stage in range(3):
        name = name.replace(f"stages.{stage}", f"layer{stage + 1}")
    name = name.replace("shortcut", "downsample").replace("head", "fc")
    head, _, rest = name.partition(".")
    return f"{head}1.{rest}" if head in ("conv", "bn") else name


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("depth", [8, 14, 20])
def test_logits_and_input_gradients_equal_those_of_torchvisions_blocks(depth, training):
    ours = network(depth=depth).double()
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):  # off the trivial start, so that every norm counts
            for index, tensor in enumerate((module.weight, module.bias, module.running_mean, module.running_var)):
                tensor.data.copy_(draw(len(tensor), seed=index).abs() + 0.5)
    theirs = PublicCifarResNet(depth, 8).double()
    state = {public_name(k): v for k, v in ours.state_dict().items() if not k.startswith("normalize")}
    theirs.load_state_dict(state, strict=True)
    ours.train(training), theirs.train(training)
    results = []
    for model in (ours, theirs):
        x = pixels().requires_grad_()
        logits = model(x)
        (logits * draw(4, 10, seed=9)).sum().backward()
        results.append((logits.detach(), x.grad))
    # the pooling sums in another order: rounding only
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-9, atol=1e-9 * float(results[1][1].abs().max()))
    assert results[0][1].abs().max() > 1e-6


@pytest.mark.parametrize("channels", [8, 64, 128])
def test_the_se_gate_is_torchvisions(channels):
    ours = ATTENTIONS["se"].build(channels).double()
    theirs = PublicSE(channels, max(channels // 16, 4)).double()
    # named_parameters names a layer once; the state dict repeats the last one under its second name
    theirs.load_state_dict(dict(ours.named_parameters()), strict=True)
    x, y = draw(3, channels, 5, 4).requires_grad_(), draw(3, channels, 5, 4).requires_grad_()
    (x * ours(x) * draw(3, channels, 5, 4, seed=1)).sum().backward()
    (theirs(y) * draw(3, channels, 5, 4, seed=1)).sum().backward()
    torch.testing.assert_close(ours(x) * x, theirs(y), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-10, atol=1e-12)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_attention_weights_the_normalised_branch_before_the_merge(stride):
    ours = BasicBlock(4, 4 * stride, stride, BlockParts(merge="mul", attention="se", attention_form="native"))
    ours.double().eval()
    gate = PublicSE(4 * stride, 4).double()
    gate.load_state_dict(dict(ours.attention.gate.named_parameters()))
    for index, tensor in enumerate((ours.bn2.weight, ours.bn2.bias, ours.bn2.running_mean, ours.bn2.running_var)):
        tensor.data.copy_(draw(len(tensor), seed=index).abs() + 0.5)
    h = draw(2, 4, 6, 6)
    f = gate(ours.bn2(ours.conv2(torch.relu(ours.bn1(ours.conv1(h))))))
    shortcut = h if stride == 1 else ours.shortcut[1](ours.shortcut[0](h))
    torch.testing.assert_close(ours(h), torch.relu(shortcut * f), rtol=1e-12, atol=1e-12)


def normalised(x, weight, bias):
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


FORMULAS = {
    "add": lambda m, x, f: x + f,
    "add_alias": lambda m, x, f: x + f,
    "none": lambda m, x, f: f,
    "mul": lambda m, x, f: x * f,
    "sig_bn": lambda m, x, f: (
        1 / (1 + torch.exp(-normalised(f, m.bn_f.weight, m.bn_f.bias))) * normalised(x, m.bn_x.weight, m.bn_x.bias)
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_merge_is_its_formula(name):
    merge = MERGES[name].build(3).double()
    for index, parameter in enumerate(merge.parameters()):
        parameter.data.copy_(draw(*parameter.shape, seed=10 + index))
    x, f = draw(4, 3, 2, 2, seed=1), draw(4, 3, 2, 2, seed=2)
    torch.testing.assert_close(merge(x, f), FORMULAS[name](merge, x, f), rtol=1e-12, atol=1e-12)
    x, f = x.requires_grad_(), f.requires_grad_()
    assert torch.autograd.gradcheck(merge, (x, f))
    merge.eval()
    assert torch.autograd.gradcheck(merge, (x, f))


def test_sig_bn_normalises_once():
    assert set(FORMULAS) <= set(MERGES.names())
    block = network(merge="sig_bn").stages[1][0]
    norms = [name for name, module in block.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms == ["bn1", "merge.bn_f", "merge.bn_x"] and block.merge.form == FORMS["sig_bn"]


def test_a_block_without_a_skip_holds_no_projection():
    assert not [name for name, _ in network(merge="none").named_parameters() if "shortcut" in name]


@pytest.mark.parametrize("form", ["mul", "add", "static"])
def test_forms_start_equal_to_no_attention(form):
    plain, attended = network(), network(attention="se", attention_form=form)
    x = pixels().float()
    assert torch.equal(plain.eval()(x), attended.eval()(x))
    assert torch.equal(plain.train()(x), attended.train()(x))
    native = network(attention="se", attention_form="native")  # initialised as published: the check can fail
    assert not torch.allclose(plain.eval()(x), native.eval()(x))


def test_the_gates_last_layer_alone_starts_at_zero():
    twin, native = (dict(network(attention="se", attention_form=f).named_parameters()) for f in ("mul", "native"))
    assert twin.keys() == native.keys()
    for name, parameter in twin.items():
        if ".fc2." in name:
            assert not parameter.any() and native[name].any()
        else:
            assert torch.equal(parameter, native[name])


@pytest.mark.parametrize("form", ["mul", "add", "native"])
def test_a_form_is_its_formula(form):
    attended = build_attention("se", form, 6).double().eval()
    for index, parameter in enumerate(attended.parameters()):
        parameter.data.copy_(draw(*parameter.shape, seed=index))
    x = draw(3, 6, 4, 4, seed=30)
    gate = attended.gate
    hidden = (x.mean((2, 3)) @ gate.fc1.weight[:, :, 0, 0].T + gate.fc1.bias).clamp(min=0)
    a = torch.sigmoid(hidden @ gate.fc2.weight[:, :, 0, 0].T + gate.fc2.bias)[:, :, None, None]
    u = 2 * a - 1
    if form == "add":
        variance = torch.tensor([0.25, 1.0, 4.0, 9.0, 0.01, 2.0], dtype=torch.float64)
        attended.statistics.running_var.copy_(variance)
        expected = x + variance.sqrt().view(1, 6, 1, 1) * u
    else:
        expected = x * (1 + u) if form == "mul" else x * a
    torch.testing.assert_close(attended(x), expected, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(attended, (draw(2, 6, 2, 2, seed=31).requires_grad_(),))


def test_the_additive_form_tracks_the_variance_and_sends_no_gradient_through_it():
    attended = build_attention("se", "add", 4).double().train()
    x = 3 * draw(5, 4, 3, 3)
    attended(x)
    expected = 0.9 + 0.1 * x.var((0, 2, 3))
    torch.testing.assert_close(attended.statistics.running_var, expected, rtol=1e-12, atol=1e-12)
    attended.gate.fc2.bias.data.fill_(0.7)  # a constant gate: the map is x plus a constant, its derivative 1
    attended.gate.fc2.weight.data.zero_()
    y = x.clone().requires_grad_()
    attended(y).sum().backward()
    torch.testing.assert_close(y.grad, torch.ones_like(y))


def test_the_static_form_is_its_formula():
    attended = build_attention("se", "static", 4).double()
    assert [name for name, _ in attended.named_parameters()] == ["theta"]
    attended.theta.data.copy_(torch.tensor([0.0, 0.5, -1.0, 20.0]))
    x = draw(2, 4, 3, 3).requires_grad_()
    scale = torch.tensor([1 + math.tanh(t) for t in (0.0, 0.5, -1.0, 20.0)], dtype=torch.float64)
    torch.testing.assert_close(attended(x), x * scale.view(1, 4, 1, 1))
    assert torch.autograd.gradcheck(attended, (x,))


def test_twins_hold_the_same_parameters():
    mul, add = (network(attention="se", attention_form=form) for form in ("mul", "add"))
    shapes = [{name: p.shape for name, p in model.named_parameters()} for model in (mul, add)]
    assert shapes[0] == shapes[1] and num_params(mul) == num_params(add) > num_params(network())
    assert num_flops(mul, (3, 8, 8)) == num_flops(add, (3, 8, 8))


@pytest.mark.parametrize(("attention", "form"), [("se", "none"), ("none", "mul"), ("none", "static")])
def test_a_form_without_an_attention_and_the_reverse_are_refused(attention, form):
    with pytest.raises(UserError, match=f"attention = '{attention}' with attention_form = '{form}'"):
        network(attention=attention, attention_form=form)


def test_names_shared_by_two_cells_start_at_equal_weights():
    reference = dict(network(merge="add").named_parameters())
    others = [{"merge": name} for name in PLAIN] + [{"attention": "se", "attention_form": "mul"}]
    for changes in [*others, {"depth": 14}]:
        other = dict(network(**changes).named_parameters())
        shared = reference.keys() & other.keys()
        assert "head.weight" in shared and "stages.2.0.conv2.weight" in shared
        assert all(torch.equal(reference[name], other[name]) for name in shared), changes
    assert not torch.equal(reference["conv.weight"], network(seed=2).conv.weight)
    # equal shapes under other names start apart
    assert not torch.equal(reference["stages.0.0.conv1.weight"], reference["stages.0.0.conv2.weight"])


def test_initial_weights_have_hes_fan_out_variance():
    model = network(width=32)
    for name in ("stages.1.0.conv1", "stages.1.0.conv2", "stages.2.0.conv1", "stages.1.0.shortcut.0"):
        weight = model.get_parameter(f"{name}.weight").detach()
        fan_out = weight.shape[0] * weight.shape[2] * weight.shape[3]
        # the relative standard error of a variance is sqrt(2 / n); fan-in would be off by a factor of two
        allowed = 4 * math.sqrt(2 / weight.numel())
        assert float(weight.var()) * fan_out / 2 == pytest.approx(1, abs=allowed) and allowed < 0.15
        assert abs(float(weight.mean())) < 4 * math.sqrt(2 / fan_out / weight.numel())
    bound = 1 / math.sqrt(128)
    for tensor in (model.head.weight, model.head.bias):
        assert tensor.abs().max() <= bound
    assert float(model.head.weight.detach().var()) == pytest.approx(bound**2 / 3, rel=0.15)
    assert model.bn.weight.eq(1).all() and not model.bn.bias.any()


@pytest.mark.parametrize("depth", [-4, 0, 2, 7, 9, 10, 16, 18])
def test_a_depth_that_is_not_6n_plus_2_is_refused(depth):
    with pytest.raises(UserError, match=f"depth = {depth}: .*6n \\+ 2"):
        network(depth=depth)


@pytest.mark.parametrize(("depth", "params"), [(20, 272_474), (32, 466_906), (44, 661_338), (56, 855_770)])
def test_parameter_counts_are_the_published_ones(depth, params):
    # https://github.com/chenyaofo/pytorch-cifar-models, cifar10_resnet*: 1x1 projections with batch norm, 10 classes
    assert num_params(network(depth=depth, width=16)) == params


def test_parameters_and_flops_by_hand():
    model = network(channels=1)  # depth 8, width 8, 8x8 images: stages at 64, 16 and 4 positions
    stem, head = 9 * 8 + 2 * 8, 32 * 10 + 10
    stage1 = 2 * 9 * 8 * 8 + 2 * 2 * 8
    stage2 = 9 * 8 * 16 + 9 * 16 * 16 + 8 * 16 + 3 * 2 * 16
    stage3 = 9 * 16 * 32 + 9 * 32 * 32 + 16 * 32 + 3 * 2 * 32
    assert num_params(model) == stem + stage1 + stage2 + stage3 + head == 19_810
    multiply_adds = 9 * 8 * 64 + 2 * 9 * 8 * 8 * 64
    multiply_adds += (9 * 8 * 16 + 9 * 16 * 16 + 8 * 16) * 16 + (9 * 16 * 32 + 9 * 32 * 32 + 16 * 32) * 4 + 32 * 10
    model.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert num_flops(model, (1, 8, 8)) == 2 * multiply_adds == 386_688
    assert model.training and all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    # two 1x1 convolutions to 4 and back in each of three blocks, on one position
    se = network(channels=1, attention="se", attention_form="mul")
    assert num_flops(se, (1, 8, 8)) - 386_688 == 2 * 2 * 4 * (8 + 16 + 32)

"""Networks against public ones: torchvision's ResNets, torchvision's bottlenecks in CIFAR's layout, the WRN authors' code."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torchvision.models.resnet import Bottleneck as PublicBottleneck
from torchvision_weights import load_torchvision, torchvision_key, torchvision_state_dict

from study.config import TrialConfig
from study.errors import UserError
from study.models import build_network, num_flops, num_params
from study.models.blocks import BlockParts
from study.registry import NETWORKS

MEAN, DEVIATION = (0.5, 0.25, 0.375), (0.25, 0.5, 0.125)


def network(name, depth, width, num_classes=10, **changes) -> nn.Module:
    """Seeded, its norms off the trivial start so that every one of them counts."""
    config = TrialConfig(
        dataset="fake", network=name, depth=depth, width=width, seed=1, split_seed=0, **changes
    )  # fmt: skip
    model = build_network(config, num_classes=num_classes, mean=MEAN, deviation=DEVIATION)
    for index, module in enumerate(model.modules()):
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.copy_(0.5 + draw(len(tensor), seed=index).abs() / 2)
    return model


def outline(name, depth, width=64, num_classes=1000, **changes) -> nn.Module:
    """Shapes alone."""
    with torch.device("meta"):
        return NETWORKS[name].build(
            depth=depth,
            width=width,
            num_classes=num_classes,
            mean=MEAN,
            deviation=DEVIATION,
            parts=BlockParts(**changes),
        )


def public(depth, num_classes=1000) -> nn.Module:
    with torch.device("meta"):
        return getattr(torchvision.models, f"resnet{depth}")(num_classes=num_classes)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pixels(n, size, dtype=torch.float32):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0)).to(dtype)


def normalised(x):
    return (x - torch.tensor(MEAN).to(x).view(1, 3, 1, 1)) / torch.tensor(DEVIATION).to(x).view(1, 3, 1, 1)


def assert_near(got, expected, tolerance):
    """Relative to the largest value: rounding of small ones rests on the large ones beside them."""
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("depth", [18, 50])
def test_the_imagenet_network_is_torchvisions(depth, training):
    ours = network("imagenet_resnet", depth, 64).train(training)
    theirs = public(depth, 10).to_empty(device="cpu").train(training)
    theirs.load_state_dict(torchvision_state_dict(ours), strict=True)
    weights, results = draw(3, 10, seed=9), []
    for model, prepare in ((ours, lambda x: x), (theirs, normalised)):
        x = pixels(3, 64).requires_grad_()
        logits = model(prepare(x))
        (logits * weights).sum().backward()
        results.append((logits.detach(), x.grad))
    assert_near(results[0][0], results[1][0], 1e-5)
    assert_near(results[0][1], results[1][1], 1e-4)
    assert float(results[1][0].std()) > 1e-3 and results[1][1].any()
    slopes = {torchvision_key(name): parameter.grad for name, parameter in ours.named_parameters()}
    found = dict(theirs.named_parameters())
    assert slopes.keys() == found.keys()
    for name, parameter in found.items():
        assert_near(slopes[name], parameter.grad, 1e-4)
    statistics = torchvision_state_dict(ours)
    for name, buffer in theirs.named_buffers():  # running statistics, moved in training
        assert_near(statistics[name].float(), buffer.float(), 1e-5)


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_keys_shapes_parameters_and_flops_are_torchvisions(depth):
    ours, theirs = outline("imagenet_resnet", depth), public(depth)
    found = {name: value.shape for name, value in torchvision_state_dict(ours).items()}
    assert found == {name: value.shape for name, value in theirs.state_dict().items()}
    assert num_params(ours) == num_params(theirs)
    published = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160}  # torchvision's documentation
    assert num_params(ours) == published[depth]
    giga = {18: 1.81, 34: 3.66, 50: 4.09, 101: 7.80}[depth]  # multiply-adds at 224x224, the same documentation
    assert num_flops(ours, (3, 224, 224)) / 2e9 == pytest.approx(giga, abs=0.011)


def test_weights_travel_both_ways():
    one, other = network("imagenet_resnet", 18, 8), network("imagenet_resnet", 18, 8)
    for parameter in other.parameters():
        parameter.data.mul_(-3)
    assert not torch.equal(one.eval()(pixels(2, 64)), other.eval()(pixels(2, 64)))
    load_torchvision(other, torchvision_state_dict(one))
    assert torch.equal(one(pixels(2, 64)), other(pixels(2, 64)))
    assert len(torchvision_state_dict(one)) == len(one.state_dict()) - 2  # all but the normalisation


def test_weights_that_do_not_fit_are_refused_and_nothing_is_copied():
    model = network("imagenet_resnet", 18, 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    good = {name: 2 * value for name, value in torchvision_state_dict(model).items()}
    lacking = {name: value for name, value in good.items() if name != "layer2.0.downsample.0.weight"}
    for bad, message in (
        (good | {"layer5.0.conv1.weight": draw(1)}, r"'layer5.0.conv1.weight' is not in the network .did you mean"),
        (lacking, r"'layer2.0.downsample.0.weight' is not in the state_dict"),
        (good | {"fc.bias": draw(1000)}, r"'fc.bias' has shape \(1000,\) in the state_dict, \(10,\) in the network"),
    ):
        with pytest.raises(UserError, match=message):
            load_torchvision(model, bad)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class PublicCifarBottlenecks(nn.Module):
    """torchvision's bottlenecks in the 9n + 2 layout of 1603.05027."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        channels = width
        for stage in range(3):
            blocks = []
            for index in range((depth - 2) // 9):
                planes, stride = width * 2**stage, 2 if stage and not index else 1
                down = None
                if channels != 4 * planes:
                    projection = nn.Conv2d(channels, 4 * planes, 1, stride, bias=False)
                    down = nn.Sequential(projection, nn.BatchNorm2d(4 * planes))
                blocks.append(PublicBottleneck(channels, planes, stride, down))
                channels = 4 * planes
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, 10)

    def forward(self, x):
        h = torch.relu(self.bn1(self.conv1(normalised(x))))
        h = self.layer3(self.layer2(self.layer1(h)))
        return self.fc(functional.adaptive_avg_pool2d(h, 1).flatten(1))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("depth", [11, 20])
def test_cifar_bottlenecks_are_torchvisions(depth, training):
    ours = network("cifar_resnet_bottleneck", depth, 4).double().train(training)
    theirs = PublicCifarBottlenecks(depth, 4).double().train(training)
    theirs.load_state_dict(torchvision_state_dict(ours), strict=True)
    compare(ours, theirs)


def compare(ours, theirs) -> None:
    results = []
    for model in (ours, theirs):
        x = pixels(4, 9, torch.float64).requires_grad_()  # an odd size: strides round alike
        logits = model(x)
        (logits * draw(4, 10, seed=9).double()).sum().backward()
        results.append((logits.detach(), x.grad))
    assert_near(results[0][0], results[1][0], 1e-11)
    assert_near(results[0][1], results[1][1], 1e-9)
    assert results[0][1].abs().max() > 1e-6


def wide_resnet(model: nn.Module, x, num_blocks: int):
    """The forward pass of the authors' functional code (szagoruyko/wide-residual-networks, pytorch/resnet.py)."""

    def norm(h, layer):
        own = (layer.running_mean, layer.running_var) if not model.training else (None, None)
        return torch.relu(functional.batch_norm(h, *own, layer.weight, layer.bias, training=model.training))

    x = functional.conv2d(normalised(x), model.conv.weight, padding=1)
    for stage, stride in enumerate((1, 2, 2)):
        for index in range(num_blocks):
            part, step = model.stages[stage][index], stride if index == 0 else 1
            o1 = norm(x, part.bn1)
            y = functional.conv2d(o1, part.conv1.weight, stride=step, padding=1)
            z = functional.conv2d(norm(y, part.bn2), part.conv2.weight, padding=1)
            if x.shape != z.shape:
                x = functional.conv2d(o1, part.shortcut[0].weight, stride=step)
            x = z + x
    return functional.linear(norm(x, model.bn).mean((2, 3)), model.head.weight, model.head.bias)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(("depth", "factor"), [(10, 1), (16, 2)])
def test_wide_resnets_are_the_authors(depth, factor, training):
    model = network("wrn", depth, factor).double().train(training)
    compare(model, lambda x: wide_resnet(model, x, (depth - 4) // 6))


@pytest.mark.parametrize(
    ("depth", "factor", "millions"),
    [(40, 1, 0.6), (40, 2, 2.2), (40, 4, 8.9), (40, 8, 35.7), (28, 10, 36.5), (28, 12, 52.5), (22, 8, 17.2),
     (22, 10, 26.8), (16, 8, 11.0), (16, 10, 17.1)],
)  # fmt: skip
def test_wide_resnets_have_the_papers_parameters(depth, factor, millions):
    assert num_params(outline("wrn", depth, factor, 10)) / 1e6 == pytest.approx(millions, abs=0.0501)


def test_parameters_of_small_networks_by_hand():
    # WRN-10-1, 3 colours, 10 classes: a norm holds two a channel; x is projected where the shape changes
    stem, head = 27 * 16, 2 * 64 + 64 * 10 + 10
    stage1 = 2 * (16 + 16) + 2 * 9 * 16 * 16
    stage2 = 2 * (16 + 32) + 9 * 16 * 32 + 9 * 32 * 32 + 16 * 32
    stage3 = 2 * (32 + 64) + 9 * 32 * 64 + 9 * 64 * 64 + 32 * 64
    assert num_params(outline("wrn", 10, 1, 10)) == stem + stage1 + stage2 + stage3 + head == 77_850
    # 1603.05027, table 4
    assert num_params(outline("cifar_resnet_bottleneck", 164, 16, 10)) / 1e6 == pytest.approx(1.7, abs=0.0501)
    assert NETWORKS["wrn"].traits["dropout"] and NETWORKS["cifar_resnet"].traits["smallest_depth"] == 8


@pytest.mark.parametrize(
    ("name", "depth", "message"),
    [("cifar_resnet_bottleneck", depth, "9n \\+ 2") for depth in (-7, 2, 8, 10, 12, 163)]
    + [("wrn", depth, "6n \\+ 4") for depth in (-2, 4, 8, 14, 27)]
    + [("imagenet_resnet", depth, "18, 34, 50 or 101") for depth in (0, 8, 20, 152)],
)
def test_a_depth_that_a_network_does_not_have_is_refused(name, depth, message):
    with pytest.raises(UserError, match=f"depth = {depth}: an? {name} has depth {message}"):
        outline(name, depth, 4)
    smallest = NETWORKS[name].traits["smallest_depth"]
    assert outline(name, smallest, 4)
    with pytest.raises(UserError, match=f"depth = {smallest - 1}"):
        outline(name, smallest - 1, 4)

"""StarNet is timm's, weight for weight and gradient for gradient; its twin is the sum; operators sit inside or at the skip."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from study.config import TrialConfig
from study.errors import UserError
from study.models import build_network, num_params
from study.models.blocks import BlockParts
from study.models.stages import Layout
from study.models.starnet import CifarStarNet, StarBlock

# ours -> timm's, inside a block and outside
BLOCK = {
    "conv1": "dwconv.conv", "bn1": "dwconv.bn", "w1": "f1.conv", "w2": "f2.conv", "w3": "g.conv", "bn2": "g.bn",
    "conv2": "dwconv2.conv",
}  # fmt: skip
OUTSIDE = {"conv": "stem.0.conv", "bn": "stem.0.bn", "last_bn": "norm", "head": "head"}
PUBLISHED = {
    "starnet_s1": (24, (2, 2, 8, 3)),
    "starnet_s2": (32, (1, 2, 6, 2)),
    "starnet_s3": (32, (2, 2, 8, 4)),
    "starnet_s4": (32, (3, 3, 12, 5)),
}


class ForImageNet(CifarStarNet):
    """The published layout, of blocks as ours: the first block of each stage halves the resolution."""

    stem_stride = 2

    def __init__(self, width, num_blocks):
        self.num_blocks, stages = num_blocks, []
        parts, channels = BlockParts(merge="mul", merge_site="branch"), 32
        self.layout = lambda depth, width: Layout(block=StarBlock, stem=32, width=width, num_blocks=(1,) * 4)
        nothing = {"mean": (0.0,) * 3, "deviation": (1.0,) * 3}
        super().__init__(depth=0, width=width, num_classes=10, **nothing, parts=parts)
        for stage, count in enumerate(num_blocks):
            out = width * 2**stage
            first = StarBlock(channels, out, 2, parts)
            stages.append(nn.Sequential(first, *(StarBlock(out, out, 1, parts) for _ in range(count - 1))))
            channels = out
        self.stages = nn.Sequential(*stages)


def network(depth=3, width=4, **changes):
    config = {"dataset": "none", "network": "cifar_starnet", "seed": 1, "split_seed": 0}
    config |= {"merge": "mul", "merge_site": "branch"}
    config = TrialConfig(**config | {"depth": depth, "width": width} | changes)
    return build_network(config, num_classes=10, mean=(0.0,) * 3, deviation=(1.0,) * 3)


def theirs(name):
    """Our name of a parameter or buffer as timm has it."""
    parts = name.split(".")
    if parts[0] != "stages":
        return ".".join([OUTSIDE[parts[0]], *parts[1:]])
    _, stage, block, part, *rest = parts
    if part == "down":
        return ".".join(["stages", stage, "0", "conv" if rest[0] == "0" else "bn", *rest[1:]])
    return ".".join(["stages", stage, str(int(block) + 1), BLOCK[part], *rest])


def pixels(n=3, side=64):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("training", [True, False])
def test_it_computes_what_timms_does(training):
    ours, reference = ForImageNet(20, (1, 2, 4, 1)), timm.create_model("starnet_s100", num_classes=10)
    held = {theirs(name): value for name, value in ours.state_dict().items() if not name.startswith("normalize.")}
    reference.load_state_dict(held)
    x = pixels()
    expected, got = reference.train(training)(x), ours.train(training)(x)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    functional.cross_entropy(expected, torch.arange(3)).backward()
    functional.cross_entropy(got, torch.arange(3)).backward()
    for name, parameter in ours.named_parameters():
        same = reference.get_parameter(theirs(name)).grad
        torch.testing.assert_close(parameter.grad, same, rtol=1e-4, atol=1e-6, msg=name)
    for name, buffer in reference.named_buffers():
        torch.testing.assert_close(
            {theirs(n): b for n, b in ours.named_buffers() if "stages" in n or "bn" in n}[name], buffer
        )


@pytest.mark.parametrize(("name", "size"), PUBLISHED.items())
def test_published_networks_have_the_published_number_of_parameters(name, size):
    with torch.device("meta"):
        reference, ours = timm.create_model(name, num_classes=10), ForImageNet(*size)
    assert num_params(ours) == num_params(reference)


def test_the_twin_is_the_sum_and_costs_the_same():
    star, twin = network(depth=3), network(depth=3, merge="add")
    assert {n: v.shape for n, v in star.state_dict().items()} == {n: v.shape for n, v in twin.state_dict().items()}
    at_skip = network(depth=3, merge="add", merge_site="skip")
    at_skip.load_state_dict(twin.state_dict())
    x = pixels(side=8)
    assert torch.equal(at_skip(x), twin(x)) and not torch.equal(star(x), twin(x))
    block, h = star.eval().stages[0][0], torch.rand(2, 4, 8, 8)
    u = block.bn1(block.conv1(h))
    a, b = block.w1(u).clamp(0, 6), block.w2(u)
    torch.testing.assert_close(block(h), h + block.conv2(block.bn2(block.w3(a * b))))


def test_where_no_operator_is_the_block_is_the_twin():
    model = network(depth=6, merge_where="first")
    kinds = [[(type(block.merge).__name__, block.merge_site) for block in stage] for stage in model.stages]
    assert kinds == [[("Multiply", "branch"), ("Add", "skip")]] * 3


def test_at_the_skip_the_operator_takes_the_additions_place():
    block = network(depth=3, merge_site="skip").eval().stages[0][0]
    h = torch.rand(2, 4, 8, 8)
    u = block.bn1(block.conv1(h))
    f = block.conv2(block.bn2(block.w3(block.w1(u).clamp(0, 6) + block.w2(u))))
    torch.testing.assert_close(block(h), h * f)


@pytest.mark.parametrize("depth", [4, 0])
def test_a_depth_it_lacks_is_refused(depth):
    with pytest.raises(UserError, match=rf"depth = {depth}: a cifar_starnet has depth 3n"):
        network(depth)

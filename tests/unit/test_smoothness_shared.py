"""What statistics of one network share: fewer passes, the same numbers to the last bit, and bounded memory."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from toys import SMALL, conv_context, gated_net, images, run

from study.config import TrialConfig
from study.models import build_network
from study.registry import STATISTICS
from study.smoothness import MeasureContext, in_turn, memory
from study.smoothness.clamped import Layer, ablation, clamped, read_layers
from study.smoothness.memory import images_at_once

ALL = STATISTICS.names()


class Counted(nn.Module):
    """A network that counts the images it is passed."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.num_images = net, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.num_images += len(x)
        return self.net(x)


def context(net: nn.Module | None = None) -> MeasureContext:
    return conv_context(net or gated_net(), images(40), chunk=32)


def numbers(name: str, ctx: MeasureContext) -> dict[str, str]:
    return numbers_of(name, ctx, SMALL[name])


def numbers_of(name: str, ctx: MeasureContext, settings: dict) -> dict[str, str]:
    own = dataclasses.replace(ctx, kept={})
    found = {key: repr(value) for key, value in run(name, own, **settings).items()}  # nan is nan
    return found | {f"{t}/{c}": repr(values.tolist()) for t, table in own.kept.items() for c, values in table.items()}


@pytest.mark.parametrize("room", [memory.MOST_BYTES, 0])
def test_sharing_changes_no_bit_whatever_the_order(room, monkeypatch):
    alone = {name: numbers(name, context()) for name in ALL}
    monkeypatch.setattr(memory, "MOST_BYTES", room)
    for order in (ALL, ALL[::-1]):
        suite = context()
        assert {name: numbers(name, suite) for name in order} == alone
        assert suite.shared.num_bytes <= room


def test_a_jacobian_serves_both_statistics_of_it_and_fewer_images_are_the_first_of_more():
    passed = {}
    for names in (["input_jacobian"], ["local_lipschitz"], ["local_lipschitz", "input_jacobian"]):
        net = Counted(gated_net())
        ctx = context(net)
        for name in names:
            run(name, ctx, num_samples=16 if name == "input_jacobian" else 10)
        passed[tuple(names)] = net.num_images
    # sixteen images and the look at two times eight; the second finds both done
    assert passed["input_jacobian",] == passed["local_lipschitz", "input_jacobian"] == 32
    assert passed["local_lipschitz",] == 32  # in blocks of eight
    few, many = (run("local_lipschitz", context(), num_samples=n)["lipschitz_logits_mean"].samples for n in (10, 30))
    assert torch.equal(few, many[:10])


def test_a_suite_passes_the_lines_that_two_statistics_ask_for_once():
    regions, path = {"num_pairs": 8, "num_samples": 2, "num_steps": 4}, {"num_pairs": 20, "num_steps": 4}
    assert in_turn(["path", "linear_regions"]) == ["linear_regions", "path"]
    net = Counted(gated_net())
    ctx = context(net)
    run("linear_regions", ctx, **regions)
    first = net.num_images
    run("path", ctx, **path)
    # six pairs fit in a chunk of 32: of eight the first six are the first of twenty
    assert net.num_images - first == 2 * (20 - 6) * 5
    assert numbers_of("path", ctx, path) == numbers_of("path", context(), path)


def test_memory_is_given_back():
    ctx = context()
    run("input_jacobian", ctx)
    assert ctx.shared.num_bytes > 0
    ctx.shared.clear()
    assert ctx.shared.num_bytes == 0


def test_the_chunk_follows_the_size_of_images():
    sizes = {(3, 32, 32): 256, (1, 8, 8): 512, (3, 224, 224): 64}
    assert {shape: images_at_once(torch.zeros(1, *shape)) for shape in sizes} == sizes
    assert images_at_once(torch.zeros(1, 3, 32, 32, device="meta")) == 2048


# --- units taken out ----------------------------------------------------------------------------------------------------


def whole_passes(ctx: MeasureContext, layer: Layer, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Losses (N, U) with a unit at zero, from the input on, a unit at a time."""
    losses = []
    for unit in range(layer.num_units):

        def without(module, given, unit=unit):
            seen = given[0].clone()
            (seen if layer.by_channel else seen.flatten(2).transpose(1, 2))[:, unit] = 0
            return (seen,)

        handle = layer.module.register_forward_pre_hook(without)
        with torch.no_grad():
            losses.append(nn.functional.cross_entropy(ctx.model(x).double(), y, reduction="none"))
        handle.remove()
    return torch.stack(losses, 1)


NETWORKS = [
    ("cifar_resnet", 8, "mul", "skip", "se"),
    ("cifar_resnet", 8, "concat", "branch", "cbam"),
    ("cifar_resnet_bottleneck", 11, "sig_bn", "branch", "sk"),
    ("wrn", 10, "max", "skip", "spatial"),
    ("imagenet_resnet", 18, "add", "skip", "non_local"),
]


@pytest.mark.parametrize(("network", "depth", "merge", "site", "attention"), NETWORKS)
def test_a_pass_from_the_layer_on_gives_the_losses_of_whole_passes(network, depth, merge, site, attention):
    config = TrialConfig(
        dataset="fake", network=network, depth=depth, width=1 if network == "wrn" else 4, seed=1, split_seed=0,
        merge=merge, merge_site=site, attention=attention, attention_form="mul",
    )  # fmt: skip
    net = build_network(config, num_classes=3, mean=(0.5,), deviation=(0.3,)).eval()
    side = 16 if network == "imagenet_resnet" else 8
    x, y = torch.rand(4, 1, side, side, generator=torch.Generator().manual_seed(2)), torch.arange(4) % 3
    ctx = conv_context(net, x, y, chunk=37)
    layers = read_layers(ctx, x)
    zero = torch.zeros(4, dtype=torch.float64)
    with clamped(layers):
        for layer in (layers[0], layers[-1]):
            expected = whole_passes(ctx, layer, x, y)
            torch.testing.assert_close(ablation(ctx, layer, x, y, zero, mean=False), expected, rtol=1e-5, atol=1e-6)


def test_what_comes_before_the_layer_is_passed_once_an_image():
    config = TrialConfig(dataset="fake", depth=14, width=4, seed=1, split_seed=0, attention="se", attention_form="mul")
    net = build_network(config, num_classes=3, mean=(0.5,), deviation=(0.3,)).eval()
    x, y = torch.rand(4, 1, 16, 16), torch.arange(4) % 3
    ctx = conv_context(net, x, y, chunk=64)

    def flops(work):
        with FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops()

    layers = read_layers(ctx, x)
    once, zero = flops(lambda: ctx.logits(x)), torch.zeros(4, dtype=torch.float64)
    spent = [flops(lambda each=each: ablation(ctx, each, x, y, zero, mean=True)) for each in layers]
    shares = [spent[i] / (once * layer.num_units) for i, layer in enumerate(layers)]
    assert shares == sorted(shares, reverse=True) and shares[0] < 0.95 and shares[-1] < 0.1


def test_a_network_that_looks_at_its_values_passes_whole():
    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = gated_net()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = self.net(x)
            return z if float(z.detach().abs().max()) < 1e9 else 0 * z

    plain, looks = (run("attention_importance", context(net), num_samples=10) for net in (gated_net(), Looks()))
    assert plain.keys() == looks.keys()
    for key, value in plain.items():
        assert looks[key].value == pytest.approx(value.value, abs=1e-6, nan_ok=True), key

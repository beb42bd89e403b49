"""What the convolutions of a small network's step could take: how they are run, beside ways that they are not.

    python -m benchmarks.convolutions

Every convolution of a ResNet-8 on 8x8 images, forwards and backwards (gradients of weights and, but for the first layer, of
images), on one thread of a CPU; milliseconds of processor time a replicate, summed over layers, all ways in turn. ``bare
products`` are the three matrix products that a convolution is, of columns that lie ready: by the library's products no way of
gathering them is faster. ``at the matrix rate`` is the least: operations over the rate of square products. Beside them whole
steps, whose other operators take their maps from memory. The last line is the plain step over the fastest.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.cases import Case, in_turn
from benchmarks.common import hardware, machine_load, print_table, result, spread, versions
from benchmarks.counting import counted
from benchmarks.roofline import matrix_rate
from study.config import TrialConfig
from study.models import build_network

REPEATS, GROUP = 20, 8
NETWORKS = (
    Case("ResNet-8, width 8, 8x8, batch 128", "cifar_resnet", 8, 8, (1, 8, 8), 128, "none"),
    Case("ResNet-8, width 16, 8x8, batch 64", "cifar_resnet", 8, 16, (1, 8, 8), 64, "none"),
)


class Layer(NamedTuple):
    """A convolution of square images, and whether a gradient of its input is asked for."""

    taken: int
    given: int
    kernel: int
    stride: int
    side: int
    batch: int
    inward: bool

    @property
    def out(self) -> int:
        """Side of the output."""
        return (self.side - 1) // self.stride + 1


def layers_of(case: Case) -> Iterator[Layer]:
    """The convolutions that a pass meets, in its order."""
    config = TrialConfig(
        dataset="random", network=case.network, depth=case.depth, width=case.width, seed=0, split_seed=0
    )
    channels = case.shape[0]
    model = build_network(config, num_classes=10, mean=(0.5,) * channels, deviation=(0.5,) * channels)
    met: list[tuple[nn.Conv2d, int]] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda conv, given, _: met.append((conv, given[0].shape[-1])))
    model(torch.rand(2, *case.shape))
    for index, (conv, at) in enumerate(met):
        yield Layer(conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0], at, case.batch, index > 0)


def convolution(layer: Layer, replicates: int, form: torch.memory_format) -> Callable[[], object]:
    """A step of ``layer`` for so many replicates as one grouped convolution."""
    x = torch.rand(layer.batch, replicates * layer.taken, layer.side, layer.side).contiguous(memory_format=form)
    weight = torch.rand(replicates * layer.given, layer.taken, layer.kernel, layer.kernel).contiguous(
        memory_format=form
    )

    def forward() -> Tensor:
        return functional.conv2d(x, weight, stride=layer.stride, padding=layer.kernel // 2, groups=replicates)

    return _step(layer, x, weight, forward)


def columns(layer: Layer) -> Callable[[], object]:
    """A step of ``layer`` for a group, by gathered columns and batched matrix products."""
    x = torch.rand(GROUP, layer.batch, layer.taken, layer.side, layer.side)
    weight = torch.rand(GROUP, 1, layer.given, layer.taken * layer.kernel**2)

    def forward() -> Tensor:
        gathered = functional.unfold(x.flatten(0, 1), layer.kernel, padding=layer.kernel // 2, stride=layer.stride)
        return weight @ gathered.unflatten(0, (GROUP, layer.batch))

    return _step(layer, x, weight, forward)


def bare(layer: Layer) -> Callable[[], object]:
    """The matrix products alone of a step of ``layer`` for a group."""
    inside = layer.taken * layer.kernel**2
    gathered = torch.rand(GROUP, layer.batch * layer.out**2, inside)
    weight = torch.rand(GROUP, inside, layer.given)
    gradient = torch.rand(GROUP, layer.batch * layer.out**2, layer.given)

    def step() -> None:
        torch.bmm(gathered, weight)
        torch.bmm(gathered.mT, gradient)
        if layer.inward:
            torch.bmm(gradient, weight.mT)

    return step


def _step(layer: Layer, x: Tensor, weight: Tensor, forward: Callable[[], Tensor]) -> Callable[[], object]:
    weight.requires_grad_()
    x.requires_grad_(layer.inward)
    wanted = [x, weight] if layer.inward else [weight]
    gradient = torch.rand_like(forward().detach())
    return lambda: torch.autograd.grad(forward(), wanted, gradient)


def timed(steps: list[Callable[[], object]], repeats: int, replicates: int) -> Callable[[], float]:
    """Milliseconds a replicate of all ``steps``."""

    def call() -> float:
        for step in steps:
            step()
        started = time.process_time()
        for step in steps:
            for _ in range(repeats):
                step()
        return 1000 * (time.process_time() - started) / repeats / replicates

    return call


def main() -> None:
    """Print a table for each network, and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rate = matrix_rate("cpu", torch.float32)
    print(f"# {hardware()}; {versions('torch')}; n = {given.rounds} rounds; one thread; {machine_load()}")
    last = ""
    for case in NETWORKS:
        layers = list(layers_of(case))
        formats = {"": torch.contiguous_format, ", channels_last": torch.channels_last}
        ways = {
            f"{kind}{name}": timed([convolution(layer, size, form) for layer in layers], REPEATS, size)
            for kind, size in (("alone", 1), (f"{GROUP} as groups", GROUP))
            for name, form in formats.items()
        }
        ways[f"{GROUP}, columns and products"] = timed([columns(layer) for layer in layers], REPEATS, GROUP)
        ways[f"{GROUP}, bare products"] = timed([bare(layer) for layer in layers], REPEATS, GROUP)
        count = 5 * REPEATS
        steps = {
            "step": case.timer("cpu", 1, count),
            "step, channels_last": case.timer("cpu", 1, count, ("channels_last",)),
            f"step, {GROUP} as one": case.timer("cpu", GROUP, count // GROUP),
            f"step, {GROUP} as one, channels_last": case.timer("cpu", GROUP, count // GROUP, ("channels_last",)),
        }
        found = in_turn({**ways, **steps}, given.rounds)
        found |= {name: [1000 * value for value in found[name]] for name in steps}
        plain = [convolution(layer, 1, torch.contiguous_format) for layer in layers]
        least = 1000 * sum(counted(step).flops for step in plain) / rate
        rows = [[name, spread(values)] for name, values in found.items()] + [["at the matrix rate", f"{least:.3g}"]]
        print_table(f"{case.name}: convolutions, and steps; ms a replicate", ["way", "ms"], rows)
        best = min(steps, key=lambda name: statistics.median(found[name]))
        ratios = [slow / fast for slow, fast in zip(found["step"], found[best], strict=True)]
        print(f"{best!r}: {spread(ratios)} times as fast as the plain step")
        last = last or result("convolutions", ratios, 2.0, packages=("torch",), more={"case": case.name, "best": best})
    print(last)


if __name__ == "__main__":
    main()

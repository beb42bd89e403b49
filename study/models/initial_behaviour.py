"""How a network behaves at initialisation, block by block.

The merge operator decides whether a deep network's activations and gradients keep their scale at initialisation. That predicts
which cells will hardly train, and what a half-precision format would lose.

Source: https://arxiv.org/abs/1901.09321
"""

import dataclasses
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from study.config import TrialConfig
from study.models.build import build_network
from study.models.merges import Merge
from study.seeding import derive_seed

FP16_MAX = 65504.0
FP16_SMALLEST_NORMAL = 2.0**-14
FP16_SMALLEST = 2.0**-24
LOSS_SCALE = 2.0**16  # with which torch's GradScaler starts

# A scale that changes by more than this factor is taken to hinder training.
TROUBLE = 1000.0


@dataclass(frozen=True, kw_only=True)
class BlockBehaviour:
    """One block of a network at initialisation, on one batch in training mode (batch statistics), in float32.

    ``activation_rms``: root mean square of the block's output, after its ReLU. ``activation_max``: largest magnitude of the
    output or of what the operator gives. ``alive``: share of outputs above zero. ``gradient_rms``: root mean square of
    dL/d(output), L the batch's mean cross-entropy in nats. ``bf16_error``: rms difference of the
    output under bfloat16 autocast, relative to ``activation_rms``. ``fp16``: ``fits``; or ``overflows`` (a magnitude above
    65504), ``subnormal`` (rms under 2^-14), ``gradient lost`` (its rms under 2^-24 even with a loss scale of 2^16).
    """

    name: str
    operator: str
    activation_rms: float
    activation_max: float
    alive: float
    gradient_rms: float
    bf16_error: float
    fp16: str


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """A network at initialisation: its settings, its blocks from input to output, and whether bfloat16 logits are finite."""

    config: TrialConfig
    blocks: tuple[BlockBehaviour, ...]
    bf16_finite: bool

    @property
    def activation_change(self) -> float:
        """Activation rms of the last block over that of the first."""
        return _ratio(self.blocks[-1].activation_rms, self.blocks[0].activation_rms)

    @property
    def gradient_change(self) -> float:
        """Gradient rms at the first block's output over that at the last's: the share that is left on the way back."""
        return _ratio(self.blocks[0].gradient_rms, self.blocks[-1].gradient_rms)

    @property
    def outlook(self) -> str:
        """``fair``, or which scale vanishes or explodes (moves more than ``TROUBLE``-fold): a warning, not a verdict.

        Activations are judged within each stage, which a projection's norm starts anew, gradients over the whole network.
        """
        stages: dict[str, list[float]] = {}
        for block in self.blocks:
            stages.setdefault(block.name.rpartition(".")[0], []).append(block.activation_rms)
        changes = [("activations", _ratio(values[-1], values[0])) for values in stages.values()]
        for what, change in [*changes, ("gradients", self.gradient_change)]:
            if not math.isfinite(change):
                return f"{what} not finite or dead"
            if not 1 / TROUBLE <= change <= TROUBLE:
                return f"{what} {'explode' if change > 1 else 'vanish'}"
        return "fair"


def initial_behaviour(
    config: TrialConfig,
    images: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    num_classes: int = 10,
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    deviation: Sequence[float] = (0.29, 0.29, 0.29),
) -> Behaviour:
    """The network of ``config`` at initialisation on ``images`` (N, C, H, W) in [0, 1] with ``labels`` (N,).

    Without images, 32 made-up ones of 8x8 pixels; without labels, made-up ones. Both are drawn from ``config.seed``, as the
    weights are. Raises ``UserError`` for bad levels. Costs two forward passes and one backward pass.
    """
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "initial behaviour"))
    if images is None:
        images = torch.rand(32, len(mean), 8, 8, generator=generator)
    if labels is None:
        labels = torch.randint(num_classes, (len(images),), generator=generator).to(images.device)
    model = build_network(config, num_classes=num_classes, mean=mean, deviation=deviation).to(images.device).train()
    with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16):
        half_outputs, _, half_logits = _observe(model, images)
    outputs, merged, logits = _observe(model, images)
    gradients = torch.autograd.grad(functional.cross_entropy(logits, labels), list(outputs.values()))
    blocks = []
    for (name, output), gradient in zip(outputs.items(), gradients, strict=True):
        block = model.get_submodule(name)
        activation, slope = _rms(output), _rms(gradient)
        largest = max(float(values.detach().abs().max()) for values in (output, merged[name]))
        blocks.append(
            BlockBehaviour(
                name=name,
                operator=type(block.merge).__name__,
                activation_rms=activation,
                activation_max=largest,
                alive=float((output > 0).float().mean()),
                gradient_rms=slope,
                bf16_error=_ratio(_rms(half_outputs[name] - output), activation),
                fp16=_fp16(activation, largest, slope),
            )
        )
    return Behaviour(config=config, blocks=tuple(blocks), bf16_finite=bool(half_logits.isfinite().all()))


def initial_behaviours(*, merges: Sequence[str], depths: Sequence[int], width: int = 16) -> list[Behaviour]:
    """``initial_behaviour`` on made-up images for every depth and merge operator, otherwise at the defaults."""
    base = TrialConfig(dataset="none", depth=8, width=width, seed=0, split_seed=0)
    return [
        initial_behaviour(dataclasses.replace(base, merge=merge, depth=depth)) for depth in depths for merge in merges
    ]


def format_blocks(behaviour: Behaviour) -> str:
    """A table of one line per block, from input to output, with a heading and the outlook."""
    config = behaviour.config
    numbers = ("activation_rms", "activation_max", "alive", "gradient_rms", "bf16_error")
    rows = [
        (block.name, block.operator, *(f"{getattr(block, number):.2g}" for number in numbers), block.fp16)
        for block in behaviour.blocks
    ]
    heading = f"merge {config.merge}, depth {config.depth}, width {config.width}: {behaviour.outlook}"
    columns = ("block", "operator", "activation rms", "max", "alive", "gradient rms", "bf16 error", "fp16")
    return "\n".join([heading, *_table(columns, rows)])


def format_overview(behaviours: Sequence[Behaviour]) -> str:
    """A table of one line per network: how its scales change over the blocks, half precision, and the outlook."""
    rows = []
    for one in behaviours:
        faults = [block.fp16 for block in one.blocks if block.fp16 != "fits"]
        fp16 = f"{faults[0]} ({len(faults)} of {len(one.blocks)} blocks)" if faults else "fits"
        last = one.blocks[-1]
        numbers = (last.activation_rms, one.activation_change, last.alive, one.gradient_change, last.bf16_error)
        finite = "yes" if one.bf16_finite else "no"
        short = (f"{number:.2g}" for number in numbers)
        rows.append((one.config.merge, str(one.config.depth), *short, finite, fp16, one.outlook))
    columns = ("merge", "depth", "last activation rms", "last/first", "alive", "gradient first/last", "bf16 error")
    return "\n".join(_table((*columns, "bf16 finite", "fp16", "outlook"), rows))


def _observe(model: nn.Module, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Every block's output and its operator's, by the block's name, and the logits."""
    outputs: dict[str, Tensor] = {}
    merged: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            operator = getattr(module, "merge", None)
            if isinstance(operator, Merge):
                hooks.enter_context(module.register_forward_hook(_keep(outputs, name)))
                hooks.enter_context(operator.register_forward_hook(_keep(merged, name)))
        logits: Tensor = model(images)
    return outputs, merged, logits


def _keep(kept: dict[str, Tensor], name: str):  # type: ignore[no-untyped-def]  # torch types a hook as Any
    def hook(module: nn.Module, args: object, output: Tensor) -> None:
        kept[name] = output

    return hook


def _rms(values: Tensor) -> float:
    return float(values.detach().double().square().mean().sqrt())


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.inf if numerator else math.nan


def _fp16(activation: float, largest: float, gradient: float) -> str:
    if not largest <= FP16_MAX:
        return "overflows"
    if activation < FP16_SMALLEST_NORMAL:
        return "subnormal"
    return "gradient lost" if gradient * LOSS_SCALE < FP16_SMALLEST else "fits"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, *rows)
    ]

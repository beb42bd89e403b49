"""What a statistic is given: the network, the images, the fitted temperature, and random numbers by purpose.

Random numbers come from CPU generators seeded by (the replicate's measuring seed, a purpose). They are the same on CPU and
GPU, in all cells that share the seed, and in any order of statistics; the global generators are not touched.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from study.errors import UserError, nearest
from study.seeding import derive_seed
from study.smoothness.memory import Images, Shared, halving, images_at_once
from study.smoothness.scales import fit_temperature


def use_exact_float32() -> tuple[tuple[Any, str], ...]:
    """From now on convolutions and products are in float32 proper, without TF32 or bfloat16, which have ten and seven bits.

    TF32 is torch's default for convolutions on a GPU. Returns torch's switches, each with what it was. They are its newer
    ones: to read an older one raises where a newer one is set.
    """
    cudnn: Any = torch.backends.cudnn  # property modules that type checkers do not see through
    mkldnn: Any = torch.backends.mkldnn
    switches = (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul, mkldnn.conv, mkldnn.rnn, mkldnn.matmul)
    before = tuple((switch, switch.fp32_precision) for switch in switches)
    for switch, _ in before:
        switch.fp32_precision = "ieee"
    return before


@contextmanager
def exact_float32() -> Iterator[None]:
    """``use_exact_float32`` meanwhile: with TF32 second differences would be noise."""
    before = use_exact_float32()
    try:
        yield
    finally:
        for switch, precision in before:
            switch.fp32_precision = precision


@contextmanager
def exact_evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode in ``exact_float32``, scaled-dot-product attention by plain products; all restored on leaving.

    The fused kernels of attention can be differentiated once only.
    """
    modes = {module: module.training for module in model.modules()}
    with exact_float32(), sdpa_kernel(SDPBackend.MATH):
        try:
            model.eval()
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasureContext:
    """A network to measure and what to measure it with.

    ``model`` maps images in [0, 1] (N, C, H, W), its own normalisation inside, to logits (N, K); its batch norm is already
    re-estimated. ``images`` and ``labels`` map a split's name to what is on the model's device. ``seed`` is the replicate's
    measuring seed, shared by all cells; ``chunk`` the largest number of images per forward pass, which changes results only
    by rounding. ``kept`` are tables that statistics keep beside their estimates; ``shared`` is what they
    compute once, for fixed weights.
    """

    model: nn.Module
    images: Mapping[str, Images]
    labels: Mapping[str, Tensor]
    num_classes: int
    temperature: float
    temperature_converged: bool
    seed: int
    chunk: int = 512
    kept: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    shared: Shared = field(default_factory=Shared)

    @classmethod
    def calibrated(
        cls,
        *,
        model: nn.Module,
        images: Mapping[str, Images],
        labels: Mapping[str, Tensor],
        num_classes: int,
        seed: int,
        chunk: int | None = None,
    ) -> "MeasureContext":
        """The context with its temperature fitted on ``val``. Raises ``UserError`` as ``logits`` and ``split`` do."""
        chunk = chunk or images_at_once(next(iter(images.values())))
        context = cls(
            model=model, images=images, labels=labels, num_classes=num_classes,
            temperature=1.0, temperature_converged=False, seed=seed, chunk=chunk,
        )  # fmt: skip
        x, y = context.indexed("val")
        with exact_evaluation(model):
            logits = halving(chunk, lambda size: replace(context, chunk=size).logits(x), "the network", lambda: len(x))
            temperature, converged = fit_temperature(logits, y)
        return replace(context, temperature=temperature, temperature_converged=converged)

    @property
    def temperature_known(self) -> bool:
        """Whether temperature-scaled values are to be trusted."""
        return self.temperature_converged and math.isfinite(self.temperature)

    def chunks(self, x: Tensor, beside: Tensor) -> list[tuple[Tensor, Tensor]]:
        """``x`` and ``beside``, of one length, in parts of at most ``chunk`` rows."""
        self._passing(x)
        return list(zip(torch.split(x, self.chunk), torch.split(beside, self.chunk), strict=True))

    def keep(self, table: str, columns: Mapping[str, Tensor]) -> None:
        """Keep ``columns``, 1-D and of one length, as ``table``. Raises ``ValueError`` for columns that are no table."""
        if len({tuple(column.shape) for column in columns.values()}) != 1 or next(iter(columns.values())).ndim != 1:
            raise ValueError(f"table {table!r}: columns differ in length, or are not of one dimension")
        self.kept[table] = {name: column.detach().cpu() for name, column in columns.items()}

    @torch.no_grad()
    def logits(self, x: Images) -> Tensor:
        """Logits (N, K) of images ``x`` (N, ...) without a graph, ``chunk`` images per pass. Raises as ``checked``."""
        self._passing(x)
        starts = range(0, max(1, len(x)), self.chunk)
        return torch.cat([self.checked(self.model(x[start : start + self.chunk])) for start in starts])

    def _passing(self, x: Images) -> None:
        self.shared.largest_part = max(self.shared.largest_part, min(len(x), self.chunk))

    def checked(self, logits: Tensor) -> Tensor:
        """``logits``, if they are (N, K) and finite. Raises ``UserError`` otherwise."""
        if logits.ndim != 2 or logits.shape[1] != self.num_classes:
            raise UserError(f"the network gives outputs of shape {tuple(logits.shape)}, not (N, {self.num_classes})")
        if not bool(torch.isfinite(logits).all()):
            raise UserError("the network gives outputs that are not finite (NaN or Inf): its smoothness is not defined")
        return logits

    def split(self, name: str) -> tuple[Tensor, Tensor]:
        """All images and labels of a split, as tensors: four times what they take as uint8. Raises as ``indexed``."""
        x, y = self.indexed(name)
        return x[:], y

    def indexed(self, name: str) -> tuple[Images, Tensor]:
        """Images of a split, to be had by index, and its labels. Raises ``UserError`` if it is missing or has no image."""
        if name not in self.images or name not in self.labels:
            raise UserError(f"no split {name!r} to measure on{nearest(name, self.images)}")
        x, y = self.images[name], self.labels[name]
        if not len(x) or len(x) != len(y):
            raise UserError(f"split {name!r} has {len(x)} images and {len(y)} labels")
        if not x.dtype.is_floating_point:
            raise UserError(f"split {name!r} holds {x.dtype} images; they must be floats in [0, 1]")
        return x, y

    def sample(self, split: str, n: int, purpose: str) -> tuple[Tensor, Tensor]:
        """``n`` images and labels of ``split``, drawn without replacement; all of them if there are no more."""
        x, y = self.indexed(split)
        if n >= len(x):
            return x[:], y
        index = torch.randperm(len(x), generator=self.generator(purpose))[:n]
        return x[index.to(x.device)], y[index.to(y.device)]

    def near_order(self, split: str) -> Tensor:
        """All indices of ``split`` in the order of ``input_jacobian``'s sample; statistics near samples take the first."""
        x, _ = self.indexed(split)
        return torch.randperm(len(x), generator=self.generator(f"input_jacobian/{split}"))

    def normal(self, like: Tensor, purpose: str) -> Tensor:
        """Standard normal values of the shape, dtype and device of ``like``, drawn in float32."""
        return torch.randn(like.shape, generator=self.generator(purpose), dtype=torch.float32).to(like)

    def generator(self, purpose: str) -> torch.Generator:
        """A new CPU generator that depends only on the measuring seed and ``purpose``."""
        return torch.Generator().manual_seed(derive_seed(self.seed, "smoothness", purpose))

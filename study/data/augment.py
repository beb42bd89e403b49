"""Augmentation in two halves: random numbers per epoch, then pixels per batch.

``draw`` gives a row of whole numbers per image, on the CPU, once per epoch; ``apply`` moves the pixels of a batch by them, on
any device, without a loop over images. It computes in whole numbers, so a CPU and a GPU agree bit for bit. Row p belongs to
the p-th image of the epoch's order: an image's augmentation does not depend on the batch size, and all cells share it.

Source: https://arxiv.org/abs/1512.03385
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

from study.registry import AUGMENTATIONS

PAD = 4
AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
RESNET = "https://arxiv.org/abs/1512.03385"
CUTOUT = "https://arxiv.org/abs/1708.04552"
INCEPTION = "https://arxiv.org/abs/1409.4842"
_TRIES = 10
_BITS = 11


@dataclass(frozen=True)
class Step:
    """One operation on images, with ``width`` whole numbers per image."""

    width: int
    draw: Callable[[int, tuple[int, int], Generator], Tensor]
    apply: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Augmentation:
    """Steps, one after another."""

    steps: tuple[Step, ...] = ()

    def draw(self, num_images: int, size: tuple[int, int], generator: Generator) -> Tensor:
        """The numbers for ``num_images`` images of ``size`` (H, W): int64 (num_images, columns) from a CPU ``generator``."""
        columns = [step.draw(num_images, size, generator) for step in self.steps]
        return torch.cat(columns, 1) if columns else torch.zeros((num_images, 0), dtype=torch.int64)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """``images`` (B, C, H, W), uint8 or float, as the rows of ``drawn`` (B, columns) say; new, same shape and type."""
        start = 0
        for step in self.steps:
            images = step.apply(images, drawn[:, start : start + step.width])
            start += step.width
        return images


def augmented(name: str, images: Tensor, generator: Generator) -> Tensor:
    """``images`` under the augmentation ``name``, drawn from ``generator`` on the CPU. Raises ``UserError`` if unknown."""
    chosen: Augmentation = AUGMENTATIONS[name].build()
    height, width = images.shape[-2:]
    return chosen.apply(images, chosen.draw(len(images), (height, width), generator).to(images.device))


def _uniform(num_images: int, generator: Generator, columns: int = 1) -> Tensor:
    return torch.rand((num_images, columns), dtype=torch.float64, generator=generator)


def _flips(num_images: int, size: tuple[int, int], generator: Generator) -> Tensor:
    return (_uniform(num_images, generator) < 0.5).long()


def _flip(images: Tensor, drawn: Tensor) -> Tensor:
    return torch.where((drawn == 1)[:, :, None, None], images.flip(3), images)


def _shifts(num_images: int, size: tuple[int, int], generator: Generator) -> Tensor:
    return (_uniform(num_images, generator, 2) * (2 * PAD + 1)).long()


def _pad_crop(images: Tensor, drawn: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    windows = functional.pad(images, (PAD,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(images), device=images.device), :, drawn[:, 0], drawn[:, 1]]


def _centres(num_images: int, size: tuple[int, int], generator: Generator) -> Tensor:
    return (_uniform(num_images, generator, 2) * torch.tensor(size)).long()


def _cutout(images: Tensor, drawn: Tensor) -> Tensor:
    """A black square, where the paper has the mean colour: of half the height (16 of CIFAR's 32), cut off at the edges."""
    height, width = images.shape[-2:]
    half = height // 4

    def hidden(size: int, centre: Tensor) -> Tensor:
        start = centre[:, None] - half
        at = torch.arange(size, device=images.device)
        return (at >= start) & (at < start + 2 * half)

    square = hidden(height, drawn[:, 0])[:, :, None] & hidden(width, drawn[:, 1])[:, None, :]
    return images.masked_fill(square[:, None], 0)


def _boxes(num_images: int, size: tuple[int, int], generator: Generator) -> Tensor:
    """Top, left, height, width: the first of ten tries that lies inside the image, else the whole of it or its middle."""
    height, width = size
    share = AREA[0] + (AREA[1] - AREA[0]) * _uniform(num_images, generator, _TRIES)
    low, high = map(math.log, RATIO)
    ratio = torch.exp(low + (high - low) * _uniform(num_images, generator, _TRIES))
    w = (share * height * width * ratio).sqrt().round().long()
    h = (share * height * width / ratio).sqrt().round().long()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.int().argmax(1, keepdim=True)
    corner = _uniform(num_images, generator, 2)
    h, w = h.gather(1, first), w.gather(1, first)
    top = (corner[:, :1] * (height - h + 1)).long()
    left = (corner[:, 1:] * (width - w + 1)).long()
    last_w = min(width, round(height * RATIO[1]))
    last_h = min(height, round(width / RATIO[0]))
    otherwise = torch.tensor([(height - last_h) // 2, (width - last_w) // 2, last_h, last_w])
    return torch.where(fits.any(1, keepdim=True), torch.cat([top, left, h, w], 1), otherwise)


def _resized_crop(images: Tensor, drawn: Tensor) -> Tensor:
    """The box of every image, enlarged to the whole by bilinear interpolation with weights in 2048ths, halves up."""
    height, width = images.shape[-2:]
    top, left, h, w = drawn.unbind(1)
    above, below, down = _between(height, top, h)
    before, after, right = _between(width, left, w)
    down, right = down[:, None, :, None], right[:, None, None, :]
    one = 1 << _BITS
    exact = images.dtype == torch.uint8
    wide = images.int() if exact else images

    def across(rows: Tensor) -> Tensor:
        line = wide.gather(2, rows[:, None, :, None].expand(-1, images.shape[1], -1, width))
        here, there = (line.gather(3, at[:, None, None, :].expand_as(line)) for at in (before, after))
        return here * (one - right) + there * right

    blended = across(above) * (one - down) + across(below) * down
    if exact:  # at most 255 * 2^22, below 2^31
        return ((blended + (1 << (2 * _BITS - 1))) >> (2 * _BITS)).to(torch.uint8)
    return blended / one**2


def _between(size: int, start: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two source positions of every target position (B, size), and the weight of the second in 2048ths.

    Pixel centres lie at halves, as in torchvision: target o is at (o + 1/2) length / size - 1/2 from ``start``.
    """
    length = length[:, None]
    twice = ((2 * torch.arange(size, device=start.device) + 1) * length - size).clamp(min=0)  # in 1 / (2 size)
    first = twice // (2 * size)
    weight = ((twice % (2 * size)) * (1 << _BITS) + size) // (2 * size)
    second = torch.minimum(first + 1, length - 1)
    return first + start[:, None], second + start[:, None], weight.int()


_FLIP = Step(1, _flips, _flip)
_PAD_CROP = Step(2, _shifts, _pad_crop)
_CUTOUT = Step(2, _centres, _cutout)
RESIZED_CROP = Step(4, _boxes, _resized_crop)
_BOX = "a box of .08 to 1 of the area, ratio 3/4 to 4/3, enlarged; then flip"

for _name, _steps, _formula, _source in (
    ("none", (), "x", "this file"),
    ("flip", (_FLIP,), "mirrored left to right with p = 1/2", RESNET),  # not for digits
    ("pad_crop", (_PAD_CROP,), "H x W crop of x padded by 4 zeros", RESNET),
    ("pad_crop_flip", (_PAD_CROP, _FLIP), "pad_crop, then flip", RESNET),  # the CIFAR standard
    ("pad_crop_flip_cutout", (_PAD_CROP, _FLIP, _CUTOUT), "pad_crop_flip, then a black square", CUTOUT),
    ("random_resized_crop_flip", (RESIZED_CROP, _FLIP), _BOX, INCEPTION),  # the ImageNet standard, for photographs
):
    AUGMENTATIONS.register(_name, formula=_formula, source=_source)(functools.partial(Augmentation, _steps))

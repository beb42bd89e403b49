"""Augmentation against slow references, image by image; deterministic, shared by cells, the same after a resumption."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.transforms.v2 import functional as vision
from trainings import train

from study.config import TrialConfig
from study.data import load_dataset, split
from study.data.augment import AREA, PAD, RATIO, augmented
from study.errors import UserError
from study.models import build_network
from study.registry import AUGMENTATIONS
from study.training import loop

NAMES = AUGMENTATIONS.names()
SIZES = [(32, 32), (28, 28), (13, 9)]
CONFIG = TrialConfig(
    dataset="fake", depth=8, width=4, seed=1, split_seed=2, epochs=3, batch_size=16, augment="pad_crop_flip_cutout"
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=24, size=(32, 32), channels=3):
    return torch.randint(1, 256, (n, channels, *size), dtype=torch.uint8, generator=seeded(9))


def draw(name, n, size=(32, 32), seed=0):
    return AUGMENTATIONS[name].build().draw(n, size, seeded(seed))


def apply(name, images, rows):
    return AUGMENTATIONS[name].build().apply(images, torch.as_tensor(rows))


def test_the_policies_a_study_may_name():
    assert NAMES == [
        "none", "flip", "pad_crop", "pad_crop_flip", "pad_crop_flip_cutout", "random_resized_crop_flip"
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    images = pictures()
    kept = images.clone()
    one, again, other = (augmented(name, images, seeded(seed)) for seed in (4, 4, 5))
    assert torch.equal(images, kept), "the images given are not to be changed"
    assert one.dtype == torch.uint8 and one.shape == images.shape
    assert torch.equal(one, again)
    assert torch.equal(one, other) == (name == "none")
    assert draw(name, 5).dtype == torch.int64 and len(draw(name, 5)) == 5
    state = torch.get_rng_state()
    augmented(name, images, seeded(4))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_one_image_at_a_time_gives_the_same_as_a_batch(name, size):
    images, rows = pictures(size=size, channels=1), draw(name, 24, size)
    whole = apply(name, images, rows)
    assert torch.equal(whole, torch.cat([apply(name, images[i : i + 1], rows[i : i + 1]) for i in range(24)]))


@pytest.mark.parametrize("name", NAMES)
def test_floats_go_the_same_way(name):
    images, rows = pictures(), draw(name, 24)
    floats = apply(name, images.float(), rows)
    assert floats.dtype == torch.float32
    assert (floats - apply(name, images, rows).float()).abs().max() <= (0.501 if "resized" in name else 0)


def test_none_is_the_identity():
    images = pictures()
    assert torch.equal(augmented("none", images, seeded()), images)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_flip_is_torchvisions_and_undoes_itself(size):
    images, rows = pictures(size=size), draw("flip", 24, size)
    assert 4 < rows.sum() < 20
    flipped = apply("flip", images, rows)
    for image, row, out in zip(images, rows, flipped, strict=True):
        assert torch.equal(out, vision.horizontal_flip(image) if row else image)
    assert torch.equal(apply("flip", flipped, rows), images)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_padded_crop_is_torchvisions(size):
    images, rows = pictures(size=size), draw("pad_crop", 24, size)
    cropped = apply("pad_crop", images, rows)
    for image, (top, left), out in zip(images, rows.tolist(), cropped, strict=True):
        assert torch.equal(out, vision.crop(vision.pad(image, [PAD] * 4), top, left, *size))


def test_crops_reach_every_place_within_the_padding_alike():
    rows = draw("pad_crop", 81 * 200)
    assert rows.min() == 0 and rows.max() == 2 * PAD
    counts = np.bincount((rows[:, 0] * 9 + rows[:, 1]).numpy(), minlength=81)
    assert counts.min() > 130 and counts.max() < 270  # 200 each, five standard deviations
    assert abs(float(draw("flip", 10_000).double().mean()) - 0.5) < 0.025


def test_the_order_of_the_steps():
    images, rows = pictures(), draw("pad_crop_flip_cutout", 24)
    step = apply("flip", apply("pad_crop", images, rows[:, :2]), rows[:, 2:3])
    assert torch.equal(apply("pad_crop_flip", images, rows[:, :3]), step)
    for out, before, (y, x) in zip(
        apply("pad_crop_flip_cutout", images, rows), step, rows[:, 3:].tolist(), strict=True
    ):
        expected = before.clone()
        expected[:, max(y - 8, 0) : y + 8, max(x - 8, 0) : x + 8] = 0
        assert torch.equal(out, expected)


def test_cutout_hides_a_quarter_at_most_and_its_centre_is_anywhere():
    rows = draw("pad_crop_flip_cutout", 4000)
    assert rows[:, 3:].min() == 0 and rows[:, 3:].max() == 31
    rows[:, :2], rows[:, 2] = PAD, 0
    white = torch.full((4000, 1, 32, 32), 255, dtype=torch.uint8)
    hidden = (apply("pad_crop_flip_cutout", white, rows) == 0).sum((1, 2, 3))
    assert hidden.max() == 16 * 16 and hidden.min() == 8 * 8
    # along a side 16 wide, centre uniform on 32: mean width (2 * (8 + ... + 15) + 17 * 16 - 1) / 32 by counting
    side = np.mean([min(c + 8, 32) - max(c - 8, 0) for c in range(32)])
    assert float(hidden.double().mean()) == pytest.approx(side**2, rel=0.03)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_resized_crop_is_torchvisions_to_a_grey_level(size):
    images, rows = pictures(size=size), draw("random_resized_crop_flip", 24, size)
    rows[:, 4] = 0
    out = apply("random_resized_crop_flip", images, rows)
    for image, box, got in zip(images, rows[:, :4].tolist(), out, strict=True):
        cut = vision.crop(image, *box).double()[None]
        expected = functional.interpolate(cut, size, mode="bilinear", align_corners=False)[0]
        assert (got.double() - expected).abs().max() <= 0.75
        theirs = vision.resized_crop(image, *box, list(size), antialias=False)
        assert (got.int() - theirs.int()).abs().max() <= 1


def test_the_whole_box_is_the_identity():
    images = pictures()
    rows = torch.tensor([[0, 0, 32, 32, 0]]).repeat(24, 1)
    assert torch.equal(apply("random_resized_crop_flip", images, rows), images)


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (20, 60)], ids=str)
def test_boxes_lie_inside_and_keep_to_area_and_ratio(size):
    top, left, h, w = draw("random_resized_crop_flip", 5000, size)[:, :4].unbind(1)
    assert (top >= 0).all() and (left >= 0).all() and (h >= 1).all() and (w >= 1).all()
    assert (top + h <= size[0]).all() and (left + w <= size[1]).all()
    ratio, area = w.double() / h, w.double() * h / (size[0] * size[1])
    slack = 1.35 if size == (20, 60) else 1.15  # sides are rounded to whole pixels
    assert ratio.min() > RATIO[0] / slack and ratio.max() < RATIO[1] * slack
    assert area.min() > AREA[0] / slack**2
    if size[0] == size[1]:
        assert float(area.mean()) == pytest.approx(0.5, abs=0.05) and area.max() > 0.95


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"unknown augmentation 'pad_crop_filp' .did you mean 'pad_crop_flip'"):
        augmented("pad_crop_filp", pictures(), seeded())
    with pytest.raises(UserError, match="did you mean 'flip'"):
        list(training(dataclasses.replace(CONFIG, augment="flp")))


def training(config, checkpoint=None, parts=None):
    model = build_network(config, num_classes=4, mean=(0.5,), deviation=(0.3,))
    parts = parts or split(load_dataset("fake"), 2)
    for event in train(model, parts.train, parts.val, config, checkpoint):
        yield event, {name: value.clone() for name, value in model.state_dict().items()}


def last(config, checkpoint=None):
    *_, (trained, weights) = training(config, checkpoint)
    return trained, weights


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_resumed_training_sees_the_same_images(tmp_path):
    trained, weights = last(CONFIG)
    dropped = training(CONFIG, tmp_path / "state.pt")
    next(dropped)
    resumed, their_weights = last(CONFIG, tmp_path / "state.pt")
    assert resumed.resumed_from == 1 and resumed.curves == trained.curves and same(weights, their_weights)
    assert not same(weights, last(dataclasses.replace(CONFIG, augment="none"))[1])
    assert not same(weights, last(dataclasses.replace(CONFIG, augment="pad_crop_flip"))[1])


def test_without_augmentation_nothing_is_looked_up_or_drawn(monkeypatch):
    plain = last(dataclasses.replace(CONFIG, augment="none"))[1]
    monkeypatch.setattr("study.data.parts.AUGMENTATIONS", None)
    assert same(plain, last(dataclasses.replace(CONFIG, augment="none"))[1])


def epoch_images(config, epoch):
    """Pixels that the network is trained on in ``epoch``, by index of the image."""
    parts, batches = split(load_dataset("fake"), 2), []
    model = build_network(config, num_classes=4, mean=(0.5,), deviation=(0.3,))
    model.register_forward_pre_hook(lambda net, given: batches.append(given[0].clone()) if net.training else None)
    for _ in train(model, parts.train, parts.val, dataclasses.replace(config, epochs=epoch + 1), None):
        pass
    shown = torch.cat(batches)[epoch * 48 :]
    by_image = torch.empty_like(shown)
    by_image[loop.epoch_order(48, config.seed, epoch)] = shown
    return by_image


def test_what_is_done_to_an_image_is_shared_by_cells_and_batch_sizes_and_differs_by_epoch_and_seed():
    first = epoch_images(CONFIG, 0)
    for changes in ({"merge": "mul"}, {"batch_size": 6}, {"lr": 1.0}, {"split_seed": 9}, {"depth": 14}):
        assert torch.equal(first, epoch_images(dataclasses.replace(CONFIG, **changes), 0)), changes
    assert not torch.equal(first, epoch_images(CONFIG, 1))
    assert not torch.equal(first, epoch_images(dataclasses.replace(CONFIG, seed=2), 0))
    assert first.dtype == torch.float32 and first.max() <= 1 and first.min() == 0


def test_validation_and_labels_are_untouched():
    parts = split(load_dataset("fake"), 2)
    before = [(part.images.clone(), part.labels.clone()) for part in (parts.train, parts.val, parts.test)]
    list(training(CONFIG, parts=parts))
    for part, (images, labels) in zip((parts.train, parts.val, parts.test), before, strict=True):
        assert torch.equal(part.images, images) and torch.equal(part.labels, labels)

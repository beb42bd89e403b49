"""Data that is decoded as it is needed: against torchvision, image by image; the same with any number of workers."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from picture_files import write_imagenet, write_images
from PIL import Image
from torch import nn
from torchvision.models import ResNet50_Weights
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional
from trainings import train

from study.config import Task, TrialConfig
from study.data import imagenet, load_dataset, split, stream
from study.data.dataset import largest_share
from study.errors import UserError
from study.registry import AUGMENTATIONS, DATASETS
from study.results.provenance import fingerprint
from study.seeding import derive_seed
from study.training import Progress
from study.training.process_group import Ranks
from study.worker.group import run_group

CONFIG = TrialConfig(
    dataset="imagenet", depth=8, width=2, seed=1, split_seed=2, epochs=2, batch_size=4, lr=0.01,
    augment="random_resized_crop_flip",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The root of a fake ImageNet: 18 images to train and validate on, 6 to test."""
    root = tmp_path_factory.mktemp("data")
    write_imagenet(root)
    return root


@pytest.fixture
def root(made, monkeypatch):
    monkeypatch.setenv("FMM_STUDY_DATA", str(made))
    monkeypatch.setenv("FMM_STUDY_LOADERS", "0")
    monkeypatch.setattr(imagenet, "NUM_IMAGES", 24)
    load_dataset.cache_clear()
    yield made
    load_dataset.cache_clear()


@pytest.fixture
def dataset(root):
    return DATASETS["imagenet"].build()


@pytest.fixture
def workers(monkeypatch):
    return lambda num: monkeypatch.setenv("FMM_STUDY_LOADERS", str(num))


def photograph(part, index):
    with Image.open(part.folder / part.files[index].decode()) as image:
        return image.convert("RGB")


def shown(part, order, size=4, augment="none", seed=0):
    """Uint8 images of an epoch, and their labels."""
    batches = list(part.epoch(torch.as_tensor(order), size, augment, seed))
    pixels = torch.cat([pixels for pixels, _ in batches])
    assert pixels.dtype == torch.float32 and pixels.min() >= 0 and pixels.max() <= 1
    return (pixels * 255).round().to(torch.uint8), torch.cat([labels for _, labels in batches])


def test_it_is_listed_and_split_like_any_other(dataset):
    assert dataset.image_shape == (3, 224, 224) and dataset.num_classes == 2
    assert (len(dataset.pool), len(dataset.test), dataset.num_val) == (18, 6, 1)
    assert dataset.pool.labels.tolist() == [0] * 9 + [1] * 9 and dataset.test.labels.tolist() == [0] * 3 + [1] * 3
    assert dataset.pool.files[9] == b"train/n02/train_00.JPEG" and dataset.test.files[0] == b"val/n01/val_00.JPEG"
    parts = split(dataclasses.replace(dataset, num_val=6), 3)
    assert sorted([*parts.train.files, *parts.val.files]) == sorted(dataset.pool.files)
    assert np.bincount(parts.val.labels).tolist() == [3, 3] and parts.test is dataset.test
    for part in (parts.train, parts.val):
        assert [b"n02" in file for file in part.files] == part.labels.bool().tolist()
    assert list(split(dataclasses.replace(dataset, num_val=6), 4).val.files) != list(parts.val.files)


def test_what_is_not_whole_or_not_paired_is_told(root, monkeypatch, tmp_path):
    monkeypatch.setattr(imagenet, "NUM_IMAGES", 25)
    with pytest.raises(UserError, match=r"dataset imagenet in .* \(24 images instead of 25\)"):
        DATASETS["imagenet"].build()
    write_imagenet(tmp_path, 1, 1)
    (tmp_path / "imagenet" / "val" / "n02").rename(tmp_path / "imagenet" / "val" / "n03")
    monkeypatch.setenv("FMM_STUDY_DATA", str(tmp_path))
    with pytest.raises(UserError, match="class 'n02' is in one of train and val only"):
        DATASETS["imagenet"].build()


def test_evaluation_is_torchvisions(dataset):
    theirs = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor()])
    expected = torch.stack([theirs(photograph(dataset.pool, i)) for i in range(18)])
    batches = list(dataset.pool.batches(5))
    assert [len(labels) for _, labels in batches] == [5, 5, 5, 3]
    assert torch.equal(torch.cat([pixels for pixels, _ in batches]), expected.float() / 255)
    assert torch.equal(torch.cat([labels for _, labels in batches]), dataset.pool.labels)
    # so is training without augmentation, in the order that is asked for; a short rest is left out
    order = [5, 17, 0, 2, 9]
    images, labels = shown(dataset.pool, order, size=2)
    assert torch.equal(images, expected[order[:4]]) and torch.equal(labels, dataset.pool.labels[order[:4]])


def test_images_and_moments_are_those_of_torchvisions_models(dataset):
    theirs = ResNet50_Weights.IMAGENET1K_V1.transforms()
    assert (list(dataset.mean), list(dataset.deviation)) == (theirs.mean, theirs.std)
    pixels, _ = next(dataset.test.batches(6))
    mean, deviation = (torch.tensor(moment).view(3, 1, 1) for moment in (dataset.mean, dataset.deviation))
    expected = torch.stack([theirs(photograph(dataset.test, i)) for i in range(6)])
    assert torch.allclose((pixels - mean) / deviation, expected, atol=1e-6)


def test_large_batches_are_cut_in_evaluation(dataset, monkeypatch):
    monkeypatch.setattr("study.data.parts.LARGEST_BATCH", 7 * 3 * 224 * 224)
    for part in (dataset.pool, dataset.pool.held()):
        assert [len(labels) for _, labels in part.batches(1024)] == [7, 7, 4]
        assert [len(labels) for _, labels in part.batches(6)] == [6, 6, 6]


def test_a_random_box_is_cut_from_the_photograph_and_not_from_its_centre(dataset):
    chosen, order = AUGMENTATIONS["random_resized_crop_flip"].build(), [3, 12, 7, 16, 0, 11]
    images, _ = shown(dataset.pool, order, size=3, augment="random_resized_crop_flip", seed=5)
    flips = []
    for place, index in enumerate(order):
        image = photograph(dataset.pool, index)
        generator = torch.Generator().manual_seed(derive_seed(5, place))
        (box,) = chosen.steps[0].draw(1, (image.height, image.width), generator).tolist()
        flips.append(int(chosen.steps[1].draw(1, (224, 224), generator)))
        cut = functional.resize(functional.crop(image, *box), [224, 224])
        expected = functional.pil_to_tensor(functional.horizontal_flip(cut) if flips[-1] else cut)
        assert torch.equal(images[place], expected)
    assert 0 < sum(flips) < 6


def test_other_augmentations_work_on_the_centre(dataset):
    chosen = AUGMENTATIONS["pad_crop_flip_cutout"].build()
    plain, _ = shown(dataset.pool, range(4))
    images, _ = shown(dataset.pool, range(4), augment="pad_crop_flip_cutout", seed=5)
    for place in range(4):
        drawn = chosen.draw(1, (224, 224), torch.Generator().manual_seed(derive_seed(5, place)))
        assert torch.equal(images[place], chosen.apply(plain[place : place + 1], drawn)[0])
    with pytest.raises(UserError, match="did you mean 'flip'"):
        shown(dataset.pool, range(4), augment="flp")


def test_the_number_of_workers_and_the_batch_size_change_nothing(dataset, workers):
    order, state = torch.randperm(18, generator=torch.Generator().manual_seed(1)), torch.get_rng_state()
    one = shown(dataset.pool, order, 6, "random_resized_crop_flip", 9)
    workers(2)
    for size in (6, 3):
        two = shown(dataset.pool, order, size, "random_resized_crop_flip", 9)
        assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    assert torch.equal(torch.get_rng_state(), state)
    other = shown(dataset.pool, order, 6, "random_resized_crop_flip", 10)
    assert not torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_a_process_opens_the_files_of_its_share_alone(dataset, workers):
    order = torch.randperm(18, generator=torch.Generator().manual_seed(1))
    whole, whole_labels = shown(dataset.pool, order, 6, "random_resized_crop_flip", 9)
    for num, share in ((0, 0), (2, 1)):
        workers(num)
        rows, files = Ranks(share, 2).rows(6), dataset.pool.files.copy()
        mine = np.concatenate([np.arange(start, start + 6)[rows] for start in (0, 6, 12)])
        files[np.setdiff1d(order, order[mine])] = b"not/opened.JPEG"
        part = dataclasses.replace(dataset.pool, files=files)
        batches = list(part.epoch(order, 6, "random_resized_crop_flip", 9, rows))
        assert [len(pixels) for pixels, _ in batches] == [3, 3, 3]
        pixels = (torch.cat([pixels for pixels, _ in batches]) * 255).round().to(torch.uint8)
        assert torch.equal(pixels, whole[mine])
        assert torch.equal(torch.cat([labels for _, labels in batches]), whole_labels[mine])


def test_what_is_measured_is_a_fixed_part(dataset, monkeypatch):
    everything = dataset.pool.held()
    assert len(everything) == 18 and everything.images.dtype == torch.uint8 and everything.held() is everything
    monkeypatch.setattr(stream, "NUM_HELD", 5)
    held = dataset.pool.held()
    assert torch.equal(held.images, everything.images[:5]) and torch.equal(held.labels, everything.labels[:5])
    index = torch.randperm(18, generator=torch.Generator().manual_seed(derive_seed(0, "held")))[:5]
    assert torch.equal(held.images, shown(dataset.pool, index, 5)[0])
    assert torch.equal(held.labels, dataset.pool.labels[index])


@pytest.mark.parametrize("num", [0, 2])
def test_a_file_that_is_no_image_is_named_in_one_line(dataset, workers, num):
    workers(num)
    files = dataset.test.files.copy()
    files[4] = b"val/none.JPEG"
    with pytest.raises(UserError) as caught:
        list(dataclasses.replace(dataset.test, files=files).batches(2))
    message = str(caught.value)
    assert message.startswith(f"dataset imagenet in {dataset.test.folder} cannot be read (val/none.JPEG: ")
    assert "\n" not in message


def test_the_number_of_workers_is_the_users(workers, monkeypatch):
    workers(3)
    assert stream.num_loaders() == 3
    workers("two")
    with pytest.raises(UserError, match=r"FMM_STUDY_LOADERS = 'two': expected a whole number of at least 0"):
        stream.num_loaders()
    monkeypatch.delenv("FMM_STUDY_LOADERS")
    assert 1 <= stream.num_loaders() <= 8


def test_a_part_that_moves_gives_its_batches_there(dataset):
    moved = dataset.test.to(torch.device("meta"))
    assert len(moved) == 6 and moved.labels.device.type == "meta" and dataset.test.labels.device.type == "cpu"
    assert all(pixels.device.type == labels.device.type == "meta" for pixels, labels in moved.batches(4))


def test_its_digest_tells_names_and_labels(dataset):
    load = load_dataset("imagenet")
    first = fingerprint("imagenet")
    assert first["num_pool"] == 18 and first["image_shape"] == [3, 224, 224]
    content = [tensor.clone() for tensor in load.pool.content()]
    renamed = dataclasses.replace(load.pool, files=load.pool.files[::-1].copy())
    assert not torch.equal(content[0], next(renamed.content())) and torch.equal(content[1], load.pool.labels)
    assert bytes(content[0][0]).rstrip(b"\0") == load.pool.files[0]


def trained(dataset, checkpoint=None, stop_after=None):
    """A little network's weights after two epochs, and the last event."""
    model = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 2))
    with torch.no_grad():
        model[2].weight.fill_(0.1)
        model[2].bias.zero_()
    parts = split(dataclasses.replace(dataset, num_val=4), 2)
    for number, event in enumerate(train(model, parts.train, parts.val, CONFIG, checkpoint), 1):
        last = event
        if number == stop_after:
            break
    return model[2].weight, last


def test_a_resumed_training_equals_an_undisturbed_one(dataset, workers, tmp_path):
    weight, whole = trained(dataset)
    trained(dataset, tmp_path / "state.pt", stop_after=1)
    workers(2)
    resumed, event = trained(dataset, tmp_path / "state.pt")
    assert event.resumed_from == 1 and event.curves == whole.curves and torch.equal(weight, resumed)
    assert whole.curves["train/loss"][1] != whole.curves["train/loss"][0]


def test_a_replicate_is_trained_tested_and_measured(root, tmp_path, workers):
    workers(2)
    task = Task(
        config=dataclasses.replace(CONFIG, epochs=1), cell="c", phase="confirm", block=0, replicate=0, number=0,
        statistics={"input_jacobian": {"num_samples": 3}},
    )  # fmt: skip
    (records,) = [event for event in run_group([task], tmp_path) if not isinstance(event, Progress)]
    record, measured = records
    assert record["state"] in ("completed", "collapsed"), record["reason"]
    assert record["epochs"] == 1 and record["flops"] > 1e7
    assert {"train/accuracy", "test/accuracy_bn_reestimated", "test/loss_best"} <= set(record["metrics"])
    assert measured["error"] == "" and measured["estimates"]["jacobian_logits_rms"]["num_samples"] == 3
    json.dumps(records)


def test_a_folder_of_ones_own_has_the_same_test_split_streamed_and_in_memory(monkeypatch, tmp_path):
    monkeypatch.setenv("FMM_STUDY_DATA", str(tmp_path))
    for i, name in enumerate("ab"):
        write_images(tmp_path / "image_folder" / "train" / name, 10, size=(64, 64), seed=i)
    large, small = DATASETS["image_folder_224"].build(), DATASETS["image_folder"].build()
    assert (len(large.pool), len(large.test), large.num_val) == (16, 4, 1) == (len(small.pool), 4, small.num_val)
    assert largest_share(large) == largest_share(small) == 0.5
    for streamed, held in ((large.pool, small.pool), (large.test, small.test)):
        pictures = [functional.pil_to_tensor(photograph(streamed, i)) for i in range(len(streamed))]
        assert torch.equal(torch.stack(pictures), held.images) and torch.equal(streamed.labels, held.labels)

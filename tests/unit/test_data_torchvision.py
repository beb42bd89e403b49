"""Tiny made-up files in torchvision's layouts: every loader offline, absent data, damaged data, downloads."""

import gzip
import math
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
import torch
from picture_files import random_images
from scipy.io import savemat
from torchvision import datasets

from study.data import Split, data_root, load_dataset, offline, split
from study.data.dataset import channel_moments
from study.data.files import ensure
from study.data.mnist import FILES, read_idx
from study.errors import UserError
from study.registry import DATASETS

ALL = [
    "fashion_mnist", "mnist", "cifar10", "cifar100", "svhn", "caltech101", "caltech101_authors", "tiny_imagenet",
    "imagenet", "image_folder", "image_folder_32", "image_folder_224",
]  # fmt: skip


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """An empty data root, no download, no Debian package."""
    monkeypatch.setenv("FMM_STUDY_DATA", str(tmp_path))
    monkeypatch.setenv("FMM_STUDY_OFFLINE", "1")
    monkeypatch.setattr("study.data.mnist.DEBIAN", tmp_path / "nowhere")
    return tmp_path


def load(name):
    return DATASETS[name].build()


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(raw, name="MNIST", ending=""):
    raw.mkdir(parents=True, exist_ok=True)
    arrays = [random_images(100, 28, 28), np.arange(100, dtype=np.uint8) % 10]
    arrays += [random_images(20, 28, 28, seed=1), np.arange(20, dtype=np.uint8) % 10]
    for file, array in zip(FILES, arrays, strict=True):
        data = idx(array)
        (raw / f"{file}{ending}").write_bytes(gzip.compress(data) if ending else data)
    return arrays


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_mnist(root, name, folder, ending):
    arrays = write_mnist(root / folder / "raw", ending=ending)
    dataset = load(name)
    read = (dataset.pool.images[:, 0], dataset.pool.labels, dataset.test.images[:, 0], dataset.test.labels)
    assert all(np.array_equal(a, b) for a, b in zip(read, arrays, strict=True))
    assert dataset.num_val == 10 and dataset.num_classes == 10 and dataset.image_shape == (1, 28, 28)
    if not ending:
        theirs = getattr(datasets, folder)(root, train=True)
        assert torch.equal(theirs.data, dataset.pool.images[:, 0]) and torch.equal(theirs.targets, dataset.pool.labels)


@pytest.mark.parametrize("spoil", [lambda d: d[:-1], lambda d: d[:10], lambda d: b"", lambda d: b"\0\0\x0d" + d[3:]])
def test_a_damaged_idx_file_is_told(root, spoil):
    write_mnist(root / "MNIST" / "raw")
    path = root / "MNIST" / "raw" / FILES[0]
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=FILES[0]):
        read_idx(path)
    with pytest.raises(UserError, match=f"dataset mnist in .*MNIST/raw cannot be read .*{FILES[0]}.*remove"):
        load("mnist")


def whole_idx(*shape):
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + bytes(math.prod(shape))


UNFIT = {
    "no image": ({0: whole_idx(0, 28, 28), 1: whole_idx(0)}, "its pool part has no image"),
    "label of 255": ({3: idx(np.full(20, 255, np.uint8))}, "its test part has the label 255; expected 0 to 9"),
    "nothing but black": ({0: whole_idx(100, 28, 28)}, "all its images have one and the same value everywhere"),
    "other size": ({2: whole_idx(20, 28, 27)}, r"its test part has images of another shape, \(1, 28, 27\)"),
    "more than said": (
        {0: idx(random_images(100, 28, 28)) + b"more"},
        "holds more bytes, not those of 100x28x28 values",
    ),
    "four billion images": (
        {0: struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 28, 28)},
        "4294967295x28x28 values; expected 47,040",
    ),
    "many dimensions": (
        {0: struct.pack(">HBB255I", 0, 8, 255, *[2**32 - 1] * 255)},
        "values; expected 47,040,000 at most",
    ),
}


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("kind", UNFIT)
def test_idx_files_that_are_whole_and_unfit_are_told_in_one_line(root, kind, ending):
    write_mnist(root / "MNIST" / "raw", ending=ending)
    files, message = UNFIT[kind]
    for number, data in files.items():
        path = root / "MNIST" / "raw" / f"{FILES[number]}{ending}"
        path.write_bytes(gzip.compress(data) if ending else data)
    load_dataset.cache_clear()
    with pytest.raises(UserError, match=f"dataset mnist.*{message}") as caught:
        load_dataset("mnist")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "spoil", [lambda d: d[:40], lambda d: d[:-3] + b"abc", lambda d: d[:30] + b"\xff" * 9 + d[39:], lambda d: b"no"]
)
def test_a_damaged_gzip_file_is_told(root, spoil):
    write_mnist(root / "MNIST" / "raw", ending=".gz")
    path = root / "MNIST" / "raw" / f"{FILES[0]}.gz"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match=r"dataset mnist in .*MNIST/raw cannot be read"):
        load("mnist")


def test_no_more_is_unpacked_than_the_header_says(root, monkeypatch):
    write_mnist(root / "MNIST" / "raw", ending=".gz")
    bomb = gzip.compress(idx(random_images(100, 28, 28)) + bytes(2**27), 1)
    (root / "MNIST" / "raw" / f"{FILES[0]}.gz").write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(UserError, match="holds more bytes"):
        load("mnist")
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def write_cifar(root, monkeypatch, name):
    kind, key = {"cifar10": (datasets.CIFAR10, "labels"), "cifar100": (datasets.CIFAR100, "fine_labels")}[name]
    num_classes = int(name.removeprefix("cifar"))
    folder = root / kind.base_folder
    folder.mkdir()
    written = []
    for i, (file, _) in enumerate(kind.train_list + kind.test_list):
        images, labels = random_images(200, 3, 32, 32, seed=i), (np.arange(200) % num_classes).tolist()
        (folder / file).write_bytes(pickle.dumps({"data": images.reshape(200, -1), key: labels}))
        written.append((images, labels))
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: ["a"] * num_classes}))
    for files in ("train_list", "test_list"):  # the made-up files have other digests
        monkeypatch.setattr(kind, files, [[file, None] for file, _ in getattr(kind, files)])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": None})
    return kind, written


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar(root, monkeypatch, name):
    kind, written = write_cifar(root, monkeypatch, name)
    dataset = load(name)
    for part, files in ((dataset.pool, written[:-1]), (dataset.test, written[-1:])):
        assert np.array_equal(part.images, np.concatenate([images for images, _ in files]))
        assert part.labels.tolist() == [label for _, labels in files for label in labels]
        assert part.images.is_contiguous() and part.images.dtype == torch.uint8 and part.labels.dtype == torch.int64
    image, label = kind(root, train=False)[7]
    assert (
        np.array_equal(np.asarray(image), dataset.test.images[7].permute(1, 2, 0)) and label == dataset.test.labels[7]
    )
    assert dataset.num_classes == int(name.removeprefix("cifar")) and dataset.num_val == len(dataset.pool) // 10
    assert len(dataset.mean) == len(dataset.deviation) == 3


def test_cifar_files_with_another_digest_are_never_unpickled(root, monkeypatch):
    with monkeypatch.context() as patch:
        write_cifar(root, patch, "cifar10")
    with pytest.raises(UserError, match=r"dataset cifar10 in .*cifar-10-batches-py cannot be read"):
        load("cifar10")


def test_svhn(root, monkeypatch):
    listed, written = {}, {}
    for part, num in (("train", 60), ("test", 30)):
        images, labels = random_images(32, 32, 3, num, seed=num), 1 + np.arange(num) % 10
        savemat(root / f"{part}_32x32.mat", {"X": images, "y": labels[:, None].astype(np.uint8)})
        listed[part], written[part] = ["http://example.org", f"{part}_32x32.mat", None], (images, labels)
    monkeypatch.setattr(datasets.SVHN, "split_list", listed)
    dataset = load("svhn")
    for part, name in ((dataset.pool, "train"), (dataset.test, "test")):
        images, labels = written[name]
        assert np.array_equal(part.images, images.transpose(3, 2, 0, 1)) and part.images.is_contiguous()
        assert part.labels.tolist() == (labels % 10).tolist()  # ten stands for the digit 0
    assert dataset.num_val == 6 and set(split(dataset, 1).train.labels.tolist()) == set(range(10))


@pytest.mark.parametrize("name", ALL)
def test_absent_data_is_told_in_one_line(root, name):
    with pytest.raises(UserError) as caught:
        load(name)
    message = str(caught.value)
    assert message.startswith(f"dataset {name} is not here (") and "\n" not in message
    assert f" into {root} (or set FMM_STUDY_DATA" in message and "they come from " in message
    assert list(root.iterdir()) == []


def test_the_folder_is_named_by_the_variable_or_is_data(root, monkeypatch):
    assert data_root() == root
    monkeypatch.delenv("FMM_STUDY_DATA")
    monkeypatch.chdir(root)
    assert data_root() == root / "data"


def test_a_download_fills_the_folder_whole_or_says_why_not(root, monkeypatch):
    monkeypatch.delenv("FMM_STUDY_OFFLINE")
    calls = []

    def download(folder):
        calls.append(folder)
        (folder / "a").mkdir(parents=True)
        (folder / "a" / "x").write_text("x")
        (folder / "archive.tgz").write_text("left behind")
        if len(calls) == 1:
            raise OSError("no route\nto host")
        (folder / "a" / "y").write_text("y")

    files = ["a/x", "a/y"]
    with pytest.raises(UserError, match=r"\(the download failed: no route to host\): put a/\{x, y\} into"):
        ensure("some", files, "there", download)
    assert [path.name for path in root.iterdir()] == [".some.lock"]
    with offline(), pytest.raises(UserError, match="FMM_STUDY_OFFLINE forbids the download"):
        ensure("some", files, "there", download)
    assert ensure("some", files, "there", download) == root == ensure("some", files, "there", download)
    assert len(calls) == 2 and sorted(path.name for path in root.iterdir()) == [".some.lock", "a"]


def test_moments_are_those_of_every_channel():
    images = torch.from_numpy(random_images(5000, 2, 3, 4))
    images[:, 1] //= 3
    mean, deviation = channel_moments(Split(images=images, labels=torch.zeros(5000, dtype=torch.int64)))
    pixels = images.double() / 255
    assert mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert deviation == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), rel=1e-12)

"""Datasets of picture files, made up: which files are read, how they are split, and what is kept of them."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import random_images, write_images
from PIL import Image
from sklearn.model_selection import train_test_split
from torchvision import datasets

from study.data import caltech101, cifar, imagenet
from study.data.dataset import largest_share, near_chance
from study.data.files import telling
from study.data.listing import listing
from study.errors import UserError
from study.registry import DATASETS


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """An empty data root, no download."""
    monkeypatch.setenv("FMM_STUDY_DATA", str(tmp_path))
    monkeypatch.setenv("FMM_STUDY_OFFLINE", "1")
    return tmp_path


def load(name):
    return DATASETS[name].build()


def test_caltech101_leaves_out_the_background_and_holds_out_a_fifth(root, monkeypatch):
    folder = root / "caltech101" / "101_ObjectCategories"
    write_images(folder / "BACKGROUND_Google", 3)
    for i, name in enumerate(("Faces", "ant", "zebra")):
        write_images(folder / name, 10 + 5 * i, seed=i)
    with pytest.raises(UserError, match=r"dataset caltech101 in .*\(45 images instead of 8,677"):
        load("caltech101")
    monkeypatch.setattr(caltech101, "NUM_IMAGES", 45)
    dataset, again = load("caltech101"), load("caltech101")
    assert dataset.num_classes == 3 and (len(dataset.pool), len(dataset.test)) == (36, 9)
    assert np.bincount(dataset.test.labels).tolist() == [2, 3, 4]
    assert torch.equal(dataset.test.images, again.test.images) and torch.equal(dataset.pool.images, again.pool.images)
    theirs = datasets.Caltech101(root)
    assert len(theirs) == 45 and len(theirs.categories) == 3


def test_tiny_imagenet_tests_on_val(root, monkeypatch):
    folder = root / "tiny-imagenet-200"
    trained = {name: write_images(folder / "train" / name / "images", 20, seed=i) for i, name in enumerate("ab")}
    tested = write_images(folder / "val" / "images", 6, seed=9)
    names = "bbabaa"
    rows = [f"image_{i:04d}.png\t{name}\t0\t0\t9\t9\n" for i, name in enumerate(names)]
    (folder / "val" / "val_annotations.txt").write_text("".join(rows))
    monkeypatch.setattr(imagenet, "NUM_TINY_IMAGES", 46)
    dataset = load("tiny_imagenet")
    assert np.array_equal(dataset.pool.images.permute(0, 2, 3, 1), np.concatenate([*trained.values()]))
    assert np.array_equal(dataset.test.images.permute(0, 2, 3, 1), tested)
    assert dataset.test.labels.tolist() == ["ab".index(name) for name in names] and dataset.num_val == 4
    (folder / "val" / "images" / "image_0003.png").unlink()
    with pytest.raises(UserError, match=r"dataset tiny_imagenet in .* cannot be read .*image_0003.png"):
        load("tiny_imagenet")


def test_cifar10_as_jpeg_files_is_read_as_it_is_laid_out_and_whole(root, monkeypatch):
    folder = root / "cifar10_jpeg"
    with pytest.raises(UserError, match=r"dataset cifar10_jpeg .*train.*test.*CIFAR-10-images"):
        load("cifar10_jpeg")
    shown = {
        part: [write_images(folder / part / kind, 4, size=(32, 32), seed=i + at) for i, kind in enumerate("ab")]
        for at, part in enumerate(("train", "test"))
    }
    with pytest.raises(UserError, match=r"dataset cifar10_jpeg in .*\(8 images instead of 50,000"):
        load("cifar10_jpeg")
    monkeypatch.setattr(cifar, "JPEG_SIZES", (8, 8))
    dataset = load("cifar10_jpeg")
    for part, split in (("train", dataset.pool), ("test", dataset.test)):
        assert np.array_equal(split.images.permute(0, 2, 3, 1), np.concatenate(shown[part]))
        assert split.labels.tolist() == [0] * 4 + [1] * 4


def test_an_image_folder_of_any_sizes_and_modes(root):
    train = root / "image_folder" / "train"
    write_images(train / "cat", 20, size=(50, 80))
    write_images(train / "dog", 30, size=(64, 64), seed=1)
    Image.new("L", (9, 9), 200).save(train / "cat" / "grey.PNG")
    (train / "cat" / "notes.txt").write_text("no image")
    dataset = load("image_folder")
    assert dataset.image_shape == (3, 64, 64) and dataset.num_classes == 2
    assert (len(dataset.pool), len(dataset.test)) == (41, 10)
    assert np.bincount(dataset.test.labels).tolist() == [4, 6]
    assert near_chance(largest_share(dataset)) == round(24 / 41 + 17 / 410, 4)
    write_images(root / "image_folder" / "test" / "cat", 4)
    write_images(root / "image_folder" / "test" / "cow", 4)
    with pytest.raises(UserError, match="class 'cow' is in one of train and test only"):
        load("image_folder")
    (root / "image_folder" / "test" / "cow").rename(root / "image_folder" / "test" / "dog")
    dataset = load("image_folder")
    assert (len(dataset.pool), len(dataset.test)) == (51, 8)


def rows(part):
    return [(image.numpy().tobytes(), int(label)) for image, label in zip(part.images, part.labels, strict=True)]


def test_the_authors_split_is_scikit_learns_of_the_files_as_torchvision_lists_them(root, monkeypatch):
    folder = root / "caltech101" / "101_ObjectCategories"
    write_images(folder / "BACKGROUND_Google", 1)
    for i, name in enumerate(("Faces", "ant", "zebra")):
        write_images(folder / name, 10 + 5 * i, seed=i)
    for name in ("ant", "Faces", "zebra"):  # torchvision counts files from one
        for path in sorted((folder / name).iterdir(), reverse=True):
            path.rename(path.with_name(f"image_{int(path.stem[-4:]) + 1:04d}.jpg"))
    monkeypatch.setattr(caltech101, "NUM_IMAGES", 45)
    dataset, plain = load("caltech101_authors"), load("caltech101")
    theirs = datasets.Caltech101(root)
    pool, test = train_test_split(range(45), test_size=0.2, random_state=42, stratify=theirs.y)
    for part, index in ((dataset.pool, pool), (dataset.test, test)):
        assert part.labels.tolist() == [theirs.y[i] for i in sorted(index)]
        pictures = [np.asarray(theirs[i][0]) for i in sorted(index)]
        assert np.array_equal(part.images.permute(0, 2, 3, 1), pictures)
    assert np.bincount(dataset.test.labels).tolist() == np.bincount(plain.test.labels).tolist() == [2, 3, 4]
    assert rows(dataset.test) != rows(plain.test) and dataset.name == "caltech101_authors"


def test_the_held_out_images_of_caltech101_are_as_many_as_the_authors_and_stay_the_same():
    labels = np.repeat(np.arange(101), [86] * 92 + [85] * 9)
    assert len(labels) == caltech101.NUM_IMAGES
    _, test = train_test_split(np.arange(8677), test_size=0.2, random_state=42, stratify=labels)
    assert len(test) == 1736 == DATASETS["caltech101"].traits["num_test"]
    # frozen: a version of scikit-learn that splits otherwise would make accuracies incomparable
    assert np.sort(test)[:8].tolist() == [4, 6, 7, 11, 22, 27, 32, 33]


def test_files_are_listed_by_class_and_name_at_any_depth(root):
    for name in (
        "b/x10.png",
        "b/x9.JPG",
        "b/deep/y.png",
        "b/.hidden.png",
        "B/z.webp",
        "a/q.jpeg",
        "b/notes.txt",
        ".c/x.png",
    ):
        (root / "top" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "top" / name).touch()
    found = listing("some", root, "top")
    assert found.classes == ["B", "a", "b"] and found.labels == [0, 1, 2, 2, 2]
    assert found.files == [f"top/{name}" for name in ("B/z.webp", "a/q.jpeg", "b/deep/y.png", "b/x10.png", "b/x9.JPG")]
    assert listing("some", root, "top", leave_out=["B"]).labels == [0, 1, 1, 1]
    with pytest.raises(UserError, match="needs two classes or more"):
        listing("some", root, "top", leave_out=["B", "a"])
    (root / "top" / "empty").mkdir()
    with pytest.raises(UserError, match="class 'empty' has no image"):
        listing("some", root, "top")


@pytest.fixture
def folder(root):
    for i, name in enumerate("ab"):
        write_images(root / "image_folder" / "train" / name, 10, seed=i)
    return root / "image_folder"


def kept(folder):
    return sorted(folder.glob(".fmm-study-*"))


def same(one, other):
    return rows(one.pool) == rows(other.pool) and rows(one.test) == rows(other.test)


def test_decoded_images_are_kept_and_a_change_of_files_is_seen(folder, monkeypatch):
    first = load("image_folder")
    assert len(kept(folder)) == 2  # pool and test
    with monkeypatch.context() as patch:
        patch.setattr("study.data.pictures.open_rgb", None)  # nothing is decoded
        assert same(first, load("image_folder"))
    (folder / "train" / "b" / "image_0009.png").unlink()
    assert len(load("image_folder").pool) + len(load("image_folder").test) == 19


def test_images_rewritten_at_the_same_size_and_date_are_decoded_anew(folder):
    path = folder / "train" / "a" / "image_0000.bmp"
    Image.fromarray(random_images(64, 64, 3, seed=8)).save(path)
    first, before = load("image_folder"), path.stat()
    image = random_images(64, 64, 3, seed=9)
    Image.fromarray(image).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    again = load("image_folder")
    assert not same(first, again) and image.tobytes() in {
        np.ascontiguousarray(np.moveaxis(np.frombuffer(row, np.uint8).reshape(3, 64, 64), 0, 2)).tobytes()
        for row, _ in rows(again.pool) + rows(again.test)
    }


@pytest.mark.parametrize("num", ["0", "2"])
def test_any_number_of_processes_decodes_the_same_and_tells_how_far_it_is(folder, monkeypatch, num):
    first, told = load("image_folder"), []
    for path in kept(folder):
        path.unlink()
    monkeypatch.setenv("FMM_STUDY_LOADERS", num)
    monkeypatch.setattr("study.data.pictures._FEW", 1)
    monkeypatch.setattr("study.data.pictures._AT_ONCE", 5)
    monkeypatch.setattr("study.data.pictures._TOLD", 0.0)
    with telling(told.append):
        assert same(first, load("image_folder"))
    assert told[-1] == "dataset image_folder: 16 of 16 images are decoded" and len(told) == 4


def test_kept_images_are_mapped_not_read(folder):
    load("image_folder")
    held = load("image_folder")  # its two parts: what nobody holds is unmapped
    part = held.pool
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if ".fmm-study-" in line]
    assert len(mapped) >= 2 and part.stored.shape[0] == 16


SPOILT = {
    "half": lambda d: d[: len(d) // 2],
    "last byte": lambda d: d[:-1],
    "empty": lambda d: b"",
    "text": lambda d: b"no",
}


@pytest.mark.parametrize("how", [*SPOILT, "other shape"])
def test_a_damaged_keep_is_decoded_again(folder, how):
    first = load("image_folder")
    for path in kept(folder):
        content = path.read_bytes()
        path.unlink()  # a new file: the old one is mapped by who reads it
        if how in SPOILT:
            path.write_bytes(SPOILT[how](content))
        else:
            torch.save(torch.zeros(3, 3, 64, 64, dtype=torch.uint8), path)
    assert same(first, load("image_folder")) and same(first, load("image_folder"))


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EIO])
def test_where_nothing_can_be_kept_images_are_decoded_each_time_and_other_faults_are_told(folder, monkeypatch, code):
    def full(images, file):
        file.write(b"a part")
        raise OSError(code, "cannot write")

    monkeypatch.setattr(torch, "save", full)
    if code == errno.EIO:
        with pytest.raises(UserError, match=r"dataset image_folder in .* cannot be read .*Input/output error"):
            load("image_folder")
    else:
        assert len(load("image_folder").pool) == 16 and kept(folder) == []

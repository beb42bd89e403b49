"""Pictures as users have them: deep pixels, turned photographs, folders that systems leave behind, files that are no image."""

import os
import zlib

import numpy as np
import pytest
import torch
from picture_files import random_images, write_images
from PIL import Image

from study.data import load_dataset
from study.data.decoding import open_rgb
from study.data.listing import listing
from study.errors import UserError
from study.registry import DATASETS

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = random_images(6, 8, 3)


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("FMM_STUDY_DATA", str(tmp_path))
    load_dataset.cache_clear()
    yield tmp_path
    load_dataset.cache_clear()


@pytest.fixture
def train(root):
    """Two classes of 10 images each."""
    for i, name in enumerate("ab"):
        write_images(root / "image_folder" / "train" / name, 10, seed=i)
    return root / "image_folder" / "train"


def picture(kind):
    """An image (PIL) of ``kind``, and the file's ending."""
    deep = GREY.astype(np.uint16) * 257
    made = {
        "16 bits": (Image.fromarray(deep), "png"),
        "16 bits, TIFF": (Image.fromarray(deep), "tif"),
        "16 bits, PGM": (Image.fromarray(deep), "pgm"),
        "float": (Image.fromarray((GREY / 255).astype(np.float32)), "tif"),
        "grey": (Image.fromarray(GREY), "png"),
        "two colours": (Image.fromarray(GREY > 100), "png"),
        "colour": (Image.fromarray(COLOUR), "png"),
        "alpha": (Image.fromarray(np.dstack([COLOUR, GREY])), "png"),
        "grey with alpha": (Image.fromarray(np.dstack([GREY, GREY])), "png"),
        "palette": (Image.fromarray(GREY).convert("P"), "png"),
    }
    return made[kind]


KINDS = {
    **dict.fromkeys(["16 bits", "16 bits, TIFF", "16 bits, PGM", "float", "grey", "grey with alpha", "palette"], GREY),
    "two colours": (GREY > 100) * np.uint8(255),
    "colour": COLOUR,
    "alpha": COLOUR,
}


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_scaled_by_their_type(tmp_path, kind):
    image, ending = picture(kind)
    image.save(path := tmp_path / f"x.{ending}")
    expected = KINDS[kind] if KINDS[kind].ndim == 3 else np.dstack([KINDS[kind]] * 3)
    assert np.array_equal(np.asarray(open_rgb(path)), expected)


def test_a_palette_with_transparency_and_cmyk_are_read_without_a_warning(tmp_path, recwarn):
    shown = Image.fromarray(GREY).convert("P")
    shown.save(tmp_path / "p.png", transparency=bytes(range(256)))
    assert np.array_equal(np.asarray(open_rgb(tmp_path / "p.png"))[..., 0], GREY)
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "c.tif")
    assert np.array_equal(np.asarray(open_rgb(tmp_path / "c.tif")), COLOUR)
    assert not recwarn.list


def spoilt(kind, path):
    """A file of ``kind`` at ``path``, which no picture can be had from."""
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no image")
    elif kind == "cut short":
        write_images(path.parent / "whole", 1)
        whole = (path.parent / "whole" / "image_0000.png").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "large":
        # what its first bytes say; nothing of it is there, and nothing of it is made room for
        Image.new("1", (8, 8)).save(path, "PNG")
        data = bytearray(path.read_bytes())
        data[16:24] = (13_400).to_bytes(4, "big") * 2
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
        path.write_bytes(data)
    elif kind == "32 bits":
        Image.fromarray(GREY.astype(np.int32) * 2**20).save(path, "TIFF")
    else:
        values = {"float above 1": GREY.astype(np.float32), "NaN": np.full((4, 4), np.nan, np.float32)}[kind]
        Image.fromarray(values).save(path, "TIFF")


NO_PICTURES = {
    "empty": "cannot identify",
    "text": "cannot identify",
    "cut short": "",
    "pipe": "no regular file",
    "large": "179560000 pixels",
    "32 bits": "of type 'I'; expected 8 or 16 bits",
    "float above 1": "floats are from 0 to 235; expected 0 to 1",
    "NaN": "floats are from nan to nan",
}


@pytest.mark.parametrize("kind", NO_PICTURES)
def test_what_cannot_be_read_is_named_and_never_said_to_be_fetched(train, kind):
    spoilt(kind, train / "a" / "odd.png")
    with pytest.raises(UserError) as caught:
        load_dataset("image_folder")
    message = str(caught.value)
    assert "train/a/odd.png: " in message and NO_PICTURES[kind] in message
    assert "\n" not in message and "fetch" not in message and message.endswith("mend it or remove it")


def test_a_photograph_is_turned_as_its_camera_says(train, root):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    rows = np.zeros((64, 64, 3), np.uint8)
    rows[:32] = 255
    Image.fromarray(rows).save(path := train / "a" / "image_0000.png", exif=exif)
    assert np.array_equal(np.asarray(open_rgb(path)), rows)  # as everybody reads what was published
    turned = np.rot90(rows, -1)
    assert np.array_equal(np.asarray(open_rgb(path, upright=True)), turned)
    dataset = load_dataset("image_folder")
    everything = torch.cat([dataset.pool.images, dataset.test.images]).permute(0, 2, 3, 1).numpy()
    assert any(np.array_equal(image, turned) for image in everything)


HIDDEN = (
    "a/.ipynb_checkpoints/x.png",
    "@eaDir/x.png",
    "a/@eaDir/x.png",
    "__MACOSX/a/x.png",
    "a/._y.png",
    "lost+found/x.png",
)


@pytest.mark.parametrize("name", HIDDEN)
def test_what_systems_leave_behind_is_no_class_and_no_image(train, name):
    found = listing("image_folder", train.parent, "train")
    (train / name).parent.mkdir(parents=True, exist_ok=True)
    (train / name).write_bytes((train / "b" / "image_0003.png").read_bytes())
    (train / "a" / "Thumbs.db").touch(), (train / ".DS_Store").touch()
    assert listing("image_folder", train.parent, "train") == found


def test_linked_folders_are_followed_once_and_links_to_nothing_are_named(train, root):
    write_images(root / "elsewhere", 3)
    (train / "c").symlink_to(root / "elsewhere")
    (train / "a" / "more").symlink_to(root / "elsewhere")
    (train / "a" / "round").symlink_to(train / "a")
    found = listing("image_folder", train.parent, "train")
    assert found.classes == ["a", "b", "c"] and [found.labels.count(i) for i in range(3)] == [13, 10, 3]
    assert "train/a/more/image_0002.png" in found.files
    for place in (train / "gone", train / "a" / "gone.png"):
        place.symlink_to(root / "nowhere")
        with pytest.raises(UserError, match=rf"cannot be read \({place.name} is a link that leads nowhere\): mend"):
            listing("image_folder", train.parent, "train")
        place.unlink()


def test_a_file_whose_name_is_no_utf8_is_read_or_named(train):
    bad = train / "a" / os.fsdecode(b"\xff.png")
    try:
        bad.write_bytes((train / "a" / "image_0000.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    assert len(load_dataset("image_folder").pool) + len(load_dataset("image_folder").test) == 21
    load_dataset.cache_clear()
    bad.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"train/a/\ufffd[.]png"):
        load_dataset("image_folder")


@pytest.mark.parametrize(("num", "message"), [
    (1, r"class 'few' has too few images \(1\) for a test split"),
    (2, r"class 'few' has too few images \(2\) for a test split"),
])  # fmt: skip
def test_a_class_too_small_for_the_split_is_named(train, num, message):
    write_images(train / "few", num)
    for i in range(10, 40):
        (train / "b" / f"{i}.png").write_bytes((train / "b" / "image_0001.png").read_bytes())
    with pytest.raises(UserError, match=message):
        load_dataset("image_folder")


def test_a_class_that_validation_would_take_whole_is_named_and_so_is_too_little_of_all(root):
    top = root / "image_folder"
    for i in range(10):
        write_images(top / "train" / f"k{i}", 1)
        write_images(top / "test" / f"k{i}", 1)
    with pytest.raises(UserError, match=r"class 'k0' has too few images \(1\) to train and to validate on"):
        load_dataset("image_folder")
    for part in ("train", "test"):
        for i in range(2, 10):
            (top / part / f"k{i}" / "image_0000.png").unlink()
            (top / part / f"k{i}").rmdir()
    with pytest.raises(UserError, match="has 2 images to train and validate on, 0 of them for validation"):
        load_dataset("image_folder")


def test_images_without_variance_are_refused_and_a_channel_without_is_only_centred(root):
    for value, name in ((7, "a"), (7, "b")):
        (root / "image_folder" / "train" / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (64, 64), (value,) * 3).save(root / "image_folder" / "train" / name / f"{i}.png")
    with pytest.raises(UserError, match="dataset image_folder: all its images have one and the same value everywhere"):
        load_dataset("image_folder")
    for i in range(10):
        Image.fromarray(random_images(64, 64, 3, seed=i) * np.uint8([1, 1, 0])).save(
            root / "image_folder" / "train" / "a" / f"{i}.png"
        )
        Image.new("RGB", (64, 64), (7, 7, 0)).save(root / "image_folder" / "train" / "b" / f"{i}.png")
    dataset = load_dataset("image_folder")
    assert dataset.mean[2] == 0 and dataset.deviation[2] == 1 and 0 < dataset.deviation[0] < 0.5


def test_a_folder_of_ones_own_in_other_sizes(train, root):
    small = load_dataset("image_folder_32")
    assert small.image_shape == (3, 32, 32) and (len(small.pool), len(small.test)) == (16, 4)
    photograph = Image.open(train.parent / listing("x", train.parent, "train").files[0]).resize(
        (32, 32), Image.Resampling.BILINEAR
    )
    assert torch.equal(small.pool.images[0], torch.from_numpy(np.array(photograph)).permute(2, 0, 1))
    write_images(root / "image_folder" / "test" / "a", 3), write_images(root / "image_folder" / "test" / "b", 2)
    own = load_dataset("image_folder_48")
    assert (
        own.name == "image_folder_48" and own.image_shape == (3, 48, 48) and (len(own.pool), len(own.test)) == (20, 5)
    )
    assert DATASETS["image_folder_48"].formula == "image_folder, resized to 3x48x48"
    for name in ("image_folder_7", "image_folder_257", "image_folder_048"):
        assert name not in DATASETS
        with pytest.raises(UserError, match=f"unknown dataset '{name}' "):
            load_dataset(name)
    with pytest.raises(UserError, match=r"unknown dataset 'image_foldr_32' \(did you mean 'image_folder"):
        load_dataset("image_foldr_32")


def test_the_home_of_an_unknown_user_is_told(monkeypatch):
    monkeypatch.setenv("FMM_STUDY_DATA", "~nouser_of_this_name/data")
    with pytest.raises(UserError, match="FMM_STUDY_DATA = '~nouser_of_this_name/data': there is no such user"):
        load_dataset("image_folder")

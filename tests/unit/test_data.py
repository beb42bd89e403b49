"""The digits dataset against scikit-learn's own array, and how a block's split is carved."""

import hashlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from study.data import Split, load_dataset, split
from study.data.augment import augmented
from study.data.dataset import stratified
from study.data.digits import digits
from study.errors import UserError
from study.measuring.replicate import measure_context
from study.registry import DATASETS
from study.smoothness import measure, parse_settings


def rows(*parts: Split) -> list[tuple[bytes, int]]:
    """Images and labels as comparable values; digits has no two equal images (checked below)."""
    return [
        (image.numpy().tobytes(), int(label))
        for part in parts
        for image, label in zip(part.images, part.labels, strict=True)
    ]


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("digits")


def test_it_is_scikit_learns_array(dataset):
    bunch = load_digits()
    theirs = [
        (image.astype(np.uint8).tobytes(), int(label)) for image, label in zip(bunch.images, bunch.target, strict=True)
    ]
    assert len(set(theirs)) == 1797
    assert sorted(rows(dataset.pool, dataset.test)) == sorted(theirs)
    assert dataset.image_shape == (1, 8, 8) and dataset.num_classes == 10


def test_without_scikit_learn_or_its_file_it_is_said_what_to_do(monkeypatch):
    monkeypatch.setattr("study.data.digits._FILE", "datasets/data/no_digits.csv.gz")
    with pytest.raises(UserError, match=r"digits is not where scikit-learn has it, .*no_digits.csv.gz: pip install"):
        digits()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="scikit-learn, which is not installed"):
        digits()


def test_sizes_and_disjointness(dataset):
    for seed in (0, 1, 12345678901234567):
        parts = split(dataset, seed)
        assert (len(parts.train), len(parts.val), len(parts.test)) == (1080, 357, 360)
        train, val, test = (set(rows(part)) for part in (parts.train, parts.val, parts.test))
        assert not train & val and not train & test and not val & test
        assert train | val == set(rows(dataset.pool))


def test_each_part_is_stratified_within_an_image_a_class(dataset):
    totals = np.bincount(load_digits().target)
    test = np.bincount(dataset.test.labels)
    assert np.abs(test - totals * 360 / 1797).max() < 1
    pool = np.bincount(dataset.pool.labels)
    for seed in range(5):
        parts = split(dataset, seed)
        assert np.abs(np.bincount(parts.val.labels) - pool * 357 / 1437).max() < 1
        assert np.abs(np.bincount(parts.train.labels) - pool * 1080 / 1437).max() < 1


def test_the_test_split_is_fixed_for_good(dataset):
    first = split(dataset, 1).test
    assert rows(first) == rows(split(dataset, 2).test) == rows(digits().test)
    # frozen: another test split would make every accuracy ever recorded incomparable
    digest = hashlib.sha256(first.images.numpy().tobytes() + first.labels.numpy().tobytes()).hexdigest()
    assert digest[:16] == "00ab5b35606eb4d8"


def test_train_and_validation_differ_between_seeds_and_not_within_one(dataset):
    one, again, two = split(dataset, 1), split(dataset, 1), split(dataset, 2)
    assert rows(one.train) == rows(again.train) and rows(one.val) == rows(again.val)
    assert 60 < len(set(rows(one.val)) & set(rows(two.val))) < 120  # 89 by chance alone


def test_pixels_lie_in_the_unit_interval_and_use_it(dataset):
    pixels = dataset.pool.pixels()
    assert pixels.dtype == torch.float32 and pixels.min() == 0 and pixels.max() == 1
    bunch = load_digits()
    assert float(torch.cat([pixels, dataset.test.pixels()]).double().mean()) == pytest.approx(
        bunch.images.mean() / 16, abs=1e-6
    )
    assert dataset.mean == pytest.approx((float(pixels.mean()),)) and dataset.deviation == pytest.approx(
        (float(pixels.std()),)
    )


def test_batches_cover_a_split_in_order(dataset):
    batches = list(dataset.test.batches(100))
    assert [len(labels) for _, labels in batches] == [100, 100, 100, 60]
    assert torch.equal(torch.cat([pixels for pixels, _ in batches]), dataset.test.pixels())
    assert torch.equal(torch.cat([labels for _, labels in batches]), dataset.test.labels)


def test_an_epoch_follows_its_order_in_whole_batches(dataset):
    order = torch.randperm(360, generator=torch.Generator().manual_seed(1))
    batches = list(dataset.test.epoch(order, 100))
    assert [len(labels) for _, labels in batches] == [100] * 3  # the rest is left out
    assert torch.equal(torch.cat([pixels for pixels, _ in batches]), dataset.test.pixels(order[:300]))
    assert torch.equal(torch.cat([labels for _, labels in batches]), dataset.test.labels[order[:300]])
    expected = augmented("pad_crop", dataset.test.images[order], torch.Generator().manual_seed(7))
    for size in (100, 60):
        shown = torch.cat([pixels for pixels, _ in dataset.test.epoch(order, size, "pad_crop", 7)])
        assert torch.equal(shown, expected[: len(shown)].float() / 16)


def test_an_index_and_a_move_keep_the_scale(dataset):
    index = torch.tensor([5, 2])
    assert torch.equal(dataset.pool.pixels(index), dataset.pool.images[[5, 2]].float() / 16)
    assert dataset.pool.to(torch.device("cpu")).scale == 16


def test_the_datasets_of_the_design_are_there():
    expected = {
        "digits",
        "fashion_mnist",
        "mnist",
        "cifar10",
        "cifar100",
        "svhn",
        "caltech101",
        "tiny_imagenet",
        "imagenet",
    }
    assert expected | {"caltech101_authors", "image_folder", "image_folder_224", "fake"} <= set(DATASETS.names())


def test_loading_and_splitting_leave_global_generators_alone():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    split(digits(), 3)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


@pytest.mark.parametrize(
    ("counts", "held", "expected"),
    [
        ([10, 10, 10], 6, [2, 2, 2]),
        ([10, 10, 10], 7, [3, 2, 2]),  # equal remainders: the lower class
        ([7, 2, 1], 5, [4, 1, 0]),  # shares 3.5, 1.0, 0.5
        ([90, 9, 1], 10, [9, 1, 0]),  # shares 9.0, 0.9, 0.1
        ([5, 5], 0, [0, 0]),
        ([5, 5], 10, [5, 5]),
    ],
)
def test_quotas_follow_the_largest_remainder(counts, held, expected):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    kept, out = stratified(labels, held, 4)
    assert np.bincount(labels[out], minlength=len(counts)).tolist() == expected
    assert sorted([*kept, *out]) == list(range(len(labels)))
    assert (np.diff(kept) > 0).all() and (np.diff(out) > 0).all()


@pytest.mark.parametrize("num_images", [2, 5, 7, 9, 10, 13])
def test_no_image_is_evaluated_alone(num_images):
    part = Split(images=torch.arange(num_images).view(-1, 1, 1, 1).to(torch.uint8), labels=torch.arange(num_images))
    batches = list(part.batches(4))
    assert torch.equal(torch.cat([labels for _, labels in batches]), part.labels)
    assert all(2 <= len(labels) <= 5 for _, labels in batches)


def test_splits_of_all_blocks_share_the_images_of_their_dataset(dataset):
    before = split(dataset, 1)
    blocks = [split(dataset, seed) for seed in range(20)]
    held = {part.stored.data_ptr() for parts in blocks for part in (parts.train, parts.val)}
    assert held == {dataset.pool.stored.data_ptr()} and all(parts.test is dataset.test for parts in blocks)
    one = blocks[1].val
    assert torch.equal(one.images, before.val.images) and torch.equal(one.pixels(), one.images.float() / 16)
    assert torch.equal(one.take(np.array([3, 1])).images, one.images[[3, 1]])
    moved = split(dataset.to(torch.device("cpu")), 1)
    assert moved.train.stored is dataset.pool.stored


class Thin(Split):
    """Counts the images that become floats at once."""

    most = 0

    def pixels(self, index=slice(None)):
        found = super().pixels(index)
        Thin.most = max(Thin.most, len(found) if found.ndim == 4 else 1)
        return found


def test_statistics_make_floats_of_the_images_they_need_alone():
    whole = load_dataset("digits")
    parts = [Thin(images=part.images, labels=part.labels, scale=part.scale) for part in (whole.pool, whole.test)]
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    context = {"train": parts[0], "val": parts[1], "test": parts[1]}
    with measure_context(network, context, 10, seed=1, batch_size=50) as found:
        for name, settings in (("input_jacobian", {"num_samples": 32}), ("path", {"num_pairs": 8, "num_steps": 4})):
            assert measure(name, parse_settings(name, settings), found)
    assert 1 < Thin.most <= len(whole.test)
    with measure_context(network, dict.fromkeys(context, parts[1]), 10, seed=1, batch_size=50) as found:
        assert torch.equal(found.split("val")[0], parts[1].pixels())

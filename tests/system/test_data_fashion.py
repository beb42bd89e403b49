"""The real Fashion-MNIST, from Debian's package dataset-fashion-mnist, against torchvision's own reading of it."""

import gzip
import hashlib

import numpy as np
import pytest
import torch
from torchvision import datasets
from trainings import train

from search_spaces import load_spec
from study.config import TrialConfig
from study.data import Split, Splits, load_dataset, offline, split
from study.data.dataset import stratified
from study.data.mnist import DEBIAN, FILES, fashion_mnist
from study.errors import UserError
from study.models import build_network
from study.planning.plan import make_plan
from study.training import evaluate

PACKAGED = [DEBIAN / f"{file}.gz" for file in FILES]
here = pytest.mark.skipif(
    not all(path.is_file() for path in PACKAGED),
    reason=f"no real Fashion-MNIST in {DEBIAN}: apt-get install dataset-fashion-mnist",
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, offline():
        patch.setenv("FMM_STUDY_DATA", str(tmp_path_factory.mktemp("empty")))
        return fashion_mnist()


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    root = tmp_path_factory.mktemp("torchvision")
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in PACKAGED:
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    return root


@here
def test_it_is_what_torchvision_reads(dataset, theirs):
    for part, train_part in ((dataset.pool, True), (dataset.test, False)):
        read = datasets.FashionMNIST(theirs, train=train_part)
        assert torch.equal(part.images, read.data.unsqueeze(1)) and torch.equal(part.labels, read.targets)
    # frozen: another test split would make every accuracy ever recorded incomparable
    digest = hashlib.sha256(dataset.test.images.numpy().tobytes() + dataset.test.labels.numpy().tobytes()).hexdigest()
    assert digest[:16] == "9a494dc49efeb996"


@here
def test_the_layout_of_torchvision_comes_first(dataset, theirs, monkeypatch):
    monkeypatch.setenv("FMM_STUDY_DATA", str(theirs))
    monkeypatch.setattr("study.data.mnist.DEBIAN", theirs / "nowhere")
    assert torch.equal(fashion_mnist().pool.images, dataset.pool.images)


@here
def test_sizes_strata_and_moments(dataset):
    assert dataset.image_shape == (1, 28, 28) and dataset.num_classes == 10
    assert (len(dataset.pool), len(dataset.test), dataset.num_val) == (60_000, 10_000, 6_000)
    # the values that are commonly given for the 60,000
    assert dataset.mean == pytest.approx((0.2860,), abs=5e-5) and dataset.deviation == pytest.approx(
        (0.3530,), abs=5e-5
    )
    pixels = dataset.pool.images.numpy().astype(np.float64) / 255
    assert dataset.mean == pytest.approx((pixels.mean(),), rel=1e-12)
    assert dataset.deviation == pytest.approx((pixels.std(),), rel=1e-12)
    parts = split(dataset, 3)
    assert [np.bincount(p.labels).tolist() for p in (parts.train, parts.val)] == [[5400] * 10, [600] * 10]


@here
def test_train_and_validation_part_the_pool_and_follow_the_seed(dataset):
    def indices(seed):
        return stratified(dataset.pool.labels.numpy(), dataset.num_val, seed)

    train_index, val_index = indices(3)
    assert len(np.intersect1d(train_index, val_index)) == 0 and len(train_index) + len(val_index) == 60_000
    assert torch.equal(split(dataset, 3).val.images, dataset.pool.images[val_index])
    assert np.array_equal(val_index, indices(3)[1])
    assert 500 < len(np.intersect1d(val_index, indices(4)[1])) < 700  # 600 by chance alone


@here
def test_a_short_training_on_real_images_learns(dataset):
    _, index = stratified(dataset.pool.labels.numpy(), 2000, 1)
    parts = Splits(train=dataset.pool.take(index), val=part_of(dataset.test, 1000), test=dataset.test)
    config = TrialConfig(
        dataset="fashion_mnist",
        depth=8,
        width=8,
        seed=1,
        split_seed=0,
        epochs=4,
        batch_size=32,
        lr=0.1,
        augment="pad_crop_flip",
    )
    model = build_network(config, num_classes=10, mean=dataset.mean, deviation=dataset.deviation)
    for _ in train(model, parts.train, parts.val, config, None):
        pass
    found = evaluate(model, parts.val.batches(500))
    assert found["accuracy"] > 0.6  # .72 on the machine this was written on


def part_of(source: Split, num: int) -> Split:
    return source.take(np.arange(num))


@here
def test_the_preset_is_a_study():
    plan = make_plan(load_spec("fashion_mnist"))
    assert len(plan.cells) == 22 and (plan.num_search, plan.num_confirm) == (1056, 264)
    assert {cell.settings["dataset"] for cell in plan.cells} == {"fashion_mnist"}
    spec = plan.spec
    assert spec.blocks >= 10 and spec.measure.statistics["path"]["num_pairs"] >= 1000
    assert {o.margin for name in ("C2", "C4") for o in spec.claims[name].outcomes} == {0.005}
    assert spec.control is not None


def test_absent_data_stops_the_plan_with_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setenv("FMM_STUDY_DATA", str(tmp_path))
    monkeypatch.setattr("study.data.mnist.DEBIAN", tmp_path / "nowhere")
    load_dataset.cache_clear()
    with offline(), pytest.raises(UserError) as caught:
        make_plan(load_spec("fashion_mnist"))
    load_dataset.cache_clear()
    message = str(caught.value)
    assert "\n" not in message
    for part in ("fashion_mnist", "FashionMNIST/raw/{train-images-idx3-ubyte,", str(tmp_path), "FMM_STUDY_DATA"):
        assert part in message
    assert "http://fashion-mnist.s3" in message and "apt-get install dataset-fashion-mnist" in message

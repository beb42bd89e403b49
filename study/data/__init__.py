"""Datasets, each a registered loader, the splits that replicates train on, and augmentation."""

from study.data.dataset import Dataset, Split, Splits, load_dataset, split
from study.data.files import data_root, offline
from study.registry import discover

discover(__name__)

__all__ = ["Dataset", "Split", "Splits", "data_root", "load_dataset", "offline", "split"]

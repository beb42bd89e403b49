"""Datasets, each a registered loader, the splits that replicates train on, and augmentation."""

from study.data.dataset import Dataset, Facts, Splits, dataset_facts, load_dataset, split
from study.data.files import data_root, offline
from study.data.parts import Split
from study.registry import discover

discover(__name__)

__all__ = ["Dataset", "Facts", "Split", "Splits", "data_root", "dataset_facts", "load_dataset", "offline", "split"]

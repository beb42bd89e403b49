"""Datasets, each a registered loader, and the splits that replicates train on."""

from study.data.dataset import Dataset, Split, Splits, load_dataset, split
from study.registry import discover

discover(__name__)

__all__ = ["Dataset", "Split", "Splits", "load_dataset", "split"]

"""Checkpoints of a replicate: written atomically, and read without running code from them (``weights_only``)."""

import pickle
from pathlib import Path
from typing import Any

import torch

from study.atomic import check_archive, replacing


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write ``state`` (tensors and plain values) to ``path``, atomically. Raises ``StorageError`` if it cannot be."""
    with replacing(path) as partial, partial.open("wb") as file:
        torch.save(state, file)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state at ``path``, on the CPU; ``None`` if there is none. A damaged file is renamed and counts as none."""
    try:
        check_archive(path)
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, pickle.UnpicklingError) as error:
        path.rename(path.with_suffix(f".damaged-{type(error).__name__}"))
        return None
    return state

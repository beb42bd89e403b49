"""Checkpoints of a replicate: atomic, and loaded without running code from them (``weights_only``)."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write ``state`` (tensors and plain values) so that ``path`` holds the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # the process number: a worker that outlived its driver may still be writing the same checkpoint
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state at ``path``, on the CPU; ``None`` if there is none, or if it is damaged (training then starts afresh)."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, pickle.UnpicklingError) as error:
        path.rename(path.with_suffix(f".damaged-{type(error).__name__}"))
        return None
    return state

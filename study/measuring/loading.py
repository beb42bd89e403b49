"""Networks from files (a replicate's, or one's own), and devices by name.

Files are read with ``weights_only=True``: no code in them is run. The function that makes a network of one's own is run.
"""

import importlib
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from study.atomic import check_archive
from study.errors import UserError

# keys under which training scripts wrap a state dict
_WRAPPED = ("state_dict", "model_state_dict", "model")
_LONGEST = 200


def as_device(name: str) -> torch.device:
    """The device called ``name`` ("cpu", "cuda", "cuda:1"). Raises ``UserError`` if it is missing, or has no float64."""
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it holds no values")
        # statistics are summed in float64, which mps lacks
        torch.zeros(1, dtype=torch.float64, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise UserError(f"device {name!r} cannot be used ({one_line(error)}); here: {', '.join(there)}") from None
    return device


def load_own(function: str, weights: Path, *, device: str = "cpu") -> nn.Module:
    """The network that ``module:function`` makes, with the state dict at ``weights``, in evaluation mode.

    The module search path includes the current folder. The state dict may be wrapped as {"state_dict": ...}, {"model": ...}
    or {"model_state_dict": ...}; its names may begin with ``module.`` (``DataParallel``). Importing the module runs its code.
    Raises ``UserError`` if the function, the weights or the device do not fit.
    """
    where, module_and_name = as_device(device), function.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        made = getattr(importlib.import_module(module_and_name[0]), module_and_name[2])()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"--model {function!r}: expected module:function that gives a network ({error})") from None
    if not isinstance(made, nn.Module):
        raise UserError(f"--model {function!r} gives a {type(made).__name__}, not a torch.nn.Module")
    held = read_weights(weights)
    kept = next((held[key] for key in _WRAPPED if isinstance(held.get(key), dict)), held)
    consume_prefix_in_state_dict_if_present(kept, "module.")
    try:
        made.load_state_dict(kept)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"{weights} does not fit --model {function}: {one_line(error)}") from None
    return made.to(where).eval()


def read_weights(path: Path) -> dict[str, Any]:
    """What ``torch.save`` wrote at ``path``: a dictionary, on the CPU. Raises ``UserError`` for anything else."""
    # not ``load_checkpoint``, which renames a damaged file: this one may be the user's own
    try:
        if zipfile.is_zipfile(path):
            check_archive(path)
        kept = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no checkpoint at {path}") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} cannot be read as weights alone: save a state dict, torch.save(model.state_dict(), path)"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise UserError(f"{path} cannot be read as weights: {one_line(error)}") from None
    if not isinstance(kept, dict):
        raise UserError(f"{path} holds a {type(kept).__name__}, not a state dict")
    return dict(kept)


def one_line(error: BaseException) -> str:
    """The message of ``error`` as one line of limited length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."

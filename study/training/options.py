"""https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html: faster ways to take the same training step.

A step with options is ``lane.Lane``'s, for one replicate as for many. All but ``bf16`` compute what the plain step does,
but for rounding; ``bf16`` rounds what lies between the layers to 8 bits, in training alone: weights, evaluation and what is
measured stay float32. What an option needs and does not find is said by ``obstacle``; there it is left out.
"""

import importlib.util
import os
import shutil
from collections.abc import Iterable

from study.config import TrialConfig

OPTIONS = {
    "fused": "all weights in one vector, which SGD moves at once",
    "channels_last": "channels lie innermost in memory, as matrix units like them",
    "graph": "the step is one CUDA graph, captured once and replayed",
    "compile": "forward and backward pass by torch.compile",
    "bf16": "convolutions and products under bfloat16 autocast",
}


def obstacle(option: str, config: TrialConfig, device: str) -> str:
    """Why replicates of ``config`` cannot have ``option`` on a ``device`` (``cpu`` or ``cuda``); empty where they can."""
    if option in ("graph", "compile") and config.jacobian_penalty > 0:
        return "a penalty on the Jacobian is differentiated twice, by draws of each step"
    if option == "graph" and device != "cuda":
        return "there is no GPU"
    if option == "compile":
        if device == "cuda" and importlib.util.find_spec("triton") is None:
            return "Triton is not installed"
        if device == "cpu" and not any(map(shutil.which, (os.environ.get("CXX") or "c++", "g++", "clang++"))):
            return "there is no C++ compiler (c++, g++ or clang++; $CXX names another)"
    return ""


def usable(options: Iterable[str], config: TrialConfig, device: str) -> frozenset[str]:
    """Those of ``options`` that ``config`` can have on ``device``."""
    return frozenset(option for option in options if not obstacle(option, config, device))

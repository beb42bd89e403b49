"""Options of the training step: faster ways to compute the same step.

Only ``lane.Lane`` takes such steps, for one replicate or many. All options but ``bf16`` compute the plain step up to rounding.
``bf16`` rounds activations to 8 bits in training; weights, evaluation and measurements stay float32. An option whose
requirement is missing (``obstacle``) is left out.
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
    """Why ``option`` cannot be used for ``config`` on ``device`` (``cpu`` or ``cuda``); empty if it can."""
    if option in ("graph", "compile") and config.jacobian_penalty > 0:
        return "a penalty on the Jacobian is differentiated twice, by draws of each step"
    if option == "graph" and config.last_batch == "keep":
        return "a short last batch is kept, and a graph holds steps of one size"
    if option == "graph" and device != "cuda":
        return "there is no GPU"
    if option == "compile":
        if device == "cuda" and importlib.util.find_spec("triton") is None:
            return "Triton is not installed"
        if device == "cpu" and not any(map(shutil.which, (os.environ.get("CXX") or "c++", "g++", "clang++"))):
            return "there is no C++ compiler (c++, g++ or clang++; $CXX names another)"
    return ""


def usable(options: Iterable[str], config: TrialConfig, device: str) -> frozenset[str]:
    """Those of ``options`` that can be used for ``config`` on ``device``."""
    return frozenset(option for option in options if not obstacle(option, config, device))

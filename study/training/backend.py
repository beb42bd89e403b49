"""https://docs.pytorch.org/docs/stable/notes/randomness.html: torch, set so that a training can be repeated."""

import torch


def set_backend(threads: int) -> None:
    """For this process: ``threads`` of the CPU, and of cuDNN's algorithms the repeatable ones, chosen without timing them."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True

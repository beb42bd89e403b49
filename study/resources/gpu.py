"""Where a driver measures what it freezes for GPUs: on its own GPU, or, on the head of a cluster, on one of the cluster's."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from search_spaces import Spec
from study.resources.timing import Ask


def here(function: Callable[..., Any], *arguments: Any) -> Any:
    """In this process."""
    return function(*arguments)


@contextlib.contextmanager
def asking(spec: Spec, address: str | None, tell: Callable[[str], None]) -> Iterator[Ask | None]:
    """A caller that runs functions on a device like those of the study's trials; ``None`` where there is none.

    Of a cluster nothing is taken before the first call. That call is told to ``tell``, because it may wait for a GPU; it
    may raise ``UserError``.
    """
    cluster = address or os.environ.get("RAY_ADDRESS")
    if not spec.resources.gpus or torch.cuda.is_available():
        yield here
    elif not cluster or os.environ.get("FMM_STUDY_DEVICE"):
        # logical GPUs, by which placement is tried, have neither speed nor memory
        yield None
    else:
        from study.cluster.connection import asking_a_gpu

        with asking_a_gpu(address, spec.plugins, str(Path.cwd()) if spec.plugins else "", tell) as ask:
            yield ask

"""Seconds of a training step as studies take it, on random pixels: alone, in a fused group, with options of the step.

A driver times on its own device or, on the head of a cluster, on a GPU of the cluster.

Source: https://arxiv.org/abs/2102.02344 (HFTA)
"""

import contextlib
import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch

from search_spaces import Spec
from study.config import TrialConfig
from study.data.dataset import Facts
from study.data.parts import Split, Together
from study.planning.layout import named_code
from study.planning.networks import untrained
from study.seeding import derive_seed
from study.smoothness.context import exact_float32
from study.training.allocator import keep_freed_memory
from study.training.lane import Lane
from study.training.loop import train_epoch
from study.training.member import Member

# A step of so few images is timed first: where it is slow, larger batches are not timed.
FEW_IMAGES = 4
# Steps in one timing, and timings of each thing that is compared.
_STEPS, _TIMED = 2, 3

# Runs a function with its arguments where the device is, and returns what it returns (``asking``).
Ask = Callable[..., Any]
Name = TypeVar("Name", bound=Hashable)


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

        with asking_a_gpu(address, named_code(spec), tell) as ask:
            yield ask


@contextlib.contextmanager
def torch_threads(num: int) -> Iterator[None]:
    """Let torch use ``num`` threads for the block, as a trial does."""
    before = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def medians(timers: Mapping[Name, Callable[[], float]]) -> dict[Name, float]:
    """The median of some calls of each timer, all called in turn."""
    times: dict[Name, list[float]] = {name: [] for name in timers}
    for _ in range(_TIMED):
        for name, seconds in timers.items():
            times[name].append(seconds())
    return {name: statistics.median(found) for name, found in times.items()}


def timer(
    config: TrialConfig, known: Facts, size: int, device: str, steps: int = _STEPS, options: Sequence[str] = ()
) -> Callable[[], float]:
    """A function that trains ``size`` replicates of ``config`` for some steps and returns seconds per replicate and step.

    As in a worker, float32 is without TF32 and freed memory is kept. On one CPU thread these are seconds of processor time,
    else of the clock. It has been called once, so that what is made once is made. ``size`` 1 without ``options`` is serial
    training.
    """
    keep_freed_memory()
    batch = min(config.batch_size, known.num_train)
    members = _members(config, known, size, device, batch * steps)
    lane = Lane(members, Together, options) if size > 1 or options else None
    # a thread's own time, so that other programs on the machine do not count
    clock = time.thread_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter

    @exact_float32()
    def seconds() -> float:
        started = clock()
        if lane:
            lane.train(0)["train/loss"].tolist()  # waits for the device
        else:
            one = members[0]
            train_epoch(one, 0)
        return (clock() - started) / (size * steps)

    seconds()
    return seconds


def few_images(config: TrialConfig) -> TrialConfig:
    """``config`` with batches of ``FEW_IMAGES``."""
    return dataclasses.replace(config, batch_size=FEW_IMAGES)


def random_split(known: Facts, num: int, device: str) -> Split:
    """``num`` images of noise, uint8, with labels in turn."""
    generator = torch.Generator().manual_seed(derive_seed("execution", num))
    images = torch.randint(256, (num, *known.image_shape), generator=generator, dtype=torch.uint8)
    return Split(images=images, labels=torch.arange(num) % known.num_classes).to(torch.device(device))


def _members(config: TrialConfig, known: Facts, size: int, device: str, num_images: int) -> list[Member]:
    """Replicates that share random pixels; a small rate keeps them from diverging, which would change the speed."""
    split = random_split(known, num_images, device)
    members = []
    for seed in range(size):
        one = dataclasses.replace(config, seed=seed, lr=1e-4)
        model = untrained(one, known).to(device)
        members.append(Member(model=model, train_split=split, val_split=split, config=one, checkpoint=None))
    return members

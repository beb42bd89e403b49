"""https://arxiv.org/abs/2102.02344 (HFTA): seconds of a training step as studies take it, on random pixels.

Alone, in a fused group and with options of the step (``study.training.options``), by the code that trains.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from study.config import TrialConfig
from study.data.facts import Facts
from study.data.parts import Split
from study.data.together import Together
from study.models import build_network
from study.seeding import derive_seed
from study.training.lane import Lane, Member
from study.training.loop import train_epoch

FEW_IMAGES = 4
# Steps in one timing, and timings of each thing that is compared.
_STEPS, _TIMED = 2, 3

# Runs a function with its arguments where the device is, and returns what it returns (``study.resources.gpu``).
Ask = Callable[..., Any]
Name = TypeVar("Name", bound=Hashable)


def medians(timers: Mapping[Name, Callable[[], float]]) -> dict[Name, float]:
    """Of each timer the median of some calls, all in turn."""
    times: dict[Name, list[float]] = {name: [] for name in timers}
    for _ in range(_TIMED):
        for name, seconds in timers.items():
            times[name].append(seconds())
    return {name: statistics.median(found) for name, found in times.items()}


def timer(
    config: TrialConfig, known: Facts, size: int, device: str, steps: int = _STEPS, options: Sequence[str] = ()
) -> Callable[[], float]:
    """A function that trains ``size`` replicates of ``config`` for some steps, and returns seconds a replicate and step.

    Seconds of processor time on one thread of a CPU, else of the clock; from the second call on, when what is made once is
    made. ``size`` 1 without ``options`` is training alone, as it is without fusion.
    """
    batch = min(config.batch_size, known.num_train)
    members = training_members(config, known, size, device, batch * steps)
    lane = Lane(members, Together, options) if size > 1 or options else None
    # of one thread's own time: what else runs on the machine does not count, and will be another thing tomorrow
    clock = time.thread_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter

    def seconds() -> float:
        started = clock()
        if lane:
            lane.train(0)["train/loss"].tolist()  # waits for the device
        else:
            one = members[0]
            train_epoch(one.model, one.optimizer, one.train_split, one.config, 0)
        return (clock() - started) / (size * steps)

    return seconds


def untrained(config: TrialConfig, known: Facts) -> nn.Module:
    """The network of ``config`` for data of which only facts are known: its pixels' moments are taken to be .5 and .25."""
    channels = known.image_shape[0]
    return build_network(config, num_classes=known.num_classes, mean=(0.5,) * channels, deviation=(0.25,) * channels)


def training_members(config: TrialConfig, known: Facts, size: int, device: str, num_images: int) -> list[Member]:
    """Replicates that share random pixels; a small rate keeps them from diverging, which would be another speed."""
    generator = torch.Generator().manual_seed(derive_seed("execution", num_images))
    images = torch.randint(256, (num_images, *known.image_shape), generator=generator, dtype=torch.uint8)
    split = Split(images=images, labels=torch.arange(num_images) % known.num_classes).to(torch.device(device))
    members = []
    for seed in range(size):
        one = dataclasses.replace(config, seed=seed, lr=1e-4)
        model = untrained(one, known).to(device)
        members.append(Member(model=model, train_split=split, val_split=split, config=one, checkpoint=None))
    return members

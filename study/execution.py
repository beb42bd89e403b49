"""https://arxiv.org/abs/2102.02344 (HFTA): how many replicates of a cell train as one, measured once and then frozen.

Whether replicates gain by training together depends on the network, its data, the batch and the device, so it is measured:
serial steps and fused ones in turn, on random pixels, once for each network, size and batch of a study (operators and
attention are taken to gain alike). ``execution.json`` beside the ledger keeps what was found; it is never measured again,
because last digits depend on it. A study whose results are older than this choice goes on as it began, one by one.
"""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from study.config import TrialConfig
from study.data.facts import Facts, dataset_facts
from study.data.parts import Split
from study.data.together import Together
from study.models import build_network
from study.plan import Cell, Plan
from study.seeding import derive_seed
from study.training.fused import Lane, Member, out_of_memory
from study.training.loop import train_epoch
from study.whole import read_json, write_text

FILE = "execution.json"
# A fused group must be this much faster than the same trainings one by one.
WORTHWHILE = 1.1
# Steps in one timing, and timings of each size.
_STEPS, _TIMED = 2, 3
# A serial step of more than this many seconds, of few images, is not worth measuring: the device is busy as it is.
_SLOW_STEP = 0.3
_FEW_IMAGES = 4


def frozen_groups(plan: Plan, folder: Path, *, started: bool) -> dict[str, int]:
    """For every cell of ``plan``, how many of its replicates train together (1: one by one).

    Read from ``folder``; what is not there yet is decided now and written. ``started``: whether the study has results.
    Cost: some seconds for each network, where ``resources.fuse`` is ``auto``.
    """
    path = folder / FILE
    held: dict[str, Any] | None = read_json(path)
    before, chosen = held or {}, dict(held or {})
    measured: dict[tuple[Any, ...], dict[str, Any]] = {}
    for cell in plan.cells:
        if cell.name not in chosen:
            chosen[cell.name] = {"together": 1} if started and held is None else _decide(plan, cell, measured)
    if chosen != before:
        write_text(path, json.dumps(chosen, indent=2) + "\n")
    return {cell.name: chosen[cell.name]["together"] for cell in plan.cells}


def _decide(plan: Plan, cell: Cell, measured: dict[tuple[Any, ...], dict[str, Any]]) -> dict[str, Any]:
    resources = plan.spec.resources
    device = "cuda" if resources.gpus else "cpu"
    # a group holds members of different blocks, or all replicates of one
    most = min(resources.group, max(plan.spec.blocks, plan.spec.replicates))
    if resources.fuse == "always":
        return {"together": most}
    # a driver without a GPU cannot tell for one
    if resources.fuse == "never" or most == 1 or (resources.gpus and not torch.cuda.is_available()):
        return {"together": 1}
    nuisance = {name: value.default for name, value in plan.spec.nuisance.items()}
    config = plan.confirm_config(cell, 0, 0, nuisance)
    like = (config.network, config.depth, config.width, config.dataset, config.batch_size, config.jacobian_penalty > 0)
    if like not in measured:
        threads = torch.get_num_threads()
        torch.set_num_threads(resources.threads)
        try:
            measured[like] = measure_groups(config, dataset_facts(config.dataset), most, device)
        finally:
            torch.set_num_threads(threads)
    return measured[like]


def measure_groups(config: TrialConfig, known: Facts, group: int, device: str) -> dict[str, Any]:
    """``together``, the size up to ``group`` of least time a replicate, and ``milliseconds`` a replicate-step by size."""
    timers: dict[int, Callable[[], float]] = {}
    if few_images_are_slow(config, known, device):
        return {"together": 1}
    for size in sizes(group):
        try:
            timers[size] = timer(config, known, size, device)
            timers[size]()
        except Exception as error:
            # the largest size that fits, or, for what cannot be stacked, none
            timers.pop(size, None)
            if not out_of_memory(error) and size == 1:
                raise
            break
    times: dict[int, list[float]] = {size: [] for size in timers}
    for _ in range(_TIMED):
        for size, seconds in timers.items():
            times[size].append(seconds())
    medians = {size: statistics.median(found) for size, found in times.items()}
    best = min(medians, key=lambda size: medians[size])
    return {
        "together": best if medians[1] >= WORTHWHILE * medians[best] else 1,
        "milliseconds": {str(size): round(1000 * seconds, 3) for size, seconds in medians.items()},
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
    }


def sizes(group: int) -> list[int]:
    """1, 2, 4 and so on up to ``group``, which is the last."""
    return sorted({2**power for power in range(group.bit_length())} | {group})


def few_images_are_slow(config: TrialConfig, known: Facts, device: str) -> bool:
    """Whether a step of a few images alone keeps the device busy for long."""
    few = timer(dataclasses.replace(config, batch_size=_FEW_IMAGES), known, 1, device, steps=1)
    return few() > _SLOW_STEP


def timer(config: TrialConfig, known: Facts, size: int, device: str, steps: int = _STEPS) -> Callable[[], float]:
    """A function that trains ``size`` replicates of ``config`` for some steps, and returns seconds a replicate and step.

    Seconds of processor time on one thread of a CPU, else of the clock; from the second call on, when what is made once is
    made. ``size`` 1 is training alone, as it is without fusion.
    """
    batch = min(config.batch_size, known.num_train)
    members = _members(config, known, size, device, batch * steps)
    lane = Lane(members, Together) if size > 1 else None
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


def _members(config: TrialConfig, known: Facts, size: int, device: str, num_images: int) -> list[Member]:
    """Replicates that share random pixels; a small rate keeps them from diverging, which would be another speed."""
    generator = torch.Generator().manual_seed(derive_seed("execution", num_images))
    images = torch.randint(256, (num_images, *known.image_shape), generator=generator, dtype=torch.uint8)
    split = Split(images=images, labels=torch.arange(num_images) % known.num_classes).to(torch.device(device))
    middle = (0.5,) * known.image_shape[0]
    members = []
    for seed in range(size):
        one = dataclasses.replace(config, seed=seed, lr=1e-4)
        model = build_network(one, num_classes=known.num_classes, mean=middle, deviation=middle).to(device)
        members.append(Member(model=model, train_split=split, val_split=split, config=one, checkpoint=None))
    return members

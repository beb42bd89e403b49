"""Members that train together, or by a step with options, train before the rest of their group.

Each member's training is in its own ``state.pt``, as if it had trained alone; ``study.worker.group`` then finds it finished,
evaluates, keeps and measures. So an interruption in between, or a worker that does not fuse, changes only last digits. Members
that were at work when a worker was lost continue one by one, so that the one that kills it is found.
"""

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from study.config import Task
from study.data import Dataset, Splits, load_dataset, split
from study.data.parts import Together
from study.measuring.replicate import mid_training
from study.models import build_network
from study.results.files import FINAL, OUTCOME, STATE, checkpoint_folder
from study.smoothness.context import exact_float32, use_exact_float32
from study.training import Member, Progress
from study.training.allocator import keep_freed_memory
from study.training.fused import fused_with, train_together
from study.worker.attempts import MAX_LOSSES, Attempts

# Lists of indices of this many blocks are kept between the trials of an actor.
_SPLITS_KEPT = 8
# Names another device: for logical GPUs, by which placement is tried on a machine that has none.
DEVICE_VARIABLE = "FMM_STUDY_DEVICE"


def device_of(gpus: float) -> str:
    """The device of a group that occupies ``gpus``."""
    return os.environ.get(DEVICE_VARIABLE) or ("cuda" if gpus else "cpu")


def set_backend(threads: int) -> None:
    """Use ``threads`` CPU threads, float32 without TF32, and deterministic cuDNN algorithms, chosen without timing.

    What the process frees it keeps from then on.
    """
    keep_freed_memory()
    torch.set_num_threads(threads)
    use_exact_float32()
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


@contextlib.contextmanager
def backend_kept() -> Iterator[None]:
    """Put what ``set_backend`` changes back on leaving: for a process that is not a worker's own."""
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    with exact_float32():
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            cudnn.benchmark, cudnn.deterministic = before


def train_ahead(tasks: Sequence[Task], storage: Path, device: torch.device, attempts: Attempts) -> Iterator[Progress]:
    """Train those of ``tasks`` that train together or whose step has options; yields progress. Faults come up later."""
    groups: dict[tuple[object, ...], list[Task]] = {}
    for task in tasks:
        folder = checkpoint_folder(storage, task.config.trial_key)
        losses = attempts.losses(folder)
        alone = task.together == 1 or losses > 0
        if is_trained(folder) or losses > MAX_LOSSES or (alone and not task.step):
            continue
        apart = (task.config.trial_key,) if alone else ()
        groups.setdefault((task.together, task.step, *apart, *fused_with(task.config)), []).append(task)
    for group in groups.values():
        members, first = [], group[0]
        folders = [checkpoint_folder(storage, task.config.trial_key) for task in group]
        for task, folder in zip(group, folders, strict=True) if len(group) > 1 or first.step else ():
            with contextlib.suppress(Exception):
                members.append(member_of(task, folder, device))
        if len(members) > 1 or (members and first.step):
            for folder in folders:
                attempts.begin(folder)
            events = train_together(members, Together, at_once=first.together, options=first.step)
            yield from attempts.followed(folders, (event for event in events if isinstance(event, Progress)))


def is_trained(folder: Path) -> bool:
    """Whether the replicate in ``folder`` needs no training."""
    return any((folder / name).exists() for name in (OUTCOME, FINAL))


def member_of(task: Task, folder: Path, device: torch.device) -> Member:
    """The member that ``task`` trains, resumed from the checkpoint in ``folder``. Raises ``UserError`` for unknown parts."""
    config, dataset = task.config, load_dataset(task.config.dataset)
    splits = splits_on(config.dataset, config.split_seed, str(device), config.validation)
    model = build_network(
        config,
        num_classes=dataset.num_classes,
        image_shape=dataset.image_shape,
        mean=dataset.mean,
        deviation=dataset.deviation,
    ).to(device)
    return Member(
        model=model,
        train_split=splits.train,
        val_split=splits.val,
        config=config,
        checkpoint=folder / STATE,
        mid_training=mid_training(task, splits, dataset.num_classes, model),
    )


@functools.lru_cache(maxsize=_SPLITS_KEPT)
def splits_on(dataset: str, split_seed: int, device: str, validation: str = "held_out") -> Splits:
    """The splits of a block: all blocks share the images on the device, one copy for the trials of an actor."""
    return split(_dataset_on(dataset, device), split_seed, validation)


@functools.cache
def _dataset_on(name: str, device: str) -> Dataset:
    return load_dataset(name).to(torch.device(device))

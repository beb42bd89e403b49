"""https://arxiv.org/abs/2102.02344 (HFTA): members that train together, or by a step with options, do so ahead.

Each member's training lies in its own ``state.pt``, as if it had been trained alone; ``study.worker.group`` then
finds it at its
end, evaluates, keeps and measures. So a kill in between, or a worker that does not fuse, changes nothing but last digits.
Members that were at work when a worker was lost go on one by one, so that the one that kills it is found.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from study.data import Splits, load_dataset
from study.data.together import Together
from study.measuring.replicate import look_of
from study.models import build_network
from study.results.files import FINAL, OUTCOME, STATE, checkpoint_folder
from study.task import Task
from study.training import Progress
from study.training.fused import fused_with, train_together
from study.training.lane import Member
from study.worker.attempts import MAX_LOSSES, Attempts

# A dataset, the seed of a split and a device, to the splits there.
Source = Callable[[str, int, str], Splits]


def train_ahead(
    tasks: Sequence[Task], storage: Path, device: torch.device, splits: Source, attempts: Attempts
) -> Iterator[Progress]:
    """Train those of ``tasks`` that are to train together and can, ``Task.together`` as one network; yields progress.

    Those whose step has options too, if need be one after another. Raises nothing: what a member cannot do, it says when
    it is run for itself, with the plain step.
    """
    groups: dict[tuple[object, ...], list[Task]] = {}
    for task in tasks:
        folder = checkpoint_folder(storage, task.config.trial_key)
        trained = any((folder / name).exists() for name in (OUTCOME, FINAL))
        losses = attempts.losses(folder)
        alone = task.together == 1 or losses > 0
        if trained or losses > MAX_LOSSES or (alone and not task.step):
            continue
        apart = (task.config.trial_key,) if alone else ()
        groups.setdefault((task.together, task.step, *apart, *fused_with(task.config)), []).append(task)
    for group in groups.values():
        members, first = [], group[0]
        for task in group if len(group) > 1 or first.step else ():
            with contextlib.suppress(Exception):
                members.append(member_of(task, checkpoint_folder(storage, task.config.trial_key), device, splits))
        if len(members) > 1 or (members and first.step):
            folders = [checkpoint_folder(storage, task.config.trial_key) for task in group]
            for folder in folders:
                attempts.begin(folder)
            events = train_together(members, Together, at_once=first.together, options=first.step)
            yield from attempts.followed(folders, (event for event in events if isinstance(event, Progress)))


def member_of(task: Task, folder: Path, device: torch.device, splits: Source) -> Member:
    """What ``task`` trains, from its checkpoint on if ``folder`` holds one. Raises ``UserError`` for what is not there."""
    config, dataset = task.config, load_dataset(task.config.dataset)
    parts = splits(config.dataset, config.split_seed, str(device))
    model = build_network(config, num_classes=dataset.num_classes, mean=dataset.mean, deviation=dataset.deviation)
    model = model.to(device)
    look = look_of(task, parts, dataset.num_classes, model)
    return Member(
        model=model,
        train_split=parts.train,
        val_split=parts.val,
        config=config,
        checkpoint=folder / STATE,
        look=look,
    )

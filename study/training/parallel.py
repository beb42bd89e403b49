"""https://arxiv.org/abs/1706.02677 (Goyal et al. 2017): several processes train one replicate, a share of each batch each.

The batch, the order of the images, what is drawn and the learning rate are those of one process, so the numbers are too, but
for last digits. Exceptions are parts that mix the images of a batch otherwise than by batch norm (placebos that take another
image's gate, ``noise_gate``), which see their rank's share, and dropout, whose masks differ by rank. The first rank alone
evaluates, measures, decides whether training goes on and writes the checkpoint; the others follow it.
"""

import time
from collections.abc import Iterator

import torch

from study.training.lane import Member
from study.training.loop import Progress, note_epoch, note_look, train_epoch, validate
from study.training.process_group import Ranks
from study.training.synchronised import synchronised


def train_by_ranks(member: Member, ranks: Ranks, device: torch.device) -> Iterator[Progress]:
    """Train ``member`` to its end; every rank comes here with one of its own, and the first yields a ``Progress`` an epoch.

    What it has reached then lies in the first rank's checkpoint, from which ``train`` goes on as from its own. Raises
    ``RanksLost`` where another rank is gone.
    """
    trained, config = member.trained, member.config
    while (epoch := ranks.as_first(-1 if member.ended else trained.epoch, device)) >= 0:
        started = time.perf_counter()
        with synchronised(member.model, ranks):
            metrics = train_epoch(member.model, member.optimizer, member.train_split, config, epoch, ranks)
        if ranks.rank:
            continue
        metrics |= validate(member.model, member.val_split)
        note_epoch(trained, metrics, member.model, member.train_split, config)
        trained.train_seconds += time.perf_counter() - started
        note_look(trained, member.look, config)
        member.save()
        yield Progress(trained.epoch, config.epochs, metrics["val/loss"])

"""Fused training: replicates of one network structure train together as one network.

They may differ in seed, split, number of epochs, and the numbers of their recipe (learning rate, weight decay, ...). Each
keeps the data order, augmentation, masks, penalty directions and checkpoint that it has alone, so a training begun together
can continue alone and the reverse. The numbers are those of ``train`` but for last digits, which depend on how many train
together. A member that diverges, is pruned or ends drops out, and the rest are stacked anew.

Source: https://arxiv.org/abs/2102.02344
"""

import gc
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from study.config import TrialConfig
from study.errors import out_of_memory
from study.training.lane import Abreast, Lane
from study.training.loop import train_epoch, validate
from study.training.member import Member, Progress, Trained

# Settings in which replicates that train together may differ: all except the network, its data and the batch.
_FREE = (
    "seed",
    "split_seed",
    "lr",
    "momentum",
    "beta2",
    "weight_decay",
    "warmup_epochs",
    "schedule",
    "stop_curve",
    "epochs",
)
# Settings that all of them have, of whatever strength, or none has.
_SWITCHED = ("jacobian_penalty", "clip_norm", "label_smoothing", "mixup", "ema_decay")


def fused_with(config: TrialConfig) -> tuple[Any, ...]:
    """Equal for replicates that may train together."""
    values = {**vars(config), **{name: getattr(config, name) > 0 for name in _SWITCHED}}
    return tuple(value for name, value in values.items() if name not in _FREE)


@dataclass(frozen=True)
class Ended:
    """Member ``index`` has ended: its training, or the fault that stopped it."""

    index: int
    outcome: Trained | Exception


def train_together(
    members: Sequence[Member], abreast: Abreast, *, at_once: int | None = None, options: Sequence[str] = ()
) -> Iterator[Progress | Ended]:
    """Train ``members`` in place; yields a ``Progress`` per member and epoch, and ``Ended`` as soon as a member has ended.

    At most ``at_once`` are stacked (default: all); the others take turns with them, one epoch each. ``options`` of the step
    are those of ``study.training.options``. Members resumed at different epochs wait for those behind.

    When memory is out, the epoch starts again with half as many together, in the end with one. Any other fault first removes
    the options; without options each member trains alone, as in ``train``, and its fault is its own. Raises ``ValueError``
    for members that may not train together (``fused_with``).
    """
    if len({fused_with(member.config) for member in members}) != 1:
        raise ValueError("replicates that train together may not differ in network, data or batch")
    active, at_once = dict(enumerate(members)), at_once or len(members)
    lanes = _Lanes(abreast, options)
    while active:
        for index in [index for index, member in active.items() if member.ended]:
            yield Ended(index, active.pop(index).trained)
        behind = min((member.trained.epoch for member in active.values()), default=0)
        waiting = [index for index, member in active.items() if member.trained.epoch == behind]
        while waiting:
            chosen = waiting[:at_once]
            cohort = [active[index] for index in chosen]
            started, fault = time.perf_counter(), None
            try:
                metrics = lanes.epoch(cohort, behind)
            except Exception as error:  # noqa: BLE001  smaller groups show whose fault it is
                fault = error.with_traceback(None)  # which would hold on to the memory
            if fault:
                if len(cohort) > 1 and (out_of_memory(fault) or not lanes.options):
                    at_once = _fewer(len(cohort), fault)
                elif lanes.options:
                    warnings.warn(
                        f"a step with {', '.join(lanes.options)} failed ({_told(fault)}): without", stacklevel=2
                    )
                    lanes.options = ()
                else:
                    active.pop(waiting.pop(0))
                    yield Ended(chosen[0], fault)
                lanes.drop()
                continue
            del waiting[: len(chosen)]
            seconds = (time.perf_counter() - started) / len(cohort)
            told = []
            for index, found in zip(chosen, metrics, strict=True):
                active[index].finish_epoch(found, seconds)
            for index in chosen:
                try:
                    _measure(active[index], lanes)
                    told.append(active[index].save(ahead=True))
                except Exception as error:  # noqa: BLE001  a member's own: alone, it continues from its last checkpoint
                    active.pop(index)
                    yield Ended(index, error.with_traceback(None))
            yield from told  # after the checkpoints of all


def _measure(member: Member, lanes: "_Lanes") -> None:
    """Measure in mid-training; where memory does not suffice, that of ``lanes`` is freed first."""
    try:
        member.measure_mid_training()
    except Exception as error:
        if not out_of_memory(error):
            raise
    else:
        return
    lanes.drop()
    member.measure_mid_training()


class _Lanes:
    """The lanes of members that take turns; a lane is kept until one of its members trains in another."""

    def __init__(self, abreast: Abreast, options: Sequence[str]) -> None:
        self._abreast, self.options = abreast, tuple(options)
        self._held: list[Lane] = []

    def epoch(self, cohort: Sequence[Member], epoch: int) -> list[dict[str, float]]:
        """The metrics of each member of ``cohort``."""
        if len(cohort) == 1 and not self.options:
            return [train_epoch(cohort[0], epoch) | validate(cohort[0])]
        for lane in self._held:
            if lane.members == cohort:
                return lane.epoch(epoch)
        self._keep([lane for lane in self._held if not any(member in cohort for member in lane.members)])
        lane = Lane(cohort, self._abreast, self.options)
        self._held.append(lane)
        return lane.epoch(epoch)

    def drop(self) -> None:
        """Free all lanes, and what a GPU caches for them."""
        self._keep([])
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _keep(self, lanes: list[Lane]) -> None:
        gone, self._held = len(lanes) < len(self._held), lanes
        if gone:
            gc.collect()  # a lane and its graph refer to each other, and the graph holds a step's memory


def _fewer(num: int, fault: Exception) -> int:
    """How many of ``num`` continue together after ``fault``."""
    full = out_of_memory(fault)
    fewer = max(1, num // 2) if full else 1
    what = "out of memory" if full else _told(fault)
    warnings.warn(f"{num} replicates could not train together ({what}): on with {fewer} at once", stacklevel=3)
    return fewer


def _told(fault: Exception) -> str:
    return f"{type(fault).__name__}: {fault}".splitlines()[0]

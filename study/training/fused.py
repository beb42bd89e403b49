"""https://arxiv.org/abs/2102.02344 (Wang et al. 2021, HFTA): replicates of one network structure that train together.

They may differ in seed, split, learning rate, momentum, weight decay, warm-up, schedule, penalty and number of epochs. Each
has the data order, augmentation, masks and penalty directions that it has alone, and the checkpoint too, so that a training
begun together goes on alone, and the other way round. Its numbers are those of ``train`` but for the last digits, which
depend on how many train together. One that diverges, is pruned or ends drops out, and the rest are stacked anew. The host
waits for the device once an epoch.
"""

import gc
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from study.config import TrialConfig
from study.training.lane import Abreast, Lane, Member
from study.training.loop import Progress, Trained, note_epoch, note_look, train_epoch, validate

# Settings in which replicates that train together may differ: all that is not the network, its data and the batch.
_FREE = ("seed", "split_seed", "lr", "momentum", "weight_decay", "warmup_epochs", "schedule", "stop_curve", "epochs")


def fused_with(config: TrialConfig) -> tuple[Any, ...]:
    """Equal for replicates that may train together."""
    values = {**vars(config), "jacobian_penalty": config.jacobian_penalty > 0}
    return tuple(value for name, value in values.items() if name not in _FREE)


@dataclass(frozen=True)
class Ended:
    """Member ``index`` has ended: its training, or the fault that kept it from going on."""

    index: int
    outcome: Trained | Exception


def train_together(
    members: Sequence[Member], abreast: Abreast, *, at_once: int | None = None, options: Sequence[str] = ()
) -> Iterator[Progress | Ended]:
    """Train ``members`` in place; yields a ``Progress`` an epoch of each, and ``Ended`` as soon as one has ended.

    At most ``at_once`` are stacked (all, if not given); the others take turns with them, an epoch each. ``options`` of the
    step are those of ``study.training.options``.

    Members that were broken off at different epochs wait for those behind. Out of memory, fewer train together, from the
    start of the epoch: halves, and in the end one alone. Another fault ends the options first; where there are none, each
    trains alone, as ``train`` has it, and its fault is its own. Raises ``ValueError`` for members that may not train
    together (``fused_with``).
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
            except Exception as error:  # noqa: BLE001  whose fault it is, the smaller groups show
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
            for member, found in zip(cohort, metrics, strict=True):
                note_epoch(member.trained, found, member.model, member.train_split, member.config)
                member.trained.train_seconds += seconds
            for index, member in zip(chosen, cohort, strict=True):
                try:
                    _after(member, lanes)
                except Exception as error:  # noqa: BLE001  a member's own: alone, it goes on from its last checkpoint
                    active.pop(index)
                    yield Ended(index, error.with_traceback(None))
            for member in (active[index] for index in chosen if index in active):
                told = member.trained
                yield Progress(told.epoch, member.config.epochs, told.curves["val/loss"][-1])


def _after(member: Member, lanes: "_Lanes") -> None:
    """Measure, where it is time to, and write the checkpoint. Where memory does not do for it, that of ``lanes`` is given."""
    try:
        note_look(member.trained, member.look, member.config)
    except Exception as error:
        if not out_of_memory(error):
            raise
        lanes.drop()
        note_look(member.trained, member.look, member.config)
    member.save()


class _Lanes:
    """The lanes of those who take turns, each kept for as long as its members train in no other."""

    def __init__(self, abreast: Abreast, options: Sequence[str]) -> None:
        self._abreast, self.options = abreast, tuple(options)
        self._held: list[Lane] = []

    def epoch(self, cohort: Sequence[Member], epoch: int) -> list[dict[str, float]]:
        """The metrics of each member of ``cohort``."""
        if len(cohort) == 1 and not self.options:
            return [_alone(cohort[0], epoch)]
        for lane in self._held:
            if lane.members == cohort:
                return lane.epoch(epoch)
        self._keep([lane for lane in self._held if not any(member in cohort for member in lane.members)])
        lane = Lane(cohort, self._abreast, self.options)
        self._held.append(lane)
        return lane.epoch(epoch)

    def drop(self) -> None:
        """Let go of them, and of what a GPU holds for them."""
        self._keep([])
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _keep(self, lanes: list[Lane]) -> None:
        gone, self._held = len(lanes) < len(self._held), lanes
        if gone:
            gc.collect()  # a lane and its graph hold each other, and the graph a step's memory


def _fewer(num: int, fault: Exception) -> int:
    """How many of ``num`` go on together after ``fault``."""
    full = out_of_memory(fault)
    fewer = max(1, num // 2) if full else 1
    what = "out of memory" if full else _told(fault)
    warnings.warn(f"{num} replicates could not train together ({what}): on with {fewer} at once", stacklevel=3)
    return fewer


def _told(fault: Exception) -> str:
    return f"{type(fault).__name__}: {fault}".splitlines()[0]


def out_of_memory(fault: Exception) -> bool:
    """Whether a device or the host had no memory left."""
    # the CPU's allocator raises a plain RuntimeError
    return isinstance(fault, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(fault)


def _alone(member: Member, epoch: int) -> dict[str, float]:
    metrics = train_epoch(member.model, member.optimizer, member.train_split, member.config, epoch)
    return metrics | validate(member.model, member.val_split)

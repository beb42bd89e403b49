"""https://arxiv.org/abs/1608.03983 (Loshchilov and Hutter 2017): the learning rate as a pure function of the step."""

import math

from study.errors import UserError, nearest

SCHEDULES = ("cosine", "constant")


def check_schedule(schedule: str) -> None:
    """Raise ``UserError``, naming the nearest known one, unless ``schedule`` is known."""
    if schedule not in SCHEDULES:
        raise UserError(f"unknown schedule {schedule!r}{nearest(schedule, SCHEDULES)}")


def learning_rate(schedule: str, base: float, step: int, num_steps: int, num_warmup: float = 0.0) -> float:
    """Learning rate of ``step`` (from 0) among ``num_steps``: a linear warm-up, then cosine to zero, or constant.

    Raises ``UserError`` for an unknown schedule.
    """
    check_schedule(schedule)
    if step < num_warmup:
        return base * (step + 1) / (num_warmup + 1)
    if schedule == "constant":
        return base
    return base * 0.5 * (1 + math.cos(math.pi * (step - num_warmup) / (num_steps - num_warmup)))

"""Learning rate schedules: the learning rate as a pure function of the step.

A row of ``SCHEDULES`` maps (step, steps, warm-up steps) to the share of the base rate after the warm-up, which is linear.

Source: https://arxiv.org/abs/1608.03983
"""

import math
from collections.abc import Callable
from fractions import Fraction

from study.config import TrialConfig
from study.errors import UserError, nearest

Schedule = Callable[[int, int, float], float]


def _cosine(step: int, num_steps: int, num_warmup: float) -> float:
    """Decay to zero over the steps after the warm-up."""
    return 0.5 * (1 + math.cos(math.pi * (step - num_warmup) / (num_steps - num_warmup)))


def _steps(factor: float, *milestones: Fraction) -> Schedule:
    """Multiplied by ``factor`` at each milestone, a share of the whole training (warm-up included)."""

    def share(step: int, num_steps: int, num_warmup: float) -> float:
        # fractions: in floats .3 of 200 epochs may fall a step late
        passed: int = sum(step >= milestone * num_steps for milestone in milestones)
        return factor**passed

    return share


SCHEDULES: dict[str, Schedule] = {
    "cosine": _cosine,
    "constant": lambda step, num_steps, num_warmup: 1.0,
    # https://arxiv.org/abs/1605.07146 (Wide ResNets): times .2 after epochs 60, 120, 160 of 200
    "wrn_step": _steps(0.2, Fraction(3, 10), Fraction(6, 10), Fraction(8, 10)),
    # https://arxiv.org/abs/1512.03385 (ResNets): times .1 after epochs 30 and 60 of 90
    "imagenet_step": _steps(0.1, Fraction(1, 3), Fraction(2, 3)),
}


def check_schedule(schedule: str) -> None:
    """Raise ``UserError``, naming the nearest known one, unless ``schedule`` is known."""
    if schedule not in SCHEDULES:
        raise UserError(f"unknown schedule {schedule!r}{nearest(schedule, SCHEDULES)}")


def learning_rate(schedule: str, base: float, step: int, num_steps: int, num_warmup: float = 0.0) -> float:
    """Learning rate of ``step`` (from 0) of ``num_steps``, after a linear warm-up. Raises ``UserError``."""
    check_schedule(schedule)
    if step < num_warmup:
        return base * (step + 1) / (num_warmup + 1)
    return base * SCHEDULES[schedule](step, num_steps, num_warmup)


def scheduled_rate(config: TrialConfig, step: int, steps_per_epoch: int) -> float:
    """Learning rate of ``step`` (from 0) of a training with these settings."""
    num_steps, num_warmup = config.epochs * steps_per_epoch, config.warmup_epochs * steps_per_epoch
    return learning_rate(config.schedule, config.lr, step, num_steps, num_warmup)

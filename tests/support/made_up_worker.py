"""A worker that makes results up, for tests of the agenda: no order of finishing and no interruption changes them."""

import random

from study.config import Task
from study.registry import revised_parts
from study.smoothness import statistic_key


class Interrupted(Exception):
    pass


class Worker:
    """Results as a function of the trial's key alone; may be interrupted after so many records."""

    def __init__(self, append, record_of, measured_of, left=None, states=()):
        self.append, self.record_of, self.measured_of = append, record_of, measured_of
        self.left, self.states = left, states
        self.handed: list[Task] = []

    def hand_over(self, record):
        if self.left == 0:
            raise Interrupted
        if self.append(record) and self.left is not None:
            self.left -= 1

    def run(self, task: Task):
        config, chance = task.config, random.Random(task.config.trial_key)
        state = "completed"
        if task.phase == "search":
            state = chance.choice(
                self.states or ("completed", "completed", "collapsed", "diverged", "pruned", "failed")
            )
        self.hand_over(
            self.record_of(
                config, state=state, loss=chance.random(), cell=task.cell, phase=task.phase, block=task.block,
                replicate=task.replicate, number=task.number, defaulted=task.defaulted, boundary=list(task.boundary),
                curves={"val/loss": [chance.random() for _ in range(config.epochs)]},
            )
        )  # fmt: skip
        for name, settings in task.statistics.items():
            sampled, parts = name in task.keep_samples, revised_parts(vars(config))
            key = statistic_key(config.trial_key, name, settings, samples=sampled, parts=parts)
            self.hand_over(self.measured_of(config.trial_key, key, statistic=name))


def slots(contents):
    """What was run: (cell, phase, block, number, replicate, epochs) to trial key, with flags."""
    return {
        (r["cell"], r["phase"], r["block"], r["number"], r["replicate"], r["config"]["epochs"]):
            (r["trial_key"], r["defaulted"], r["boundary"])
        for r in contents.replicates.values()
    }  # fmt: skip

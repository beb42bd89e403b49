"""What to run next: the plan and the ledger, turned into groups of tasks.

Each cell and block is a *thread*: search trials in order of number, then the confirmed replicates of its winner, in full and
then shortened, then any measurement still missing. A thread has at most one group in flight, so every suggestion sees exactly
the trials before it. Groups are handed out round-robin over cells, least advanced first. A joint search, which chooses the
cell too, has one thread per block. In a sequential study the threads of later blocks exist only once a look has left a claim
undecided.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from search_spaces import Levels
from study.config import Execution, Task, TrialConfig
from study.planning import pareto, search
from study.planning.layout import Cell, Plan
from study.results.ledger import Contents
from study.schema import TRAINED, Phase, ReplicateRecord
from study.smoothness import on_validation

# From the ledger's contents and the number of blocks that are complete: names of the cells that go on.
GoOn = Callable[[Contents, int], Iterable[str]]
# The name of a search (``Plan.searches``) and a block.
Thread = tuple[str, int]


class Agenda:
    """Reads the ledger's contents, which grow as records come in; holds only what is in flight and what lies ahead.

    ``execution``: cell -> how its replicates train (one by one, by the plain step, if not given). ``go_on`` says which cells
    a sequential study needs after a look; without it nothing follows the first. ``retry_failed``: each failed replicate and
    measurement gets one more chance.
    """

    def __init__(
        self,
        plan: Plan,
        contents: Contents,
        *,
        retry_failed: bool = False,
        execution: Mapping[str, Execution] | None = None,
        go_on: GoOn | None = None,
    ) -> None:
        self.plan = plan
        self._execution = execution or {}
        self.contents = contents
        self._go_on = go_on
        self._num_looks = 1
        self._blocks = dict.fromkeys(plan.searches, plan.spec.looks[0])
        failed = {key for key, record in contents.replicates.items() if record["state"] == "failed"}
        failed |= {key for key, record in contents.measures.items() if record["error"]}
        self._to_retry = failed if retry_failed else set()
        self._history: dict[Thread, list[ReplicateRecord]] = {}
        self._in_flight: set[Thread] = set()
        self._tasks: dict[Thread, list[Task]] = {}
        self._cells = {cell.name: cell for cell in plan.cells}
        trials = {
            (plan.search_of(record["cell"]), record["block"], record["number"]): record
            for record in contents.replicates.values()
            if record["phase"] == "search"
        }
        for name, block in itertools.product(self._blocks, range(plan.spec.blocks)):
            history = self._history.setdefault((name, block), [])
            while len(history) < plan.spec.budget.search_trials and (name, block, len(history)) in trials:
                history.append(trials[name, block, len(history)])
        self._look()

    def next_group(self) -> list[Task] | None:
        """The next group to run, or ``None`` when every thread is busy or done."""
        ready: dict[str, list[tuple[Thread, list[Task]]]] = {}
        for thread in self._threads():
            if thread not in self._in_flight and (tasks := self._ahead(thread)):
                ready.setdefault(tasks[0].cell, []).append((thread, tasks))
        if not ready:
            return None
        # the least advanced cell; ties go to the order of the plan (min is stable)
        candidates = min(ready.values(), key=lambda threads: min(tasks[0].number for _, tasks in threads))
        kind = _kind(candidates[0][1])
        group: list[Task] = []
        for thread, tasks in candidates:
            if _kind(tasks) == kind and (not group or len(group) + len(tasks) <= self.plan.spec.resources.group):
                group += tasks
                self._in_flight.add(thread)
        ranks = self.plan.spec.resources.data_parallel
        ways = {task.cell: vars(self._execution.get(task.cell, Execution())) for task in group}
        floors = {task.cell: self.plan.spec.floor_of(task.config.dataset) for task in group}
        return [
            dataclasses.replace(task, ranks=ranks, accuracy_floor=floors[task.cell], **ways[task.cell])
            for task in group
        ]

    def group_ended(self, tasks: list[Task]) -> None:
        """A group has ended and its records are in the ledger: its threads may go on."""
        for task in tasks:
            thread = (self.plan.search_of(task.cell), task.block)
            self._in_flight.discard(thread)
            self._tasks.pop(thread, None)
            keys = self.plan.measure_keys(task.config, task.replicate, task.phase)
            self._to_retry -= {task.config.trial_key, *keys.values()}
            record = self.contents.replicates.get(task.config.trial_key)
            if task.phase == "search" and record is not None:
                # a retried trial takes its own place; a new one the next
                self._history[thread][task.number : task.number + 1] = [record]
        self._look()

    @property
    def done(self) -> bool:
        """Whether nothing is in flight and nothing lies ahead."""
        return not self._in_flight and not any(map(self._ahead, self._threads()))

    def _look(self) -> None:
        """Once all blocks of a look are complete, the cells that undecided claims need go on to the next one.

        Which look has been reached follows from the ledger: the looks are taken anew from the first one in each agenda.
        """
        looks = self.plan.spec.looks
        while self._go_on and self._num_looks < len(looks) and self.done:
            before = looks[self._num_looks - 1]
            wanted = set(self._go_on(self.contents, before))
            further = [name for name, num in self._blocks.items() if num == before and name in wanted]
            if not further:
                return
            self._blocks |= dict.fromkeys(further, looks[self._num_looks])
            self._num_looks += 1

    def _threads(self) -> Iterator[Thread]:
        return ((name, block) for name, num in self._blocks.items() for block in range(num))

    def _ahead(self, thread: Thread) -> list[Task]:
        """The tasks that a thread is ready for; empty when it has come to its end. Worked out once a step."""
        if thread not in self._tasks:
            self._tasks[thread] = self._work_out(thread)
        return self._tasks[thread]

    def _work_out(self, thread: Thread) -> list[Task]:
        (name, block), history = thread, self._history[thread]
        spec = self.plan.spec_of(name)
        again = [record for record in history if record["trial_key"] in self._to_retry]
        if again:
            config = TrialConfig.from_mapping(again[0]["config"])
            return [_search_task(config, again[0]["cell"], block, again[0]["number"])]
        if len(history) < spec.budget.search_trials:
            suggested = search.suggest(spec, self.plan.searches[name], block, history)
            if suggested is not None:
                cell, values = suggested
                config = self.plan.search_config(self._cells[cell], block, values, search.stop_curve(spec, history))
                return [_search_task(config, cell, block, len(history))]
        if not spec.joint:
            values, defaulted = search.winner(spec, history)
            return self._confirm(self._cells[name], block, values, len(history), defaulted=defaulted)
        for record in pareto.chosen(spec, history):
            values = {name: record["config"][name] for name in spec.nuisance}
            # the tasks of one cell, so that a group holds members of one
            if tasks := self._confirm(self._cells[record["cell"]], block, values, record["number"]):
                return tasks
        return []

    def _confirm(self, cell: Cell, block: int, values: Levels, number: int, *, defaulted: bool = False) -> list[Task]:
        """What is missing of the replicates that train a search's winner, ``values``: in full first, then shortened."""
        spec = self.plan.spec_of(self.plan.search_of(cell.name))
        common: dict[str, Any] = {
            "cell": cell.name,
            "block": block,
            "number": number,
            "keep_samples": tuple(spec.measure.keep_samples),
            "boundary": () if defaulted else search.at_boundary(spec, values),
            "defaulted": defaulted,
            "checkpoints": spec.checkpoints,
        }
        for epochs in (None, *self.plan.short_epochs(cell)):
            phase: Phase = "confirm" if epochs is None else "short"
            in_training: dict[str, Any] = {}
            if (during := spec.measure.during) and phase == "confirm":
                statistics = {name: on_validation(name, given) for name, given in during.statistics.items()}
                in_training = {"every": during.every, "during": statistics}
            tasks = [
                Task(
                    config=self.plan.confirm_config(cell, block, replicate, values, epochs),
                    phase=phase,
                    replicate=replicate,
                    statistics=self.plan.statistics_of(replicate, phase),
                    **common,
                    **in_training,
                )
                for replicate in self.plan.replicates(block)
            ]
            if missing := list(filter(None, map(self._missing, tasks))):
                return missing
        return []

    def _missing(self, task: Task) -> Task | None:
        """``task`` with the statistics still to be measured; ``None`` where nothing is missing or to be repeated."""
        key = task.config.trial_key
        held, record = self.contents.measures, self.contents.replicates.get(key)
        keys = self.plan.measure_keys(task.config, task.replicate, task.phase)
        missing = {n: task.statistics[n] for n, name in keys.items() if name not in held or name in self._to_retry}
        unmeasured = missing and record is not None and record["state"] in TRAINED
        wanted = record is None or key in self._to_retry or unmeasured
        return dataclasses.replace(task, statistics=missing) if wanted else None


def _kind(tasks: list[Task]) -> tuple[Phase, int]:
    """What members of a group have in common, beside their cell."""
    return tasks[0].phase, tasks[0].config.epochs


def _search_task(config: TrialConfig, cell: str, block: int, number: int) -> Task:
    return Task(config=config, cell=cell, phase="search", block=block, replicate=block, number=number)

"""``fmm-study run`` beside a bare loop that trains and measures the same replicates on the same cores.

    python -m benchmarks.overhead                      # the preset digits with one block
    python -m benchmarks.overhead --scale minute       # 32 trainings in groups of eight that take a minute and more
    python -m benchmarks.overhead --in-process         # in the command's own process, beside a loop in one process

The loop is one process a core with no Ray, Optuna or MLflow: it takes the settings that the study came to, in the same groups,
from a queue. Throughput is trainings a second from the first training's beginning to the last record; what a run costs beside
(start, tables, figures, report) is told apart, and the ratio of whole runs too.
"""

import argparse
import dataclasses
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import machine_load, print_table, result, spread
from benchmarks.driven import watch, write_spec
from benchmarks.scales import SCALES, specification
from search_spaces import load_spec
from study.config import Task
from study.planning.agenda import Agenda
from study.planning.plan import make_plan
from study.resources.execution import frozen_execution
from study.results.ledger import Contents, read_ledger

PACKAGES = ("torch", "ray", "optuna", "mlflow")
GOALS = {"digits": 0.85, "minute": 0.95}


def groups_of(spec_name: str, overrides: list[str], root: Path) -> list[list[Task]]:
    """The groups in which the study in ``root`` was trained, as it was, in an order in which it could have been."""
    held, plan = read_ledger(root / "ledger"), make_plan(load_spec(spec_name, overrides))
    agenda = Agenda(plan, Contents(), execution=frozen_execution(plan, root, None, started=True))
    groups = []
    while (group := agenda.next_group()) is not None:
        groups.append(group)
        for task in group:
            agenda.contents.add(held.replicates[task.config.trial_key])
            keys = agenda.plan.measure_keys(task.config, task.replicate, task.phase)
            # of one that diverged nothing is measured
            for key in held.measures.keys() & keys.values():
                agenda.contents.add(held.measures[key])
        agenda.group_ended(group)
    return groups


def _loop(storage: Path, threads: int, queue: Any, ready: Any) -> None:
    from study.worker.group import run_group

    ready.wait()
    while (group := queue.get()) is not None:
        for _ in run_group(group, storage, threads=threads):
            pass


def bare(groups: list[list[Task]], folder: Path, processes: int, threads: int) -> float:
    """Seconds that ``processes`` take for ``groups``, once all have started."""
    context = multiprocessing.get_context("spawn")
    queue, ready = context.Queue(), context.Barrier(processes + 1)
    started = [context.Process(target=_loop, args=(folder, threads, queue, ready)) for _ in range(processes)]
    for process in started:
        process.start()
    for group in groups:
        queue.put([dataclasses.replace(task) for task in group])
    for _ in started:
        queue.put(None)
    ready.wait()
    begun = time.perf_counter()
    for process in started:
        process.join()
    return time.perf_counter() - begun


def main() -> None:
    """Print the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", default="digits", choices=list(GOALS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-process", action="store_true")
    given = parser.parse_args()
    options = ["--in-process"] if given.in_process else []
    overrides = ["blocks=1"] if given.scale == "digits" else []
    made = tempfile.TemporaryDirectory()
    name: Path | str = "digits"
    if given.scale != "digits":
        chosen = SCALES[given.scale]
        parts = specification(given.scale, blocks=chosen["blocks"], trials=chosen["trials"], resources={})
        name = write_spec(Path(made.name) / f"{given.scale}.yaml", **parts)
    spec = load_spec(str(name), overrides)
    processes = int((len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1) / spec.resources.cpus)
    processes = 1 if given.in_process else processes
    rows, ratios, whole = [], [], []
    for i in range(given.rounds):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            seen = watch(name, folder / "results", *(f"--set={text}" for text in overrides), *options)
            num = seen.marks[-1][1]
            groups = groups_of(str(name), overrides, folder / "results" / spec.name)
            loop = bare(groups, folder / "bare", processes, spec.resources.threads)
        ours = seen.marks[-1][0] - seen.begun
        ratios.append(loop / ours)
        whole.append(loop / seen.whole)
        times = [seen.begun, ours, seen.whole - seen.marks[-1][0], loop]
        rows.append(
            [str(i + 1), str(num), *(f"{value:.1f}" for value in times), f"{ratios[-1]:.3f}", f"{whole[-1]:.3f}"]
        )
    headings = ["round", "trainings", "start s", "training s", "end s", "bare loop s", "throughput", "of the whole run"]
    print_table(f"{given.scale} {' '.join(overrides)}, {machine_load()} at the end", headings, rows)
    print(
        result(
            " ".join(["overhead", given.scale, *options]),
            ratios,
            GOALS[given.scale],
            packages=PACKAGES,
            more={"whole_run": spread(whole)},
        )
    )


if __name__ == "__main__":
    main()

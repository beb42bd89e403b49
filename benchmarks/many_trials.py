"""10,000 replicates of a training of some milliseconds, through plan, Optuna, Tune, ledger and MLflow to the report.

    python -m benchmarks.many_trials
    python -m benchmarks.many_trials --trials 2000
    python -m benchmarks.many_trials --in-process      # on one core, without Tune and MLflow

Groups of eight on two cores; a training is one epoch of 48 made-up images. What is left is what the study itself costs:
seconds a trial by the thousand, which must not grow, and the driver's memory. The ratio is the first thousand's to the last's.
"""

import argparse
import itertools
import tempfile
from pathlib import Path

from benchmarks.common import machine_load, print_table, result
from benchmarks.driven import watch, write_spec

# The last thousand may take 1.5 times the first at most.
GOAL = 1 / 1.5
CELLS, EACH = 2, 8


def specification(num: int) -> dict[str, object]:
    """A study of ``num`` trainings: two cells, eight trainings a block, so many blocks."""
    levels = {"merge": ["add", "mul"], "attention": ["none"], "attention_form": ["none"], "depth": [8]}
    return {
        "factors": levels,
        "fixed": {"dataset": "fake", "network": "cifar_resnet", "width": 2, "epochs": 1, "batch_size": 48},
        "nuisance": {"lr": {"low": 0.03, "high": 1.0, "log": True, "default": 0.2}},
        "blocks": num // (CELLS * EACH),
        "budget": {"search_trials": EACH - 1, "startup_trials": 2},
        "resources": {"cpus": 1, "group": 8, "threads": 1},
        "checkpoints": "none",
        "contrasts": [{"arm": {"merge": "mul"}, "reference": {"merge": "add"}}],
    }


def main() -> None:
    """Print the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--in-process", action="store_true")
    given = parser.parse_args()
    options = ["--in-process"] if given.in_process else []
    with tempfile.TemporaryDirectory() as place:
        spec = write_spec(Path(place) / "many.yaml", **specification(given.trials))
        seen = watch(spec, Path(place) / "results", *options)
    num = seen.marks[-1][1]
    part = num // 10
    times = [seen.begun, *(seen.at(part * (i + 1)) for i in range(10))]
    each = [(after - before) / part for before, after in itertools.pairwise(times)]
    memory = [
        next(m for (_, held), m in zip(seen.marks, seen.memory, strict=True) if held >= part * (i + 1))
        for i in range(10)
    ]
    rows = [
        [f"{part * (i + 1):,}", f"{1000 * seconds:.1f}", f"{size / 2**20:,.0f}"]
        for i, (seconds, size) in enumerate(zip(each, memory, strict=True))
    ]
    end = seen.whole - seen.marks[-1][0]
    print_table(
        f"{num:,} trainings: start {seen.begun:.1f} s, after the last {end:.1f} s, {machine_load()} at the end",
        ["trainings", "ms a training", "driver MiB"],
        rows,
    )
    more = {"ms_a_training": round(1000 * (times[-1] - times[0]) / num, 2), "driver_mib": round(max(memory) / 2**20)}
    print(
        result(
            " ".join(["many_trials", *options]),
            [each[0] / each[-1]],
            GOAL,
            packages=("ray", "optuna", "mlflow"),
            more=more,
        )
    )


if __name__ == "__main__":
    main()

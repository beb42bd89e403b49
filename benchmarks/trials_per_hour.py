"""A whole small study by ``fmm-study run`` and by the tutorials' pattern (``benchmarks/tutorial.py``), in turn.

    python -m benchmarks.trials_per_hour --scale digits
    python -m benchmarks.trials_per_hour --scale longer
    python -m benchmarks.trials_per_hour --scale cifar      # needs a GPU

Same networks, epochs, batches, number of trainings, metrics logged to SQLite through MLflow, a checkpoint an epoch, device.
From the start of the process to its end: ours ends with tables, figures and a report, which the other has not. Ours trains
one by one, in groups as one network, and as is measured to pay. A ratio is the other's seconds over ours in a round.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import hardware, machine_load, print_table, result, spread
from benchmarks.driven import watch, write_spec
from benchmarks.scales import SCALES, num_trainings, specification

# Ways of ours, as ``resources`` says: plain steps alone, plain steps of groups as one network, and what was measured to pay.
WAYS: dict[str, dict[str, Any]] = {
    "one by one": {"fuse": "never"},
    "fused": {"fuse": "always"},
    "as measured": {"fuse": "auto", "step": "auto"},
}
GOALS = {"digits": (8.0, 8.0, 8.0), "longer": (4.0, 4.0, 4.0), "cifar": (10.0, 10.0, 10.0)}
TUTORIAL = "the tutorials' pattern"


def tutorial(folder: Path, scale: str, num: int) -> float:
    """Seconds of ``num`` trials. Raises ``CalledProcessError`` where one fails."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.tutorial", str(folder), scale, str(num)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - started


def main() -> None:
    """Print the table and a line of JSON for each way of training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", default="digits", choices=list(GOALS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--blocks", type=int, help="of the study, for both sides' number of trainings")
    parser.add_argument("--trials", type=int, help="of search, a block")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    given = parser.parse_args()
    chosen = SCALES[given.scale]
    given.blocks, given.trials = given.blocks or chosen["blocks"], given.trials or chosen["trials"]
    on_gpu, plugins = "gpus" in chosen, chosen.get("plugins", [])
    on = hardware(gpu=on_gpu)
    num = num_trainings(given.scale, blocks=given.blocks, trials=given.trials)
    seconds: dict[str, list[float]] = {TUTORIAL: [], **{way: [] for way in given.ways}}
    training: dict[str, list[float]] = {way: [] for way in given.ways}
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for way, trained in training.items():
                parts = specification(given.scale, blocks=given.blocks, trials=given.trials, resources=WAYS[way])
                name = way.replace(" ", "-")
                seen = watch(write_spec(folder / f"{name}.yaml", **parts), folder / "results", packages=plugins)
                if seen.marks[-1][1] != num:
                    raise SystemExit(f"{seen.marks[-1][1]} of {num} trainings were recorded")
                seconds[way].append(seen.whole)
                trained.append(seen.at(num) - seen.begun)
            seconds[TUTORIAL].append(tutorial(folder / "tutorial", given.scale, num))
    rows = []
    for way, found in seconds.items():
        ratios = [other / ours for other, ours in zip(seconds[TUTORIAL], found, strict=True)]
        each = [value / num for value in found]
        hours = [3600 * num / value for value in found]
        between = spread(training[way]) if way in training else ""
        name = way if way == TUTORIAL else f"fmm-study, {way}"
        rows.append([name, spread(found), between, spread(each), spread(hours), spread(ratios)])
    headings = ["", "seconds", "of which training", "a trial", "trials an hour", "times the tutorials'"]
    print_table(
        f"{given.scale}: {num} trainings, n = {given.rounds} rounds, {on}, {machine_load()} at the end", headings, rows
    )
    for way in given.ways:
        ratios = [other / ours for other, ours in zip(seconds[TUTORIAL], seconds[way], strict=True)]
        name, goal = f"trials_per_hour {given.scale} {way}", GOALS[given.scale][list(WAYS).index(way)]
        packages = ("torch", "ray", "optuna", "mlflow")
        print(result(name, ratios, goal, packages=packages, gpu=on_gpu, more={"trainings": num}))


if __name__ == "__main__":
    main()

"""How long a finished study's ledger takes to tables, claims and report, and how much memory, as the study grows.

    python -m benchmarks.analysis_scale [--sizes 1000 10000 100000] [--repeats 3] [--folder FOLDER]

Each size and repeat is a process of its own, so that the memory is its own. Goal: 100,000 replicates within 60 s and 2 GB on
two cores, cost no more than linear. ``ratio`` is 60 s over the seconds that the largest size takes.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import print_table, result, spread

GOAL_SECONDS, GOAL_GB = 60.0, 2.0
_STEPS = ("read", "trials", "effects", "claims", "all tables", "report")


def measure(root: Path) -> dict[str, float]:
    """Seconds of each step from a ledger to its report, in this process, and the most memory it took in GB."""
    from rich.console import Console

    from analysis.report.page import build_report
    from analysis.tables.build import build_tables
    from study.checks.audit import audit
    from study.commands.show import in_folder
    from study.planning.plan import make_plan
    from study.printing.status import print_status
    from study.results.ledger import read_ledger
    from study.results.workspace import Workspace

    workspace = Workspace(root)
    taken: dict[str, float] = {}

    def timed(step: str, call: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        made = call()
        taken[step] = time.perf_counter() - begun
        return made

    started = time.process_time()
    held = timed("read", lambda: in_folder(workspace))
    inputs = held.inputs
    timed("trials", lambda: inputs.trials)
    timed("effects", lambda: inputs.effects)
    timed("claims", lambda: inputs.findings)
    timed("all tables", lambda: build_tables(inputs, workspace.tables))
    timed("report", lambda: build_report(inputs, root, {}))
    taken["in all"] = sum(taken.values())
    # less than that where other programs take turns on the cores
    taken["of the CPU"] = time.process_time() - started
    taken["GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    taken["html MB"] = (root / "report.html").stat().st_size / 1e6
    plan = make_plan(held.spec)
    with Path("/dev/null").open("w") as nowhere:
        console = Console(file=nowhere)
        timed("status", lambda: print_status(plan, read_ledger(workspace.ledger), workspace, console))
    faults = timed("audit", lambda: list(audit(plan, held.contents, workspace)))
    assert not faults, faults[:3]
    return taken


def main() -> None:
    """Measure, print the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="Keep the synthetic studies here, and use those that are there.")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(measure(chosen.measure)))
        return
    from benchmarks.synthetic_study import make_study, write_study

    found: dict[int, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for size in chosen.sizes:
            root, spec = (chosen.folder or Path(temporary)) / str(size), make_study(size)
            rows = len(list(spec.cells())) * spec.blocks * (spec.budget.search_trials + 1)
            if not (root / "ledger").is_dir():
                write_study(spec, root)
            command = [sys.executable, "-m", "benchmarks.analysis_scale", "--measure", str(root)]
            for _ in range(chosen.repeats):
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found.setdefault(rows, []).append(json.loads(done.stdout.splitlines()[-1]))
    columns = [*_STEPS, "in all", "of the CPU", "GB", "html MB", "status", "audit"]
    print_table(
        f"Ledger to report, seconds, median (least to greatest) of {chosen.repeats}",
        ["replicates", *columns],
        [[f"{rows:,}", *(spread([one[name] for one in runs]) for name in columns)] for rows, runs in found.items()],
    )
    *_, before, last = [0, *found]
    seconds = [one["in all"] for one in found[last]]
    more = {"peak_gb": round(max(one["GB"] for one in found[last]), 3), "goal_gb": GOAL_GB}
    if before:
        growth = statistics.median(seconds) / statistics.median([one["in all"] for one in found[before]])
        more["growth"], more["growth_if_linear"] = round(growth, 2), round(last / before, 2)
    packages = ("numpy", "pyarrow", "scipy", "matplotlib")
    print(result("analysis_scale", [GOAL_SECONDS / s for s in seconds], 1.0, packages=packages, more=more))


if __name__ == "__main__":
    main()

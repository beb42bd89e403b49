"""From the start of ``fmm-study run digits``, in a folder that is new, to the end of the first training's first epoch.

    python -m benchmarks.start_up                  # on Ray
    python -m benchmarks.start_up --in-process
    python -m benchmarks.start_up --commands --beside OTHER/.venv/bin/fmm-study   # commands that train nothing

Told beside it: when the study was checked and frozen, and when the first worker began. The ratio is ten seconds over those
until then: all that comes before the first training step, and an epoch of eight steps. Processor seconds until then, of the
driver and its children, depend less on what else the machine does.

``--commands`` takes the processor time of ``levels``, of ``status`` on a small finished study and of the refusal of a bad
specification, in turn with another checkout's; the ratio is the other's over ours.
"""

import argparse
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.common import machine_load, print_table, result, spread
from benchmarks.driven import run_command

LIMIT_SECONDS = 10.0
PROCESSOR = "processor seconds until then"
# What is there at the end of each part, in the study's folder.
PARTS = {
    "study checked and frozen": "study.json",
    "a worker has begun": "checkpoints/*",
    "first epoch trained": "checkpoints/*/state.pt",
}


def start(storage: Path, *options: str) -> dict[str, float]:
    """Seconds until each part was there. Raises ``RuntimeError`` when the run ends before."""
    found: dict[str, float] = {}
    started = time.perf_counter()
    process = subprocess.Popen(
        [*run_command("digits", storage), *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while len(found) < len(PARTS):
        for part, name in PARTS.items():
            if part not in found and any((storage / "digits").glob(name)):
                found[part] = time.perf_counter() - started
        if process.poll() is not None:
            raise RuntimeError(process.communicate()[1][-2000:])
        time.sleep(0.02)
    driver = psutil.Process(process.pid)
    found[PROCESSOR] = sum(sum(each.cpu_times()[:2]) for each in (driver, *driver.children(recursive=True)))
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    process.communicate()
    return found


TINY = """name: tiny
factors: {merge: [add, mul], attention: [none], attention_form: [none], depth: [8]}
fixed: {dataset: fake, width: 4, epochs: 1, batch_size: 16}
blocks: 2
budget: {search_trials: 0, startup_trials: 0}
measure: {statistics: {input_jacobian: {num_samples: 32}}}
"""


def processor_seconds(program: str, arguments: list[str], folder: Path) -> float:
    """Of one command, run in ``folder``, with its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([program, *arguments], cwd=folder, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def commands(rounds: int, other: str) -> None:
    """Print processor seconds of commands that train nothing, beside those of the program ``other`` if there is one."""
    programs = {"here": str(Path(sys.executable).with_name("fmm-study"))} | ({"beside": other} if other else {})
    asked = {"levels": ["levels"], "status": ["status", "tiny.yaml"], "refusal": ["run", "bad.yaml"]}
    seen: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        for side, program in programs.items():
            (folder := Path(place, side)).mkdir()
            (folder / "tiny.yaml").write_text(TINY)
            (folder / "bad.yaml").write_text(TINY + "blokcs: 3\n")
            # an older version may have no --in-process
            subprocess.run([program, "run", "tiny.yaml"], cwd=folder, capture_output=True, check=True)
        for _ in range(rounds):
            for what, arguments in asked.items():
                for side, program in programs.items():
                    seen.setdefault((what, side), []).append(processor_seconds(program, arguments, Path(place, side)))
    rows = [[what, *(spread(seen[what, side]) for side in programs)] for what in asked]
    print_table(f"processor seconds, n = {rounds}, {machine_load()} at the end", ["", *programs], rows)
    if other:
        ratios = [
            theirs / ours
            for what in asked
            for ours, theirs in zip(seen[what, "here"], seen[what, "beside"], strict=True)
        ]
        print(result("start_up --commands", ratios, 3.0, packages=("torch",)))


def main() -> None:
    """Print the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--in-process", action="store_true")
    parser.add_argument("--commands", action="store_true")
    parser.add_argument("--beside", default="", help="another checkout's fmm-study, for --commands")
    given = parser.parse_args()
    if given.commands:
        commands(given.rounds, given.beside and str(Path(given.beside).absolute()))
        return
    options = ["--in-process"] if given.in_process else []
    seen = []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
            seen.append(start(Path(place), *options))
    rows = [[part, spread([found[part] for found in seen])] for part in (*PARTS, PROCESSOR)]
    print_table(f"seconds since the start, n = {given.rounds}, {machine_load()} at the end", ["", "seconds"], rows)
    ratios = [LIMIT_SECONDS / found["first epoch trained"] for found in seen]
    print(result(" ".join(["start_up", *options]), ratios, 1.0, packages=("torch", "ray", "optuna", "mlflow")))


if __name__ == "__main__":
    main()

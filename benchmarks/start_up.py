"""From the start of ``fmm-study run digits``, in a folder that is new, to the end of the first training's first epoch.

    python -m benchmarks.start_up                  # on Ray
    python -m benchmarks.start_up --in-process

Told beside it: when the study was checked and frozen, and when the first worker began. The ratio is ten seconds over those
until then: all that comes before the first training step, and an epoch of eight steps. Processor seconds until then, of the
driver and its children, depend less on what else the machine does.
"""

import argparse
import signal
import subprocess
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


def main() -> None:
    """Print the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--in-process", action="store_true")
    given = parser.parse_args()
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

"""From the start of ``fmm-study run digits``, in a folder that is new, to the end of the first training's first epoch.

    python -m benchmarks.start_up

Told beside it: when the study was checked and frozen, and when the first worker began. The ratio is ten seconds over those
until then: all that comes before the first training step, and an epoch of eight steps.
"""

import argparse
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.common import machine_load, print_table, result, spread
from benchmarks.driven import run_command

LIMIT_SECONDS = 10.0
# What is there at the end of each part, in the study's folder.
PARTS = {
    "study checked and frozen": "study.json",
    "a worker has begun": "checkpoints/*",
    "first epoch trained": "checkpoints/*/state.pt",
}


def start(storage: Path) -> dict[str, float]:
    """Seconds until each part was there. Raises ``RuntimeError`` when the run ends before."""
    found: dict[str, float] = {}
    started = time.perf_counter()
    process = subprocess.Popen(
        run_command("digits", storage), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while len(found) < len(PARTS):
        for part, name in PARTS.items():
            if part not in found and any((storage / "digits").glob(name)):
                found[part] = time.perf_counter() - started
        if process.poll() is not None:
            raise RuntimeError(process.communicate()[1][-2000:])
        time.sleep(0.02)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    process.communicate()
    return found


def main() -> None:
    """Print the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    seen = []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
            seen.append(start(Path(place)))
    rows = [[part, spread([found[part] for found in seen])] for part in PARTS]
    print_table(f"seconds since the start, n = {given.rounds}, {machine_load()} at the end", ["", "seconds"], rows)
    ratios = [LIMIT_SECONDS / found["first epoch trained"] for found in seen]
    print(result("start_up", ratios, 1.0, packages=("torch", "ray", "optuna", "mlflow")))


if __name__ == "__main__":
    main()

"""A real ``fmm-study run`` in a process of its own, watched from outside: when its first training began, when records came."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

_POLL_SECONDS, _SAMPLE_SECONDS = 0.1, 0.5


@dataclass(kw_only=True)
class Watched:
    """Seconds since the start of the process: ``begun`` of the first training, ``marks`` (seconds, replicates in the ledger)
    at every change, ``whole`` at its end; ``memory`` of the driver at every mark, in bytes, ``cpu`` its processor seconds.
    ``at_work``: (seconds, trainings under way) by the half second."""

    begun: float = 0.0
    whole: float = 0.0
    cpu: float = 0.0
    marks: list[tuple[float, int]] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    at_work: list[tuple[float, int]] = field(default_factory=list)

    def at(self, num: int) -> float:
        """When ``num`` replicates were held."""
        return next(seconds for seconds, held in self.marks if held >= num)


def write_spec(path: Path, **parts: object) -> Path:
    """A specification of ``parts``; raises nothing, ``run`` checks it."""
    path.write_text(yaml.safe_dump({"name": path.stem, **parts}))
    return path


def run_command(spec: Path | str, storage: Path) -> list[str]:
    """``fmm-study run`` as a process of this Python."""
    return [sys.executable, "-c", "from study.cli import main; main()", "run", str(spec), "--storage", str(storage)]


def watch(spec: Path | str, storage: Path, *options: str, packages: Sequence[str] = ()) -> Watched:
    """Run a study to its end. Raises ``RuntimeError`` with what it has printed when it fails."""
    name = spec.stem if isinstance(spec, Path) else spec
    root = storage / name
    storage.mkdir(parents=True, exist_ok=True)
    log = storage / f"{name}.log"
    env = os.environ | {"FMM_STUDY_PLUGINS": ",".join(packages)}
    found = Watched()
    started = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*run_command(spec, storage), *options], stdout=out, stderr=subprocess.STDOUT, env=env
        )
    driver, counted, size = psutil.Process(process.pid), 0, 0
    while process.poll() is None:
        now = time.perf_counter() - started
        if not found.begun and any(root.glob("checkpoints/*")):
            found.begun = now
        if not found.at_work or now - found.at_work[-1][0] >= _SAMPLE_SECONDS:
            found.at_work.append((now, _num_at_work(root / "checkpoints")))
        segments = sorted((root / "ledger").glob("*")) if (root / "ledger").exists() else []
        held = sum(path.stat().st_size for path in segments)
        if held != size:
            size = held
            num = sum(path.read_bytes().count(b'{"kind":"replicate"') for path in segments)
            if num != counted:
                counted = num
                found.marks.append((now, num))
                found.memory.append(_resident(driver))
                found.cpu = _processor(driver)
        time.sleep(_POLL_SECONDS)
    found.whole = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(log.read_text()[-4000:])
    return found


def _num_at_work(checkpoints: Path) -> int:
    """Trainings that a worker has begun and not finished, by their files (``study.worker.group``)."""
    begun = {path.parent.name for name in ("attempts.json", "state.pt") for path in checkpoints.glob(f"*/{name}")}
    return len(begun - {path.parent.name for path in checkpoints.glob("*/outcome.json")})


def _processor(driver: psutil.Process) -> float:
    try:
        times = driver.cpu_times()
        return float(times.user + times.system)
    except psutil.NoSuchProcess:
        return 0.0


def _resident(driver: psutil.Process) -> int:
    try:
        return int(driver.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0

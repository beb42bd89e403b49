"""All that is to be known of a GPU that is lent for some minutes, by one command: correctness first, then speed, then a study.

    python -m benchmarks.gpu_session --wheels WHEELS            # at home: fetch what the machine with the GPU lacks
    python -m benchmarks.gpu_session --pack CIFAR FILE.tar.xz   # at home: images as one file, from folders train and test
    pip install --no-index --no-deps --target SITE WHEELS/*.whl && export PYTHONPATH=SITE         # there
    python -m benchmarks.gpu_session --images FILE.tar.xz --seconds 570                           # there
    python -m benchmarks.gpu_session --device cpu --small                                         # a trial of every step

Each step runs in a process of its own, which is ended when the step's time is over; what a step measures is a line of JSON
in ``OUT/session.jsonl`` as soon as it is known, and ``OUT/session.md`` is one table of all lines. The same command again goes
on: what is measured is not measured anew, what had an error is. A measurement that takes its process down (a fault of CUDA
does) is an error, and the step goes on in a new process. ``OUT/session.log`` has what the processes print.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tarfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).parents[1]
LINES, TABLE, LOG = "session.jsonl", "session.md", "session.log"
PACKAGES = ("torch", "torchvision", "triton", "numpy", "fmm-study")
# What the machine lacks, with the versions of constraints.txt; it has torch, torchvision, pandas, pyarrow, scipy, statsmodels,
# scikit-learn, matplotlib, typer, rich, pyyaml, psutil and what these need.
WHEELS = (
    "pydantic",
    "pydantic_core",
    "annotated-types",
    "typing-inspection",
    "typing_extensions",
    "optuna",
    "colorlog",
    "captum",
)
TARGET = ("--python-version", "3.12", "--implementation", "cp", "--only-binary=:all:", "--no-deps")
TAGS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
# A step that would get less is not begun.
LEAST_SECONDS = 10.0
LONGEST_ERROR = 400
# The exit code of a process in which nothing works any more; the step goes on in another.
FAULTED = 75


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a measurement found: ``values``, one a round; larger than ``least`` or smaller than ``most`` is as it should be."""

    values: Sequence[float]
    unit: str
    least: float | None = None
    most: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the median is as it should be; ``None`` where nothing is asked of it."""
        middle = statistics.median(self.values)
        if self.least is None and self.most is None:
            return None
        # NaN is not
        return (self.least is None or middle >= self.least) and (self.most is None or middle <= self.most)


@dataclass(frozen=True, kw_only=True)
class Given:
    """What each step is told. ``out``: the folder of lines and scratch files; ``images``: the packed ones, if brought."""

    device: str
    small: bool
    out: Path
    images: Path | None = None

    def held(self, name: str) -> list[float]:
        """Values of an earlier measurement. Raises ``LookupError`` where it is not there."""
        for line in read_lines(self.out / LINES):
            if line["name"] == name and "values" in line:
                return list(line["values"])
        raise LookupError(f"{name} was not measured")


# A name, unique in its step, whose part before a colon is its kind; and what finds the values.
Measurement = tuple[str, Callable[[], Found]]


@dataclass(frozen=True)
class Step:
    """``plan`` (module:function) gives its measurements, from ``Given``; ``seconds`` is what they may take together."""

    name: str
    what: str
    seconds: float
    plan: str


STEPS = (
    Step("a", "correctness: the device against the CPU", 200, "benchmarks.gpu_correct:correct"),
    Step("b", "replicates as one network, by their number", 100, "benchmarks.gpu_speed:fusion_by_group"),
    Step("c", "trials an hour at CIFAR scale", 110, "benchmarks.gpu_speed:trials_an_hour"),
    Step("d", "share of matrix rate and bandwidth", 60, "benchmarks.gpu_speed:shares"),
    Step("e", "the statistics' share of training time", 75, "benchmarks.gpu_speed:suite"),
    Step("f", "time to .94 on CIFAR-10", 90, "benchmarks.gpu_speed:time_to_accuracy"),
    Step("g", "a study by the command line", 165, "benchmarks.gpu_speed:product"),
    Step("h", "compiled steps", 100, "benchmarks.gpu_correct:compiled"),
)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The last line of each measurement, in order of their first; a line that was cut off is left out."""
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for text in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            line = json.loads(text)
            lines[line["step"], line["name"]] = line
    return list(lines.values())


def _write(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def measure(step: Step, given: Given, run: int) -> None:
    """Take the measurements of ``step`` that are not held, each a line; those that failed in this same ``run`` rest."""
    path, machine = given.out / LINES, {"device": given.device, "small": given.small, "run": run}
    held = {line["name"] for line in read_lines(path) if line["step"] == step.name and _rests(line, run)}
    module, _, function = step.plan.partition(":")
    for name, find in getattr(importlib.import_module(module), function)(given):
        if name in held:
            continue
        line: dict[str, Any] = {"step": step.name, "name": name, **machine}
        _write(path, {**line, "begun": True})
        started = time.perf_counter()
        try:
            found = find()
            line |= {
                "values": [float(f"{value:.6g}") for value in found.values],
                "unit": found.unit,
                "n": len(found.values),
                "median": statistics.median(found.values),
                "spread": [min(found.values), max(found.values)],
                "least": found.least,
                "most": found.most,
                "met": found.met,
                "more": dict(found.more),
            }
        except Exception as error:  # noqa: BLE001  any fault is that measurement's; the others are taken all the same
            traceback.print_exc()
            line["error"] = _one_line(f"{type(error).__name__}: {error}")
        line |= {"seconds": round(time.perf_counter() - started, 3), **_machine(given.device)}
        _write(path, line)
        if "CUDA error" in line.get("error", ""):
            raise SystemExit(FAULTED)
    _write(path, {"step": step.name, "name": "", **machine, "ended": True})


def _rests(line: Mapping[str, Any], run: int) -> bool:
    return "values" in line or ("error" in line and line["run"] == run)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:LONGEST_ERROR]


def _machine(device: str) -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    name = platform.machine()
    if "torch" in sys.modules:  # a step that does without need not wait for it
        from benchmarks.common import hardware

        name = hardware(gpu=device == "cuda")
    return {"hardware": name, "versions": versions}


def take(step: Step, given: Given, run: int, seconds: float) -> str:
    """``measure`` in processes of its own, which are ended after ``seconds``; what became of the step, in words."""
    path, started = given.out / LINES, time.monotonic()
    with (given.out / LOG).open("a") as log:
        log.write(f"== {step.name}, {step.what}\n")
        log.flush()
        while (left := seconds - (time.monotonic() - started)) > 0:
            code = _child(step, given, run, left, log)
            begun = [line for line in read_lines(path) if line["step"] == step.name and "begun" in line]
            reason = f"ended: the step's {seconds:g} s were over" if code is None else f"its process ended with {code}"
            for line in begun:
                _write(path, {**{key: value for key, value in line.items() if key != "begun"}, "error": reason})
            if code is None:
                return reason
            if code == 0:
                return f"{time.monotonic() - started:.0f} s"
            if not begun and code != FAULTED:
                _write(path, {"step": step.name, "name": "", "run": run, "error": f"{reason} ({LOG} says why)"})
                return reason
    return f"ended: the step's {seconds:g} s were over"


def _child(step: Step, given: Given, run: int, seconds: float, log: TextIO) -> int | None:
    """The exit code of a process that takes ``step``; ``None`` if it and all that it started had to be ended."""
    told = {**vars(given), "out": str(given.out), "images": str(given.images) if given.images else None}
    script = "import sys, json; from benchmarks.gpu_session import child; child(*map(json.loads, sys.argv[1:]))"
    command = [sys.executable, "-c", script, *map(json.dumps, (vars(step), told, run))]
    # by name, for what a step starts: a command leaves the folder that it is run in out of its path
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=env)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def child(step: Mapping[str, Any], told: Mapping[str, Any], run: int) -> None:
    """In the process of a step."""
    images = Path(told["images"]) if told["images"] else None
    measure(Step(**step), Given(**{**told, "out": Path(told["out"]), "images": images}), run)


def session(steps: Iterable[Step], given: Given, seconds: float, tell: Callable[[str], None] = print) -> None:
    """Take ``steps`` in turn within ``seconds``; those that have ended rest."""
    given.out.mkdir(parents=True, exist_ok=True)
    path, started = given.out / LINES, time.monotonic()
    before = read_lines(path)
    if any(
        line.get("device", given.device) != given.device or line.get("small", given.small) != given.small
        for line in before
    ):
        raise SystemExit(f"{path} is of another device, or was measured in small: give another --out")
    run = 1 + max((line.get("run", 0) for line in before), default=0)
    failed = {line["step"] for line in before if "error" in line or "begun" in line}
    done = {line["step"] for line in before if "ended" in line} - failed
    for step in steps:
        left = seconds - (time.monotonic() - started)
        if step.name in done:
            tell(f"{step.name}, {step.what}: done before")
        elif left < min(LEAST_SECONDS, step.seconds):
            tell(f"{step.name}, {step.what}: no time is left")
        else:
            tell(f"{step.name}, {step.what}: {take(step, given, run, min(step.seconds, left))}")
            (given.out / TABLE).write_text(table(read_lines(path)))


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """One Markdown table: a row a measurement; those of one kind that are as they should be, in one row."""
    rows, kinds = [], dict[tuple[str, str], list[Mapping[str, Any]]]()
    for line in (line for line in lines if line["name"] or "error" in line):
        kind, colon, _ = line["name"].partition(": ")
        if colon and line.get("met"):
            kinds.setdefault((line["step"], kind), []).append(line)
        else:
            rows.append((line["step"], _row(line)))
    for (step, kind), good in kinds.items():
        total = sum(line["step"] == step and line["name"].startswith(f"{kind}: ") for line in lines)
        worst = max(good, key=lambda line: abs(line["median"]))
        most, unit = max(line["most"] or 0 for line in good), worst["unit"]
        found = f"at most {worst['median']:.3g} {unit}".strip()
        rows.append((step, f"| {kind}: {len(good)} of {total} | {found} | {len(good)} | at most {most:.3g} | yes |"))
    machines = {f"{line['hardware']}; {json.dumps(line['versions'])}" for line in lines if "hardware" in line}
    head = "| step | measured | median (least to greatest) | n | expected | met |\n|---|---|---|---|---|---|\n"
    body = "".join(f"| {step} {row}\n" for step, row in sorted(rows, key=lambda row: row[0]))
    return head + body + "\n" + "\n".join(sorted(machines)) + "\n"


def _row(line: Mapping[str, Any]) -> str:
    if "values" not in line:
        return f"| {line['name'] or 'the step itself'} | {line.get('error', 'not ended').replace('|', '/')} | 0 | | **no** |"
    low, high = line["spread"]
    found = f"{line['median']:.4g}" + (f" ({low:.4g} to {high:.4g})" if line["n"] > 1 else "")
    expected = "".join(f"{word} {line[word]:g}" for word in ("least", "most") if line[word] is not None)
    met = {True: "yes", False: "**no**", None: ""}[line["met"]]
    more = "".join(f"; {name} {value}" for name, value in line["more"].items())
    cells = [line["name"] + more, f"{found} {line['unit']}", str(line["n"]), f"at {expected}" if expected else "", met]
    return f"| {' | '.join(cells)} |"


def fetch_wheels(folder: Path) -> None:
    """Download the wheels to bring, and list them with their sizes. Raises ``CalledProcessError`` where pip fails."""
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    known = {line.partition("==")[0].lower().replace("_", "-"): line for line in pinned if "==" in line}
    wanted = [known[name.lower().replace("_", "-")] for name in WHEELS]
    tags = [part for tag in TAGS for part in ("--platform", tag)]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", *TARGET, *tags, "-d", str(folder), *wanted], check=True
    )
    wheels = sorted(folder.glob("*.whl"))
    for wheel in wheels:
        print(f"{wheel.stat().st_size / 2**20:6.2f} MiB  {wheel.name}")
    print(f"{sum(wheel.stat().st_size for wheel in wheels) / 2**20:6.2f} MiB in all")


def pack(folder: Path, file: Path) -> None:
    """The images in ``folder``'s ``train`` and ``test`` as one file: a third of their size, as their headers are alike."""
    with tarfile.open(file, "w:xz") as packed:
        for part in ("train", "test"):
            packed.add(folder / part, part, filter=lambda member: None if "/." in member.name else member)
    print(f"{file.stat().st_size / 2**20:.1f} MiB  {file}")


def main() -> None:
    """The commands above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="download the wheels to bring, and do no more")
    parser.add_argument("--pack", type=Path, nargs=2, metavar=("FOLDER", "FILE"), help="pack images, and do no more")
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--small", action="store_true", help="a trial of every step, in minutes on a CPU")
    parser.add_argument("--images", type=Path, metavar="FILE", help="what --pack made of CIFAR-10's images")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="of lines and table (default: gpu_session/DEVICE)")
    parser.add_argument("--steps", nargs="+", default=[step.name for step in STEPS], metavar="STEP")
    parser.add_argument("--seconds", type=float, default=600.0, help="that the whole session may take")
    given = parser.parse_args()
    if given.images and not given.images.is_file():
        parser.error(f"--images {given.images}: there is no such file")
    if unknown := set(given.steps) - {step.name for step in STEPS}:
        parser.error(f"--steps {' '.join(unknown)}: expected some of {' '.join(step.name for step in STEPS)}")
    if given.wheels:
        fetch_wheels(given.wheels)
    elif given.pack:
        pack(*given.pack)
    else:
        for step in STEPS:
            if step.name in given.steps:
                print(f"{step.name}: {step.what}, {step.seconds:g} s at most")
        chosen = [step for step in STEPS if step.name in given.steps]
        images = given.images.resolve() if given.images else None
        out = given.out or Path("gpu_session") / (given.device + "-small" * given.small)
        session(
            chosen,
            Given(device=given.device, small=given.small, out=out.resolve(), images=images),
            given.seconds,
            lambda line: print(line, flush=True),
        )
        print(table(read_lines(out / LINES)))


if __name__ == "__main__":
    main()

"""What every benchmark prints: a table, then one line of JSON that says what it found and on what.

The fields of that line are ``name, ratio, goal, n, low, high, hardware, versions``: ``ratio`` is the median over ``n`` runs of
a number that is larger where we are better, ``low`` and ``high`` its least and greatest, ``goal`` what it should reach.
"""

import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def hardware(*, gpu: bool = False) -> str:
    """``<CPU model> x <usable cores>``, with ``gpu`` the GPU's name before it. Raises ``RuntimeError`` where there is none."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.exists()
        else []
    )
    cpu = f"{names[0] if names else platform.processor() or platform.machine()} x {cores}"
    if not gpu:
        return cpu
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("this benchmark needs a GPU")
    return f"{torch.cuda.get_device_name()}, {cpu}"


def versions(*packages: str) -> dict[str, str]:
    """Python's version and those of installed ``packages``."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def spread(values: Sequence[float]) -> str:
    """``1.23 (1.20 to 1.31)``: median, least and greatest; the number alone where there is one."""
    middle = f"{statistics.median(values):.3g}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.3g} to {max(values):.3g})"


def print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout: the first column to the left, numbers to the right."""
    table = Table(box=None)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    console = Console(width=140)
    console.print(title, highlight=False, soft_wrap=True)
    console.print(table, highlight=False)


def result(
    name: str,
    ratios: Sequence[float],
    goal: float,
    *,
    gpu: bool = False,
    packages: Sequence[str] = (),
    more: Mapping[str, Any] | None = None,
) -> str:
    """The last line: JSON of one benchmark. ``more``: what else it measured."""
    fields = {
        "name": name,
        "ratio": round(statistics.median(ratios), 4),
        "goal": goal,
        "n": len(ratios),
        "low": round(min(ratios), 4),
        "high": round(max(ratios), 4),
        "hardware": hardware(gpu=gpu),
        "versions": versions(*packages),
    }
    return json.dumps(fields | dict(more or {}))

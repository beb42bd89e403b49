"""What every benchmark prints: a table, then one line of JSON that says what it found and on what.

The fields of that line are ``name, ratio, goal, n, low, high, hardware, versions``: ``ratio`` is the median over ``n`` runs of
a number that is larger where we are better, ``low`` and ``high`` its least and greatest, ``goal`` what it should reach.
"""

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.console import Console

from study.printing import console
from study.results.provenance import cpu_name, package_version


def hardware(*, gpu: bool = False) -> str:
    """``<CPU model> x <usable cores>``, with ``gpu`` the GPU's name before it. Raises ``RuntimeError`` where there is none."""
    if gpu and not torch.cuda.is_available():
        raise RuntimeError("this benchmark needs a GPU")
    return f"{torch.cuda.get_device_name()}, {cpu_name()}" if gpu else cpu_name()


def versions(*packages: str) -> dict[str, str]:
    """Python's version and those of ``packages``."""
    return {"python": platform.python_version()} | {name: package_version(name) or "absent" for name in packages}


def machine_load() -> str:
    """The machine's load now."""
    return f"load {os.getloadavg()[0]:.1f}"


def spread(values: Sequence[float]) -> str:
    """``1.23 (1.20 to 1.31)``: median, least and greatest; the number alone where there is one."""
    middle = f"{statistics.median(values):.3g}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.3g} to {max(values):.3g})"


def print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout: the first column to the left, numbers to the right."""
    console.print_table(Console(width=140), headings, rows, title=title)


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

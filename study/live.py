"""Live progress of a run: a moving display on a terminal, plain lines elsewhere."""

import time
from collections import Counter
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from study.ledger import Contents
from study.plan import Plan
from study.schema import STATES, Record, ReplicateRecord
from study.training.loop import Progress

PLAIN_SECONDS = 10.0


class LiveView:
    """Counts what the ledger holds and what a run adds; ``tell`` it every event. A context manager."""

    def __init__(self, plan: Plan, contents: Contents, console: Console) -> None:
        self._plan, self._console = plan, console
        self._phases: Counter[str] = Counter()
        self._states: Counter[str] = Counter()
        self._confirmed: Counter[str] = Counter()
        self._best: ReplicateRecord | None = None
        self._in_flight: Progress | None = None
        for record in contents.replicates.values():
            self._count(record)
        self._before = sum(self._phases.values())
        self._started = self._printed = time.monotonic()
        self._live = Live(console=console, get_renderable=self._display, refresh_per_second=4, transient=True)

    def __enter__(self) -> "LiveView":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._console.is_terminal:
            self._live.stop()
        self._console.print(self._line(), highlight=False)

    def tell(self, event: Record | Progress) -> None:
        """Take in one event of the run."""
        if isinstance(event, Progress):
            self._in_flight = event
        elif event["kind"] == "replicate":
            self._count(event)
        if not self._console.is_terminal and time.monotonic() - self._printed >= PLAIN_SECONDS:
            self._printed = time.monotonic()
            self._console.print(self._line(), highlight=False)

    def _count(self, record: ReplicateRecord) -> None:
        self._phases[record["phase"]] += 1
        self._states[record["state"]] += 1
        if record["phase"] == "confirm":
            self._confirmed[record["cell"]] += 1
        accuracy = record["metrics"].get("val/accuracy", 0.0)
        if self._best is None or accuracy > self._best["metrics"].get("val/accuracy", 0.0):
            self._best = record

    @property
    def _eta(self) -> str:
        done = sum(self._phases.values())
        left = self._plan.num_search + self._plan.num_confirm - done
        new = done - self._before
        if left <= 0:
            return "done"
        if not new:
            return "ETA --:--"
        seconds = int((time.monotonic() - self._started) / new * left)
        return f"ETA {seconds // 60}:{seconds % 60:02d}"

    @property
    def _elapsed(self) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"{seconds // 60}:{seconds % 60:02d}"

    def _parts(self) -> dict[str, str]:
        plan, spec = self._plan, self._plan.spec
        wanted = spec.blocks * spec.replicates
        cells = sum(self._confirmed[cell.name] >= wanted for cell in plan.cells)
        blocks = sum(self._confirmed.values()) // spec.replicates
        best = self._best
        return {
            "search trials": f"{self._phases['search']}/{plan.num_search}",
            "confirmed": f"{self._phases['confirm']}/{plan.num_confirm}",
            "cells": f"{cells}/{len(plan.cells)}",
            "blocks": f"{blocks}/{len(plan.cells) * spec.blocks}",
            "outcomes": ", ".join(f"{self._states[s]} {s}" for s in STATES if self._states[s]) or "none yet",
            "best": f"val accuracy {best['metrics']['val/accuracy']:.3f} ({best['cell']})"
            if best and "val/accuracy" in best["metrics"]
            else "none yet",
        }

    def _line(self) -> str:
        parts = "; ".join(f"{name} {value}" for name, value in self._parts().items())
        return f"[{self._elapsed}] {parts}; {self._eta}".replace("[", r"\[")

    def _display(self) -> Table:
        table = Table.grid(padding=(0, 2))
        title = self._plan.spec.title or self._plan.spec.name
        table.add_row(f"[bold]{self._plan.spec.name}", title)
        for name, value in self._parts().items():
            table.add_row(name, value)
        if self._in_flight:
            flight = self._in_flight
            table.add_row("training", f"epoch {flight.epoch}/{flight.epochs}, validation loss {flight.val_loss:.3f}")
        table.add_row("time", f"{self._elapsed}, {self._eta}")
        return table

"""Live progress of a run: a moving display on a terminal, plain lines elsewhere."""

import time
from collections import Counter
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from study.planning.plan import Plan
from study.results.ledger import Contents
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
        self._print_line()

    def tell(self, event: Record | Progress) -> None:
        """Take in one event of the run."""
        if isinstance(event, Progress):
            self._in_flight = event
        elif event["kind"] == "replicate":
            self._count(event)
        if not self._console.is_terminal and time.monotonic() - self._printed >= PLAIN_SECONDS:
            self._printed = time.monotonic()
            self._print_line()

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
        left = self._plan.num_trainings - done
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

    @property
    def _counts(self) -> str:
        spec = self._plan.spec
        if spec.joint or spec.sequential:
            return (
                f"search {self._phases['search']}/{self._plan.num_search}, "
                f"confirmed {self._phases['confirm']} of at most {self._plan.num_confirm}"
            )
        wanted = spec.blocks * spec.replicates
        cells = sum(self._confirmed[cell.name] >= wanted for cell in self._plan.cells)
        blocks = sum(self._confirmed.values()) // spec.replicates
        short = f", shortened {self._phases['short']}/{self._plan.num_short}" if self._plan.num_short else ""
        return (
            f"search {self._phases['search']}/{self._plan.num_search}, "
            f"confirmed {self._phases['confirm']}/{self._plan.num_confirm} "
            f"(blocks {blocks}/{len(self._plan.cells) * spec.blocks}, cells {cells}/{len(self._plan.cells)}){short}"
        )

    @property
    def _outcomes(self) -> str:
        return ", ".join(f"{self._states[s]} {s}" for s in STATES if self._states[s]) or "none yet"

    @property
    def _best_text(self) -> str:
        if self._best is None or "val/accuracy" not in self._best["metrics"]:
            return "none yet"
        return f"{self._best['metrics']['val/accuracy']:.3f} {self._best['cell']}"

    def _print_line(self) -> None:
        line = f"[{self._elapsed}] {self._counts} | {self._outcomes} | best {self._best_text} | {self._eta}"
        self._console.print(line, highlight=False, markup=False, soft_wrap=not self._console.is_terminal)

    def _display(self) -> Table:
        done, total = sum(self._phases.values()), self._plan.num_trainings
        table = Table.grid(padding=(0, 2))
        table.add_row(f"[bold]{self._plan.spec.name}", ProgressBar(total=total, completed=done, width=50))
        table.add_row("trials", self._counts)
        table.add_row("outcomes", self._outcomes)
        table.add_row("best", f"validation accuracy {self._best_text}")
        if self._in_flight:
            flight = self._in_flight
            table.add_row("training", f"epoch {flight.epoch}/{flight.epochs}, validation loss {flight.val_loss:.3g}")
        table.add_row("time", f"{self._elapsed}, {self._eta}")
        return table

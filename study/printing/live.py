"""Live progress of a run: a moving display on a terminal, plain lines elsewhere."""

import math
import threading
import time
from collections import Counter
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from study.planning.layout import Plan
from study.printing.console import say
from study.results.ledger import Contents
from study.schema import STATES, Record, ReplicateRecord
from study.training import Progress

# without a terminal: at the least between two lines where something ended, at the most where nothing did
PLAIN_SECONDS = 10.0
QUIET_SECONDS = 60.0
TICK_SECONDS = 1.0


class LiveView:
    """Counts what the ledger holds and what a run adds; ``tell`` it every event. A context manager."""

    def __init__(self, plan: Plan, contents: Contents, console: Console) -> None:
        self._plan, self._console = plan, console
        self._counts: Counter[str] = Counter()
        self._confirmed: Counter[str] = Counter()
        self._best, self._best_accuracy = "none yet", -math.inf
        self._in_flight: Progress | None = None
        held = [record for record in contents.replicates.values() if plan.asks_for(record)]
        for record in held:
            self._count(record)
        # over the whole run: single trainings may take minutes
        self._bar = Bar(BarColumn(bar_width=50), console=console, speed_estimate_period=math.inf)
        self._bar.add_task("", total=plan.num_trainings, completed=len(held))
        self._printed, self._told = time.monotonic(), 0
        # as it is now: a terminal may be closed meanwhile
        self._moving = console.is_terminal
        self._ended = threading.Event()
        # of its own, since a minute may pass without an event
        self._clock = threading.Thread(target=self._print_lines, name="progress", daemon=True)
        self._live = Live(console=console, get_renderable=self._display, refresh_per_second=4, transient=True)

    def __enter__(self) -> "LiveView":
        if self._moving:
            self._live.start()
        else:
            self._clock.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._moving:
            self._live.stop()
        else:
            self._ended.set()
            self._clock.join()
        self._print_line()

    def tell(self, event: Record | Progress) -> None:
        """Take in one event of the run."""
        if isinstance(event, Progress):
            self._in_flight = event
        elif event["kind"] == "replicate":
            self._count(event)
            self._bar.advance(self._bar.task_ids[0])

    def _print_lines(self) -> None:
        """A line when a training has ended, or once a minute."""
        while not self._ended.wait(TICK_SECONDS):
            since, num = time.monotonic() - self._printed, self._counts.total()
            if since >= QUIET_SECONDS or (since >= PLAIN_SECONDS and num != self._told):
                self._printed, self._told = time.monotonic(), num
                self._print_line()

    def _count(self, record: ReplicateRecord) -> None:
        self._counts.update((record["phase"], record["state"]))
        if record["phase"] == "confirm":
            self._confirmed[record["cell"]] += 1
        accuracy = record["metrics"].get("val/accuracy", -math.inf)
        if accuracy > self._best_accuracy:
            self._best, self._best_accuracy = f"{accuracy:.3f} {record['cell']}", accuracy

    def _progress(self) -> str:
        plan, spec, counts = self._plan, self._plan.spec, self._counts
        search = f"search {counts['search']}/{plan.num_search}, confirmed {counts['confirm']}"
        if spec.joint or spec.sequential:
            return f"{search} of at most {plan.num_confirm}"
        wanted = spec.blocks * spec.replicates
        cells = sum(self._confirmed[cell.name] >= wanted for cell in plan.cells)
        blocks = counts["confirm"] // spec.replicates
        short = f", shortened {counts['short']}/{plan.num_short}" if plan.num_short else ""
        return (
            f"{search}/{plan.num_confirm} "
            f"(blocks {blocks}/{len(plan.cells) * spec.blocks}, cells {cells}/{len(plan.cells)}){short}"
        )

    def _outcomes(self) -> str:
        return ", ".join(f"{self._counts[s]} {s}" for s in STATES if self._counts[s]) or "none yet"

    def _times(self) -> tuple[str, str]:
        """Time since the start of this run, and what is expected to be left."""
        (task,) = self._bar.tasks
        left = f"ETA {TimeRemainingColumn(compact=True).render(task)}" if (task.remaining or 0) > 0 else "done"
        return str(TimeElapsedColumn().render(task)), left

    def _print_line(self) -> None:
        elapsed, left = self._times()
        say(self._console, f"[{elapsed}] {self._progress()} | {self._outcomes()} | best {self._best} | {left}")

    def _display(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_row(Text(self._plan.spec.name, "bold"), self._bar.get_renderable())
        table.add_row("trials", self._progress())
        table.add_row("outcomes", self._outcomes())
        table.add_row("best", Text(f"validation accuracy {self._best}"))
        if self._in_flight:
            flight = self._in_flight
            table.add_row("training", f"epoch {flight.epoch}/{flight.epochs}, validation loss {flight.val_loss:.3g}")
        table.add_row("time", ", ".join(self._times()))
        return table

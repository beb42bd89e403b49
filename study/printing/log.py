"""What a run says, printed and kept: ``run.log`` in the study's folder has every line with its time."""

import contextlib
import importlib.metadata
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from study.errors import printable
from study.printing.console import say
from study.results.files import LOG
from study.schema import Record

_WARNING = "warning: "


class RunLog:
    """Lines of one run. Before the study's folder is there they are held back; a disk that is full loses them silently.

    ``quiet``: nothing is printed but warnings, on stderr. ``verbose``: a line for each training that ends.
    """

    def __init__(self, root: Path, console: Console, *, quiet: bool = False, verbose: bool = False) -> None:
        self._root, self._console, self._quiet, self._verbose = root, console, quiet, verbose
        self._held: list[str] = []

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        """Keep that a run begins, and how it ended."""
        self.note(f"fmm-study {importlib.metadata.version('fmm-study')}, process {os.getpid()}, begins")
        try:
            yield
        except BaseException as error:  # all of it goes up: Ctrl-C too is an end
            self.note(f"ended by {type(error).__name__}: {' '.join(str(error).split())}".rstrip(": "))
            raise
        self.note("the run ends")

    def tell(self, line: str) -> None:
        """Print ``line`` and keep it."""
        self.note(line)
        if not self._quiet:
            say(self._console, line)
        elif line.startswith(_WARNING):
            sys.stderr.write(f"{printable(line)}\n")

    def warn(self, line: str) -> None:
        """``tell`` a warning."""
        self.tell(f"{_WARNING}{line}")

    def ended(self, record: Record) -> None:
        """Keep how a training ended, printed if asked to, and which measurement failed."""
        if record["kind"] == "replicate":
            accuracy = record["metrics"].get("val/accuracy")
            reached = "" if accuracy is None else f", validation accuracy {accuracy:.4f}"
            reason = f": {' '.join(record['reason'].split())}" if record["reason"] else ""
            line = (
                f"{record['cell']} block {record['block']}, {record['phase']} {record['number']}: {record['state']}{reached}, "
                f"{record['train_seconds']:.1f} s{reason}"
            )
            (self.tell if self._verbose else self.note)(line)
        elif record["error"]:
            self.note(
                f"{record['statistic']} of {record['trial_key']} not measured: {' '.join(record['error'].split())}"
            )

    def note(self, line: str) -> None:
        """Keep ``line`` without printing it."""
        self._held.append(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {printable(line)}\n")
        if self._root.is_dir():
            # no line of it is worth a training
            with (
                contextlib.suppress(OSError),
                (self._root / LOG).open("a", encoding="utf-8", errors="backslashreplace") as log,
            ):
                log.writelines(self._held)
            self._held.clear()

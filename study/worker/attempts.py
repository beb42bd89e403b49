"""How often a member was begun and lost with its worker: this tells the member that kills workers from its neighbours.

A worker writes a note into the member's folder when it begins, and removes it once an epoch or the member is done. A note that
remains was left by a worker that died. Notes of another driver do not count: when a driver ends, its workers end.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from study.atomic import read_json, write_json
from study.errors import UserError
from study.results.files import ATTEMPTS
from study.schema import Attempt

# Restarts of a member after its worker was lost, without a finished epoch in between.
MAX_LOSSES = 3
Event = TypeVar("Event")
REASON = f"its worker was lost {MAX_LOSSES + 1} times in a row without finishing an epoch"


class Attempts:
    """The notes of one driver's workers (``driver``: any unique text), in the members' folders."""

    def __init__(self, driver: str) -> None:
        self._driver = driver

    def begin(self, folder: Path) -> int:
        """Note that the member in ``folder`` begins; the workers in a row that it has cost. Raises ``StorageError``."""
        lost = self.losses(folder)
        write_json(folder / ATTEMPTS, {"driver": self._driver, "begun": lost + 1})
        return lost

    def losses(self, folder: Path) -> int:
        """Workers in a row that the member in ``folder`` has cost; a damaged note counts as none."""
        try:
            note: Attempt | None = read_json(folder / ATTEMPTS, Attempt, needs_seal=True)
        except UserError:
            return 0
        return note["begun"] if note and note["driver"] == self._driver else 0

    def followed(self, folders: Sequence[Path], events: Iterator[Event]) -> Iterator[Event]:
        """``events`` of the members in ``folders``; each event, and the end, shows that these have progressed."""
        for event in events:
            self.forget(folders)
            yield event
        self.forget(folders)

    def forget(self, folders: Sequence[Path]) -> None:
        """The members in ``folders`` have progressed, or have ended."""
        for folder in folders:
            (folder / ATTEMPTS).unlink(missing_ok=True)

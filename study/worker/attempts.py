"""How often a member was begun and never heard of again: the one that kills its worker is told from its neighbours.

A worker notes in the member's folder that it begins, and takes the note away once an epoch or the member is done. A note
that is still there was left by a worker that died. Notes of another driver do not count: its end takes its workers along.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from study.atomic import write_text
from study.results.files import ATTEMPTS

# How often a member is begun again after its worker was lost, with no epoch finished in between.
MAX_LOSSES = 3
Event = TypeVar("Event")
REASON = f"its worker was lost {MAX_LOSSES + 1} times in a row without finishing an epoch"


class Attempts:
    """The notes of one driver's workers (``driver``: any text of its own), in members' folders."""

    def __init__(self, driver: str) -> None:
        self._driver = driver

    def begin(self, folder: Path) -> int:
        """Note that the member in ``folder`` begins; how many workers in a row it has cost. Raises ``StorageError``."""
        lost = self.losses(folder)
        write_text(_note(folder), json.dumps({"driver": self._driver, "begun": lost + 1}))
        return lost

    def losses(self, folder: Path) -> int:
        """Workers in a row that the member in ``folder`` has cost; a note that is no whole one counts as none."""
        try:
            note = json.loads(_note(folder).read_text())
            return int(note["begun"]) if note["driver"] == self._driver else 0
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return 0

    def followed(self, folders: Sequence[Path], events: Iterator[Event]) -> Iterator[Event]:
        """``events`` of the members in ``folders``, which have come on with each of them, and at the end of all."""
        for event in events:
            self.forget(folders)
            yield event
        self.forget(folders)

    def forget(self, folders: Sequence[Path]) -> None:
        """The members in ``folders`` have come on, or have ended."""
        for folder in folders:
            _note(folder).unlink(missing_ok=True)


def _note(folder: Path) -> Path:
    return folder / ATTEMPTS

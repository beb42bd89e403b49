"""What an executor is fed with: the agenda's groups, one by one; and what it gives back: records, written to the ledger.

An executor is a function of a ``Feed`` that returns when nothing more is to be run. There are two: actors of Ray Tune
(``study.cluster.tune``) and this process (``study.driver.here``). The process that holds the feed alone writes the ledger.
"""

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from study.config import Task
from study.planning.agenda import Agenda
from study.results.ledger import Ledger
from study.schema import Record
from study.training import Progress
from study.worker.group import discard_outcome

Listener = Callable[[Record | Progress], None]


class Feed:
    """One run of a study. ``storage``: its folder. ``listen`` gets progress, and each record that is new to the ledger.

    ``enough`` says when no further group is to begin; ``tell`` prints a line.
    """

    def __init__(
        self,
        agenda: Agenda,
        ledger: Ledger,
        storage: Path,
        listen: Listener,
        *,
        enough: Callable[[], bool] = lambda: False,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.agenda, self.storage, self.listen = agenda, storage, listen
        # tells this run's workers from those of a run before
        self.driver = uuid.uuid4().hex
        self._ledger, self._enough, self._tell = ledger, enough, tell
        self._began = time.monotonic()
        self._draining = False
        self._running: list[list[Task]] = []
        # members whose records were taken, of groups that have not ended
        self._taken: set[str] = set()
        self._num_finished = 0

    def next_group(self) -> list[Task] | None:
        """The next group to run; ``None`` where none is ready, because of those at work or because it is ``over``."""
        self._draining = self._draining or self._enough()
        tasks = None if self._draining else self.agenda.next_group()
        if tasks is not None:
            self._running.append(tasks)
        return tasks

    @property
    def over(self) -> bool:
        """Whether no further group will be handed out."""
        return self._draining or self.agenda.done

    def append(self, records: Sequence[Record]) -> bool:
        """Write records through to disk, leaving out those held already; whether there was a new one. Raises ``UserError``."""
        new = [record for record in records if self._ledger.append(record)]
        for record in new:
            self.listen(record)
        self._taken |= {record["trial_key"] for record in records}
        self._num_finished += len({record["trial_key"] for record in new})
        return bool(new)

    def ended(self, tasks: list[Task]) -> None:
        """A group has ended, or was given up: then what is unfinished of it is ahead again.

        Hand-over files stay until then: a worker that goes on with a lost one's group needs them.
        """
        self._running.remove(tasks)
        for key in self._taken & {task.config.trial_key for task in tasks}:
            self._taken.discard(key)
            discard_outcome(self.storage, key)
        self.agenda.group_ended(tasks)

    def drain(self) -> None:
        """Hand out no more groups; the ones that were started are finished, which is told at once."""
        self._draining = True
        num, left = len(self._running), sum(map(self._num_left, self._running))
        finished = self._num_finished
        about = f" (about {(time.monotonic() - self._began) / finished * left:.0f} s)" if finished else ""
        line = f"finishing {num} group{'s'[: num != 1]}{about}; Ctrl-C again stops now"
        # by a thread: this is called in the midst of whatever was being printed
        threading.Thread(target=self._tell, args=(line,), daemon=True).start()

    def _num_left(self, tasks: Sequence[Task]) -> int:
        return len({task.config.trial_key for task in tasks} - self._taken)

"""A Tune trial: one group of replicates, in an actor that is reused for the next group."""

import json
import time
from pathlib import Path
from typing import Any

from ray import tune

from study.cluster.code import take_up
from study.config import Task
from study.errors import StorageError, UserError
from study.schema import Record
from study.training import Progress
from study.worker.ahead import device_of
from study.worker.group import run_group


class Group(tune.Trainable):
    """Runs the tasks of its configuration, and reports records and progress as text."""

    def setup(self, config: dict[str, Any]) -> None:
        """Start on a group."""
        self._fault = ""
        try:
            take_up(config["surroundings"])
        except UserError as error:
            self._fault = f"workers are lost before they begin: {error}"
            return
        tasks = [Task.from_plain(json.loads(task)) for task in config["tasks"]]
        given = {name: config[name] for name in ("threads", "driver")} | {"plugins": config["surroundings"]["plugins"]}
        self._report_seconds = config["report_seconds"]
        self._events = run_group(tasks, Path(config["storage"]), device=device_of(config["gpus"]), **given)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start on the next group in the same process."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Run on for a moment; report the records finished in it."""
        if self._fault:
            return {"fault": self._fault, "done": True}
        records: list[Record] = []
        progress: list[int | float] = []
        until = time.monotonic() + self._report_seconds
        done = False
        while time.monotonic() < until and not done:
            try:
                event = next(self._events, None)
            except StorageError as error:
                # told instead of raised, because it is no fault of the group: Tune would start the group again
                return {"fault": str(error), "done": True}
            if event is None:
                done = True
            elif isinstance(event, Progress):
                progress = [event.epoch, event.epochs, event.val_loss]
            else:
                records += event
        # as text, so that Tune neither flattens nor inspects it
        return {"records": json.dumps(records), "progress": json.dumps(progress), "done": done}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: replicates write their own checkpoints."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: replicates find their own checkpoints."""

"""https://docs.ray.io/en/latest/tune/api/schedulers.html: which group a worker that falls free takes next.

Tune's own order gives it the oldest group that is not at work, also one for which a worker is just starting, and stops that
one. Where groups are shorter than a start, as on a host that has just come and reads torch from a cold disk, no worker there
would ever come up.
"""

from typing import TYPE_CHECKING, Any

from ray.tune.experiment import Trial
from ray.tune.schedulers.trial_scheduler import FIFOScheduler

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController


class LeaveStarting(FIFOScheduler):  # type: ignore[misc]
    """First in, first out, but a group whose worker is starting is left to that worker."""

    def __init__(self) -> None:
        super().__init__()
        # by age; those that have ended are taken out, so that a long study is no slower
        self._groups: dict[str, Trial] = {}

    def on_trial_add(self, tune_controller: "TuneController", trial: Trial) -> None:
        """A group has come."""
        self._groups[trial.trial_id] = trial

    def on_trial_complete(self, tune_controller: "TuneController", trial: Trial, result: dict[str, Any]) -> None:
        """A group has ended."""
        self._groups.pop(trial.trial_id, None)

    def on_trial_error(self, tune_controller: "TuneController", trial: Trial) -> None:
        """Tune has given a group up."""
        self._groups.pop(trial.trial_id, None)

    def on_trial_remove(self, tune_controller: "TuneController", trial: Trial) -> None:
        """A group was taken back."""
        self._groups.pop(trial.trial_id, None)

    def choose_trial_to_run(self, tune_controller: "TuneController") -> Trial | None:
        """The oldest group that waits for a place; where Tune's parts have other names, the oldest that is not at work."""
        controller: Any = tune_controller
        try:
            placeless = set(controller._actor_manager.pending_actors)
            actors = controller._trial_to_actor
        except AttributeError:
            return super().choose_trial_to_run(tune_controller)
        for trial in self._groups.values():
            if trial.status == Trial.PENDING and (trial not in actors or actors[trial] in placeless):
                return trial
        return None

"""What runs a study's groups, and what comes with it: Ray Tune and MLflow's view, or this process alone."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from search_spaces import Spec
from study.commands.start import RunOptions, connected_to_ray
from study.config import Execution
from study.driver.feed import Feed
from study.driver.here import asking_here, run_here
from study.errors import UserError
from study.planning.layout import Plan
from study.plugins import registered_by
from study.registry import MAIN
from study.resources.sharing import sharing_gpus, whole_gpu
from study.resources.timing import Ask, asking
from study.results.ledger import Contents
from study.tracking.view import LaterView, MlflowView, Warn

Tell = Callable[[str], None]
Connection = contextlib.AbstractContextManager[Any]


class Executor(Protocol):
    """Where groups run."""

    def asking(self, spec: Spec, tell: Tell) -> contextlib.AbstractContextManager[Ask | None]:
        """A caller that runs functions on a device like those of the groups (``study.resources.timing.asking``)."""

    def sharing(self, plan: Plan, root: Path, ways: Mapping[str, Execution], ask: Ask | None) -> tuple[Plan, str]:
        """``plan`` with the share of a GPU that each group has, and a line about it (``study.resources.sharing``)."""

    def view(self, spec: Spec, root: Path, contents: Contents, uri: str, warn: Warn) -> MlflowView | LaterView:
        """What follows the run."""

    def run(self, feed: Feed) -> None:
        """Run what ``feed`` hands out."""


class InProcess:
    """This process, one group after another. Neither Ray nor MLflow is imported."""

    def asking(self, spec: Spec, tell: Tell) -> contextlib.AbstractContextManager[Ask | None]:
        """On this process's device."""
        return contextlib.nullcontext(asking_here(spec.resources))

    def sharing(self, plan: Plan, root: Path, ways: Mapping[str, Execution], ask: Ask | None) -> tuple[Plan, str]:
        """None."""
        return whole_gpu(plan)

    def view(self, spec: Spec, root: Path, contents: Contents, uri: str, warn: Warn) -> LaterView:
        """A later replay."""
        return LaterView()

    def run(self, feed: Feed) -> None:
        """One after another."""
        run_here(feed)


class OnRay:
    """Actors of Ray Tune. ``connection``: to Ray, where there is one already; else it is made when it is needed."""

    def __init__(self, options: RunOptions, connection: Connection | None) -> None:
        self._options, self._connection = options, connection

    def asking(self, spec: Spec, tell: Tell) -> contextlib.AbstractContextManager[Ask | None]:
        """On this machine's device, or on a GPU of the cluster."""
        return asking(spec, self._options.address, tell)

    def sharing(self, plan: Plan, root: Path, ways: Mapping[str, Execution], ask: Ask | None) -> tuple[Plan, str]:
        """As many on a GPU as its memory holds."""
        return sharing_gpus(plan, root, ways, ask)

    def view(self, spec: Spec, root: Path, contents: Contents, uri: str, warn: Warn) -> MlflowView:
        """A thread that writes to the store."""
        return MlflowView(spec, root, contents, uri, warn)

    def run(self, feed: Feed) -> None:
        """As many at once as the cluster holds. Raises ``UserError`` where workers would lack a level."""
        if own := registered_by(MAIN):
            raise UserError(
                f"{', '.join(own)}: registered by this notebook or script, which workers do not have: put it into a "
                "module and name that under plugins, or run in this process"
            )
        connection = self._connection or connected_to_ray(self._options)
        # here, because it takes seconds, and a finished study needs none of it
        from study.cluster.tune import run_on_ray

        run_on_ray(feed, connection=connection)

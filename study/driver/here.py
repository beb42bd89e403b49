"""Runs a study in this process, one group after another: for a notebook, a debugger, a machine without Ray."""

import os
from collections.abc import Callable
from typing import Any

import torch

from search_spaces import Resources
from study.driver.feed import Feed
from study.driver.notice import draining
from study.errors import UserError
from study.training import Progress
from study.worker.ahead import DEVICE_VARIABLE, backend_kept, device_of
from study.worker.group import run_group


def run_here(feed: Feed) -> None:
    """Run what ``feed`` hands out. What this process has set of torch is as before on leaving. Raises ``UserError``."""
    spec = feed.agenda.plan.spec
    check_gpus(spec.resources)
    device, storage = device_of(spec.resources.gpus), feed.storage.resolve()
    given: dict[str, Any] = {"threads": spec.resources.threads, "plugins": feed.agenda.plan.code, "driver": feed.driver}
    with draining(feed.drain), backend_kept():
        while (tasks := feed.next_group()) is not None:
            for event in run_group(tasks, storage, device=device, **given):
                if isinstance(event, Progress):
                    feed.listen(event)
                else:
                    feed.append(event)
            feed.ended(tasks)


def asking_here(resources: Resources) -> Callable[..., Any] | None:
    """As ``study.resources.timing.asking``: a caller that runs functions on the device of ``run_here``."""

    def ask(function: Callable[..., Any], *arguments: Any) -> Any:
        check_gpus(resources)
        return function(*arguments)

    return None if resources.gpus and os.environ.get(DEVICE_VARIABLE) else ask


def check_gpus(resources: Resources) -> None:
    """Raise ``UserError`` where a group needs more GPUs than this process sees."""
    there = torch.cuda.device_count()
    # logical GPUs, by which placement is tried, have no device
    if resources.gpus > there and not os.environ.get(DEVICE_VARIABLE):
        raise UserError(
            f"resources.gpus = {resources.gpus:g} but torch sees {there} here: lower it (0 trains on the CPU), or run "
            "where there are more"
        )

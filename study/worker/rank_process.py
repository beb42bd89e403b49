"""One of the processes that train a replicate together (``python -m study.worker.rank_process``).

It reads its task as a line of JSON from standard input, and reports by lines of JSON on standard output; what libraries print
goes to standard error. Its input stays open: when it closes, the parent process is gone, and this one ends at once.
"""

import datetime
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from study.config import Task
from study.errors import UserError
from study.plugins import load_plugins
from study.training import Progress, train
from study.training.process_group import Ranks, RanksLost
from study.worker.ahead import member_of, set_backend

# The others wait while the first rank evaluates and measures. A lost rank is noticed sooner, by other means.
_PATIENCE = datetime.timedelta(days=7)


def main() -> None:
    """Train to the end; never returns, so a broken process group is not waited for at exit."""
    with os.fdopen(os.dup(1), "w", buffering=1) as reports:
        os.dup2(2, 1)
        given = json.loads(_line())
        # Ctrl-C in a terminal reaches all processes; the driver decides whether training continues
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        for report in _reports(given):
            print(json.dumps(report), file=reports)
    os._exit(0)


def _reports(given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """``progress`` after each epoch; at last ``done``, ``lost`` (another rank is gone) or ``fault`` (this rank's)."""
    try:
        for progress in _train(given):
            yield {"progress": [progress.epoch, progress.epochs, progress.val_loss]}
        yield {"done": True}
    except RanksLost as error:
        yield {"lost": str(error)}
    except UserError as error:
        yield {"fault": str(error)}
    except Exception:  # noqa: BLE001  whatever training raises is reported
        yield {"fault": traceback.format_exc(limit=-3).strip()}


def _train(given: dict[str, Any]) -> Iterator[Progress]:
    set_backend(given["threads"])
    sys.path[:] = given["path"]
    load_plugins(given["plugins"])
    ranks, device = Ranks(given["rank"], given["size"]), torch.device(given["device"])
    if device.type == "cuda":
        device = torch.device("cuda", ranks.rank)
        torch.cuda.set_device(device)
    try:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=Path(given["meeting"]).as_uri(),
            rank=ranks.rank,
            world_size=ranks.size,
            timeout=_PATIENCE,
        )
    except RuntimeError as error:
        raise RanksLost(f"rank {ranks.rank} did not meet the others: {error}") from error
    # the first rank reads the checkpoint before the others: a damaged file is renamed once
    if ranks.rank:
        ranks.as_first(0, device)
    task = Task.from_plain(given["task"])
    member = member_of(task, Path(given["folder"]), device)
    if ranks.rank == 0:
        ranks.as_first(0, device)
    yield from train(member, ranks)


# Input is read without Python's buffer: a forked data loader would wait for ever for the buffer's lock, which a reading thread
# holds.


def _line() -> bytes:
    read = b""
    while not read.endswith(b"\n") and (more := os.read(0, 2**16)):
        read += more
    return read


def _end_with_parent() -> None:
    while os.read(0, 2**16):
        pass
    # with the processes that load its data
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()

"""MLflow's own server on a study's store, behind ``study.tracking.guard``, for as long as someone reads it."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from study.errors import UserError
from study.tracking.guard import ROOT_VARIABLE, TOKEN_VARIABLE
from study.tracking.sqlite import without_strays
from study.tracking.store import without_credentials

START_SECONDS = 90.0
# the entry point mlflow.app that pyproject.toml declares
APP = "fmm-study"


@contextlib.contextmanager
def serving(
    uri: str, files: Path, token: str, *, host: str = "127.0.0.1", port: int = 0
) -> Iterator[Callable[[], str]]:
    """What gives the address of a server on ``uri``, once it answers: a running one's own (without credentials), or one
    started for the block.

    One that is started answers to ``token`` alone, writes nothing, and gives no files but those under ``files``.
    ``port`` 0 takes a free one. Raises ``UserError`` when the port is taken; what is yielded does so when the
    server does not come up.
    """
    if uri.startswith(("http://", "https://")):
        yield lambda: without_credentials(uri)
        return
    port = _free_port(host, port)
    base = f"http://{host}:{port}"
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--host", host, "--workers", "1", "--app-name", APP]
    # uvicorn would import from the working folder first: it is given one that is searched anyway
    command += ["--uvicorn-opts", shlex.join(["--app-dir", sysconfig.get_path("stdlib")])]
    # store and token by variables: all users of a machine can see arguments, with whatever password the address holds;
    # a process group of its own: uvicorn's workers outlive a server that is merely killed
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        env=os.environ
        | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_BACKEND_STORE_URI": uri}
        # processes for jobs, of which one who only reads has none
        | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        | {TOKEN_VARIABLE: token, ROOT_VARIABLE: str(files)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield lambda: _answering(base, process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        without_strays(uri)


def _free_port(host: str, port: int) -> int:
    try:
        with socket.create_server((host, port)) as probe:
            return int(probe.getsockname()[1])
    except OSError as error:
        raise UserError(f"{host}:{port}: {error.strerror or error}; choose another with --port") from None


def _answering(base: str, process: subprocess.Popen[bytes]) -> str:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise UserError(f"the MLflow server at {base} ended with status {process.returncode} as it started")
        with contextlib.suppress(OSError, urllib.error.URLError), urllib.request.urlopen(f"{base}/health", timeout=5):
            return base
        time.sleep(0.2)
    raise UserError(f"the MLflow server at {base} did not answer within {START_SECONDS:.0f} s")

"""The command line, called in the test's own process: a process of its own takes seconds to import torch."""

import contextlib
import dataclasses
import io
import sys
from unittest import mock

from study.cli import main


@dataclasses.dataclass(frozen=True)
class Done:
    """What a process would have left."""

    returncode: int
    stdout: str
    stderr: str


def fmm_study(*arguments: str) -> Done:
    """``fmm-study ARGUMENTS``; raises what would have been a traceback."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        mock.patch.object(sys, "argv", ["fmm-study", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return Done(code, out.getvalue(), err.getvalue())

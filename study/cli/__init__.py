"""The command line: it parses, calls and prints. Heavy imports stay inside commands so that --help is quick.

A command is a function under ``@app.command()`` in ``study/cli/commands.py``.
"""

import errno
import sys
from typing import NoReturn

from study.cli.commands import app

__all__ = ["app", "main"]


def main() -> None:
    """Entry point: a fault that the user can mend is one line on stderr and exit status 2."""
    try:
        app()
    except OSError as error:
        # wherever it came up: in tables, figures, the report, a library's own files
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        from study.errors import StorageError

        _give_up(StorageError(error.filename or "a file", error))
    except ValueError as error:
        from search_spaces import SpecError
        from study.errors import UserError

        if not isinstance(error, (UserError, SpecError)):
            raise
        _give_up(error)


def _give_up(error: ValueError) -> NoReturn:
    sys.stderr.write(f"fmm-study: {error}\n")
    sys.exit(2)

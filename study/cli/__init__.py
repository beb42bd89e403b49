"""The command line: it parses, calls and prints. Heavy imports stay inside commands so that --help is quick.

A command is a function under ``@app.command()`` in ``commands.py``, or in ``tools.py`` where it needs no study.
"""

import contextlib
import errno
import io
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

INTERRUPTED = 130
# of the line that says what is wrong
_MOST_CHARACTERS = 2_000


def main() -> None:
    """Entry point: a fault that the user can mend is one line on stderr and exit status 2; Ctrl-C is one and 130."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # a character that the terminal's encoding lacks is printed by its number
                stream.reconfigure(errors="backslashreplace")
        with _working_folder_off_the_path():
            # here, because it takes a moment, in which Ctrl-C may come
            from study.cli import commands, init, tools  # noqa: F401  in the order of --help
            from study.cli.commands import app

            app(prog_name="fmm-study")
    except KeyboardInterrupt:
        _give_up("interrupted", INTERRUPTED)
    except SystemExit as ended:
        # typer ends without a word
        if ended.code == INTERRUPTED and _came_from_the_keyboard(ended):
            _give_up("interrupted", INTERRUPTED)
        raise
    except OSError as error:
        # wherever it came up: in tables, figures, the report, a library's own files
        from study.errors import StorageError, UserError

        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            _give_up(StorageError(error.filename or "a file", error))
        if error.filename is None or error.errno is None:
            raise
        _give_up(UserError(f"{str(error.filename)[:200]}: {error.strerror}"))
    except ValueError as error:
        from search_spaces import SpecError
        from study.errors import UserError

        if not isinstance(error, (UserError, SpecError)):
            raise
        _give_up(error)


@contextlib.contextmanager
def _working_folder_off_the_path() -> Iterator[None]:
    """Import nothing from the folder the command is run in, here and in every process that is started meanwhile.

    It may hold anything: another checkout, a results folder, a ``yaml.py``. Python itself looks there for ``python -c`` and
    ``-m`` (unless ``PYTHONSAFEPATH`` is set), and where ``PYTHONPATH`` has an empty or relative part. Plug-ins that the user
    has agreed to are sought there by ``study.plugins`` alone.
    """
    here = os.getcwd()  # noqa: PTH109  Path.cwd() is the same
    held = {name: os.environ.get(name) for name in ("PYTHONSAFEPATH", "PYTHONPATH")}
    named = [part for part in (held["PYTHONPATH"] or "").split(os.pathsep) if Path(part).is_absolute()]
    os.environ["PYTHONSAFEPATH"] = "1"
    if held["PYTHONPATH"] is not None:
        os.environ["PYTHONPATH"] = os.pathsep.join(named)
    before = sys.path[:]
    # the folder of the command itself holds programs, not modules; Ray would hand it on to workers
    left_out = {here, sysconfig.get_path("scripts")} - set(named)
    sys.path[:] = [part for part in sys.path if part and part not in left_out]
    try:
        yield
    finally:
        sys.path[:] = before
        for name, value in held.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _came_from_the_keyboard(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False


def _give_up(error: ValueError | str, status: int = 2) -> NoReturn:
    from study.errors import printable

    # one line, whatever a name in it holds
    text = printable(" ".join(str(error).splitlines()))
    sys.stderr.write(f"fmm-study: {text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + '...'}\n")
    sys.exit(status)

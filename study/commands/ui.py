"""``ui``: MLflow's interface on a study, its view brought up to the ledger.

The server takes seconds of a core to start, so it is started first, before what works out a study is imported. A view that
was written to its end is shown as soon as the server answers, and compared with the ledger only then.
"""

import contextlib
import secrets
import signal
import threading
import time
import webbrowser
from typing import TYPE_CHECKING

from rich.console import Console

from search_spaces import Spec
from study.errors import UserError
from study.printing.console import open_console, say
from study.results.workspace import Workspace
from study.tracking.pages import Shown, addresses
from study.tracking.server import serving
from study.tracking.sqlite import ARTIFACTS, is_missing
from study.tracking.store import masked, tracking_uri

if TYPE_CHECKING:
    from study.commands.show import Recorded

_PROGRESS_SECONDS = 5.0


def ui(spec: Spec, workspace: Workspace, *, tracking: str | None, host: str, port: int, browse: bool) -> None:
    """Serve the MLflow view of a study, brought up to the ledger, until Ctrl-C. Raises ``UserError``."""
    console = open_console()
    uri = tracking_uri(tracking, workspace.root.parent)
    token = "" if uri.startswith("http") else secrets.token_urlsafe()
    server = serving(uri, workspace.root.parent / ARTIFACTS, token, host=host, port=port)
    with contextlib.ExitStack() as stack:
        is_new = is_missing(uri)
        answering = None if is_new else stack.enter_context(server)
        from study.commands.show import in_folder
        from study.tracking.view import find_view

        held = in_folder(workspace, spec)
        shown = None if is_new else find_view(spec, held.contents, uri)
        # a driver at work keeps the view itself
        followed = workspace.holder() is not None and shown is not None
        early = shown is not None and (shown.is_whole or followed)
        if shown is None or not early:
            shown = _bring_up(held, workspace, uri, console)
        if answering is None:
            answering = stack.enter_context(server)
        _show(addresses(answering(), shown, token), workspace, console, browse=browse)
        # Ctrl-C is how it ends, whatever it is at
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            if early and not followed:
                _check(held, workspace, uri, console)
            _wait()


def _wait() -> None:
    threading.Event().wait()


def _show(pages: dict[str, str], workspace: Workspace, console: Console, *, browse: bool) -> None:
    for what, where in pages.items():
        say(console, f"{what}: {where}")
    export = f"fmm-study export {workspace.argument} --optuna sqlite:///optuna.db"
    say(console, f"searches, for optuna-dashboard: {export}")
    say(console, "Ctrl-C ends the server")
    if browse:
        webbrowser.open(next(iter(pages.values())))


def _check(held: "Recorded", workspace: Workspace, uri: str, console: Console) -> None:
    """Bring a view that is shown already up to the ledger: most often nothing is lacking."""
    try:
        _bring_up(held, workspace, uri, console)
    except UserError as error:
        say(console, f"warning: {error}")
    else:
        say(console, "the view holds what the ledger holds; a page opened before may be loaded again")


def _bring_up(held: "Recorded", workspace: Workspace, uri: str, console: Console) -> Shown:
    """Write what the view at ``uri`` lacks. Raises ``UserError``."""
    from study.commands.recorded import recorded_plan
    from study.commands.show import agenda_of
    from study.tracking.summaries import summarise
    from study.tracking.view import replay

    last: float | None = None

    def progress(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if last is None:
            last = now
        elif now - last > _PROGRESS_SECONDS:
            last = now
            say(console, f"{done:,} of {total:,} replicates are in the view")

    contents = held.contents
    say(console, f"comparing the view at {masked(uri)} with {len(contents.replicates):,} replicates in the ledger")
    plan = recorded_plan(held.spec, workspace, contents, levels=True)
    with workspace.locked():
        summary = summarise(held.inputs)
        done = agenda_of(plan, contents, workspace).done
        return replay(held.spec, workspace.root, contents, uri, summary, done=done, progress=progress)

"""What stands before MLflow's server in ``fmm-study ui``: one user, who only reads, and only files of the studies' own.

MLflow's server does not ask who sends a request. So any account of the machine could read and write its owner's files through
it: an experiment whose artifacts lie anywhere, then ``get-artifact`` and ``upload-artifact``. Here a request needs the token
that the command printed, changes nothing, and gets files from the studies' folder alone. MLflow's server runs this by the
entry point ``mlflow.app`` (``--app-name fmm-study``).
"""

import hashlib
import hmac
import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN_VARIABLE = "FMM_STUDY_UI_TOKEN"
ROOT_VARIABLE = "FMM_STUDY_UI_ROOT"

# MLflow's interface opens an experiment on its runs only for who once chose "Model training", and then keeps the choice here;
# it also opens an assistant, which needs what this server refuses. The fragment, which names the page, is kept; the token is
# not, for it would stay in the browser's history.
_WELCOME = """<!DOCTYPE html><title>fmm-study</title><script>
localStorage.setItem("mlflow.workflowType_v1", JSON.stringify("machine_learning"));
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", JSON.stringify(true));
location.replace("/" + location.hash);
</script>"""

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]

_API = r"/(?:ajax-)?api/\d\.0/mlflow"
# The interface's pages, what it reads, and the searches that it sends as POST. All else is refused, by name unknown or not.
_READS = re.compile(
    rf"/|/static-files/.*|/version|/server-info|/get-artifact"
    rf"|{_API}/(?:experiments|runs|metrics|artifacts|registered-models|model-versions|logged-models|traces|ui-telemetry"
    r"|server-info|scorers|assessments|datasets|webhooks|workspaces|server-features)(?:/.*)?"
)
_POSTED_READS = re.compile(
    rf"/graphql|{_API}/(?:runs/search|experiments/search|experiments/search-datasets|logged-models/search|traces/search|traces/metrics"
    r"|registered-models/search|model-versions/search)"
)
# Pages with charts ask for models to talk to, and show a fault where they are refused: there are none.
_GATEWAY = re.compile(rf"{_API}/gateway-proxy")
# What gives or lists files of a run: by its id, which says where they lie.
_FILES = re.compile(rf"/get-artifact|{_API}/artifacts/list")
# What gives files by other ways than a run's.
_OTHER_FILES = re.compile(rf"/model-versions/get-artifact|{_API}/.*artifact.*")


class Guard:
    """An ASGI application that passes to ``app`` what the token's owner may read. ``/health`` answers everybody.

    ``is_own`` says of a run's id whether its files lie where a study puts them. Raises ``ValueError`` for an empty token.
    """

    def __init__(self, app: _App, token: str, is_own: Callable[[str], bool]) -> None:
        if not token:
            raise ValueError(f"{TOKEN_VARIABLE} is empty: this application is started by fmm-study ui")
        self._app, self._token, self._is_own = app, token, is_own
        # cookies are shared by all ports of a host
        self._cookie = f"fmm-study-{hashlib.sha256(token.encode()).hexdigest()[:8]}"

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] == "lifespan" or scope.get("path") == "/health":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        else:
            refused = self._refused(scope)
            if refused is None:
                await self._app(scope, receive, send)
            else:
                await _answer(send, *refused)

    def _refused(self, scope: _Message) -> tuple[int, str, list[tuple[bytes, bytes]]] | None:
        """Status, text and headers of an answer that ends here."""
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        given = query.get("token", [""])[0]
        if self._is_token(given):
            cookie = f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/"
            return 200, _WELCOME, [(b"content-type", b"text/html; charset=utf-8"), (b"set-cookie", cookie.encode())]
        if not self._is_token(_cookie(scope, self._cookie)):
            return 403, "Open the address that fmm-study ui printed: it holds the token.", []
        path, method = unquote(scope["path"]), scope["method"]
        if method == "GET" and _GATEWAY.fullmatch(path):
            return 200, '{"endpoints": []}', [(b"content-type", b"application/json")]
        reads = _READS if method in ("GET", "HEAD") else _POSTED_READS if method == "POST" else None
        if reads is None or not reads.fullmatch(path):
            return 403, f"{method} {path}: fmm-study ui serves for reading only.", []
        if _FILES.fullmatch(path):
            # all that are named: which of several MLflow takes is its own affair
            runs = [*query.get("run_id", []), *query.get("run_uuid", [])]
            if not runs or not all(map(self._is_own, runs)):
                return 403, "The files of this run lie outside the studies' folder.", []
        elif _OTHER_FILES.fullmatch(path):
            return 403, f"{path}: fmm-study ui gives files of runs alone.", []
        return None

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())


def inside(root: Path, uri: str) -> bool:
    """Whether ``uri`` is a folder within ``root``, links followed."""
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost"):
        return False
    return Path(unquote(parts.path)).resolve().is_relative_to(root.resolve())


def _cookie(scope: _Message, name: str) -> str:
    lines = b"; ".join(value for key, value in scope.get("headers", []) if key == b"cookie")
    try:
        found = SimpleCookie(lines.decode("latin-1")).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


async def _answer(send: _Send, status: int, text: str, headers: list[tuple[bytes, bytes]]) -> None:
    kinds = {b"content-type": b"text/plain; charset=utf-8"} | dict(headers)
    await send({"type": "http.response.start", "status": status, "headers": list(kinds.items())})
    await send({"type": "http.response.body", "body": text.encode()})


def served() -> Guard:
    """The application that MLflow's server runs: token and root from the environment, runs from the server's own store."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.server.fastapi_app import app

    root = Path(os.environ[ROOT_VARIABLE])
    client = MlflowClient(os.environ["MLFLOW_BACKEND_STORE_URI"])

    def is_own(run: str) -> bool:
        try:
            return inside(root, client.get_run(run).info.artifact_uri)
        except MlflowException:
            return False

    return Guard(app, os.environ.get(TOKEN_VARIABLE, ""), is_own)

"""The MLflow view beside a real server: away from the start, killed in the middle, back again; and its pages."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from mlflow import MlflowClient
from read_back import texts, written

from analysis.tables.build import build_tables
from study.commands.show import in_folder, in_store
from study.errors import UserError
from study.results.ledger import Contents, read_ledger
from study.results.workspace import Workspace
from study.tracking.pages import addresses
from study.tracking.server import serving
from study.tracking.store import tracking_uri
from study.tracking.summaries import Summary
from study.tracking.view import MlflowView, replay

Records = Callable[[int], list[Any]]


@pytest.fixture
def records(config_of: Any, record_of: Any) -> Records:
    return lambda num: [
        record_of(config_of(seed=seed), cell="fake/d8/add", phase="confirm", block=seed, replicate=seed)
        for seed in range(num)
    ]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


class Server:
    """``mlflow server`` on one store and port, to be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.port, self.folder = free_port(), folder
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        store, files = tracking_uri(None, self.folder), str(self.folder / "served")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--artifacts-destination", files,
             "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"],
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            cwd=self.folder, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return
            except OSError:
                time.sleep(0.2)
        raise AssertionError("the server did not start")

    def kill(self) -> None:
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.kill()


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def states(uri: str, study: str) -> dict[str, str]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study)
    found = client.search_runs([experiment.experiment_id])
    named = {run.info.run_name: run.info.status for run in found}
    assert len(named) == len(found)
    return named


def test_server_killed_for_a_part_of_the_study(
    server: Server, tmp_path: Path, spec_of: Any, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.tracking.view.LONGEST_PAUSE", 1.0)
    monkeypatch.setattr("study.tracking.view.BEGIN_SECONDS", 0.1)
    said: list[str] = []
    server.start()
    made = records(12)
    first = Contents(replicates={record["trial_key"]: record for record in made[:5]})
    with MlflowView(spec_of(), tmp_path / "small", first, server.uri, said.append) as view:
        wait_for(lambda: server_holds(server, 3))
        # in the middle of writing
        server.kill()
        wait_for(lambda: len(said) == 1)
        for record in made[5:9]:
            view.tell(record)
        time.sleep(1.5)
        assert len(said) == 1 and "the study goes on" in said[0]
        server.start()
        for record in made[9:]:
            view.tell(record)
        assert view.finish(Summary(headlines={"effect/C4": 1.0}), done=True, timeout=60)
    assert len(said) == 2 and "can be written again" in said[1]
    named = states(server.uri, "small")
    assert set(named) == {"small"} | {f"d8/add b{seed} confirm" for seed in range(12)}
    assert set(named.values()) == {"FINISHED"}
    read_back_through(server, tmp_path)


def read_back_through(server: Server, tmp_path: Path) -> None:
    """What a server on another machine gives is the ledger, and its tables are the ledger's, byte for byte."""
    spec, workspace = written(tmp_path, "read-back")
    contents = read_ledger(workspace.ledger)
    replay(spec, workspace.root, contents, server.uri, Summary(), done=True)
    found = in_store(server.uri, spec.name, tmp_path / "another machine")
    assert found.spec == spec and texts(found.contents) == texts(contents)
    made = []
    for held in (found, in_folder(workspace)):
        files = build_tables(held.inputs, Workspace(tmp_path / f"tables{len(made)}").tables)
        made.append({path.name: path.read_bytes() for paths in files.values() for path in paths})
    assert made[0] == made[1] and "claims.tex" in made[0] and b"different" in made[0]["decision_agreement.csv"]


def server_holds(server: Server, num: int) -> bool:
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("small")
    return experiment is not None and len(client.search_runs([experiment.experiment_id])) >= num


def test_ui_serves_the_ready_pages(tmp_path: Path, spec_of: Any, records: Records) -> None:
    uri = tracking_uri(None, tmp_path)
    contents = Contents(replicates={record["trial_key"]: record for record in records(2)})
    shown = replay(spec_of(), tmp_path / "small", contents, uri, Summary(), done=True)
    with serving(uri, tmp_path, "token") as answering:
        base = answering()
        pages = addresses(base, shown, "token")
        query = parse_qs(urlsplit(urlsplit(pages["replicates by cell"]).fragment).query)
        user = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        user.open(pages["replicates by cell"]).close()
        with user.open(f"{base}/ajax-api/2.0/mlflow/experiments/get?experiment_id={shown.experiment_id}") as answer:
            tags = {tag["key"] for tag in json.load(answer)["experiment"]["tags"]}
        assert f"mlflow.sharedViewState.{query['viewStateShareKey'][0]}" in tags
        with (
            pytest.raises(UserError, match="--port"),
            serving(uri, tmp_path, "token", port=int(base.rpartition(":")[2])),
        ):
            pass
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{base}/health", timeout=2)
    with serving("https://ann:s3cret@tracking.example/mlflow", tmp_path, "") as answering:
        assert answering() == "https://tracking.example/mlflow"


def test_unreachable_server(tmp_path: Path, spec_of: Any, records: Records) -> None:
    said: list[str] = []
    uri = f"http://maria:s3cret@127.0.0.1:{free_port()}"
    made = records(3)
    begun = time.monotonic()
    with MlflowView(spec_of(), tmp_path / "small", Contents(), uri, said.append) as view:
        for record in made:
            view.tell(record)
        assert time.monotonic() - begun < 1
        wait_for(lambda: bool(said))
        time.sleep(2)
        assert len(said) == 1 and "Connection refused" in said[0]
        begun = time.monotonic()
        assert not view.finish(Summary(), done=True, timeout=2)
        assert time.monotonic() - begun < 8
    assert len(said) == 2 and "incomplete" in said[1]
    assert not any("s3cret" in line or "maria" in line for line in said)
    contents = Contents(replicates={record["trial_key"]: record for record in made})
    with pytest.raises(UserError, match="Connection refused") as refused:
        replay(spec_of(), tmp_path / "small", contents, uri, Summary(), done=True)
    assert "s3cret" not in str(refused.value)

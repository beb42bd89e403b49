"""``fmm-study ui`` serves one user, for reading, and gives no file but a study's own."""

import http.cookiejar
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from mlflow import MlflowClient

from study.results.ledger import Contents
from study.tracking.guard import inside
from study.tracking.pages import addresses
from study.tracking.server import serving
from study.tracking.store import tracking_uri
from study.tracking.summaries import Summary
from study.tracking.view import ARTIFACTS, replay

TOKEN = "of-this-test"
API = "/api/2.0/mlflow"


def status(opener: urllib.request.OpenerDirector, url: str, body: Any = None, method: str | None = None) -> int:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with opener.open(request, timeout=20) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_server_serves_its_user_for_reading(tmp_path: Path, spec_of: Any, config_of: Any, record_of: Any) -> None:
    uri, spec = tracking_uri(None, tmp_path), spec_of()
    record = record_of(config_of(seed=1), cell="fake/d8/add", phase="confirm")
    shown = replay(
        spec, tmp_path / "small", Contents(replicates={record["trial_key"]: record}), uri, Summary(), done=True
    )
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("of another folder")
    client = MlflowClient(uri)
    planted = client.create_experiment("planted", secret.as_uri())
    theirs = client.create_run(planted).info.run_id
    [own] = [run for run in client.search_runs([shown.experiment_id]) if "mlflow.parentRunId" not in run.data.tags]
    (tmp_path / ARTIFACTS / spec.name / own.info.run_id / "artifacts").mkdir(parents=True, exist_ok=True)
    client.log_text(own.info.run_id, "of the study", "note.txt")

    with serving(uri, tmp_path / ARTIFACTS, TOKEN) as answering:
        base = answering()
        stranger = urllib.request.build_opener()
        assert status(stranger, f"{base}/health") == 200
        for path in (
            "/",
            f"{API}/experiments/search?max_results=1",
            f"/get-artifact?run_id={own.info.run_id}&path=note.txt",
        ):
            assert status(stranger, base + path) == 403, path
        assert status(stranger, f"{base}/?token=guessed") == 403
        assert status(stranger, f"{base}{API}/experiments/create", {"name": "x"}) == 403

        user = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
        page = addresses(base, shown, TOKEN)["confirmed replicates"]
        assert page.startswith(f"{base}/?token={TOKEN}#/experiments/") and status(user, page) == 200
        assert status(user, f"{base}{API}/experiments/search?max_results=1") == 200
        assert status(user, f"{base}{API}/runs/search", {"experiment_ids": [shown.experiment_id]}) == 200
        assert status(user, f"{base}/get-artifact?run_id={own.info.run_id}&path=note.txt") == 200

        # the studied exploit, step by step, even with the token; a path may be written in many ways
        changes = [
            ("experiments/create", {"name": "y", "artifact_location": secret.as_uri()}),
            ("runs/create", {"experiment_id": planted}),
            ("runs/set-tag", {"run_id": own.info.run_id, "key": "a", "value": "b"}),
            ("experiments/set-experiment-tag", {"experiment_id": planted, "key": "a", "value": "b"}),
        ]
        for path, body in changes:
            assert status(user, f"{base}{API}/{path}", body) == 403, path
        upload = f"{base}/ajax-api/2.0/mlflow/upload-artifact?run_uuid={theirs}&path=new"
        assert status(user, upload, {}) == 403
        files = f"run_id={theirs}&path={quote('key')}"
        ways = (
            "/get-artifact",
            "/get%2Dartifact",
            "//get-artifact",
            f"{API}/artifacts/list",
            "/model-versions/get-artifact",
        )
        for way in ways:
            assert status(user, f"{base}{way}?{files}") in (403, 404), way
        both = (
            f"run_uuid={own.info.run_id}&{files}",
            f"{files}&run_id={own.info.run_id}",
            f"run_id={own.info.run_id}&{files}",
        )
        assert {status(user, f"{base}/get-artifact?{query}") for query in both} == {403}
        for method in ("PUT", "DELETE", "PATCH"):
            assert status(user, f"{base}/api/2.0/mlflow-artifacts/artifacts/x", {}, method) == 403
        assert status(user, f"{base}/api/2.0/mlflow-artifacts/artifacts/x") == 403
    assert [path.name for path in secret.iterdir()] == ["key"]
    assert {experiment.name for experiment in client.search_experiments()} == {"Default", "planted", spec.name}


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("file:///data/mlartifacts/small/1/artifacts", True),
        ("/data/mlartifacts/small", True),
        ("file:///data/mlartifacts/../.ssh", False),
        ("file:///data/mlartifacts/%2e%2e/.ssh", False),
        ("file:///data/mlartifacts-of-another", False),
        ("file://elsewhere/data/mlartifacts", False),
        ("s3://bucket/data/mlartifacts", False),
        ("mlflow-artifacts:/data/mlartifacts", False),
        ("", False),
    ],
)
def test_inside(uri: str, expected: bool) -> None:
    assert inside(Path("/data/mlartifacts"), uri) is expected

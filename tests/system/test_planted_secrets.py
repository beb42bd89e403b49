"""Planted secrets reach nothing that is kept or shown."""

import contextlib
import logging
import sys
from pathlib import Path

import pytest
from planted_secret import SECRET, SPEC

from study import cli
from study.commands.executors import InProcess, OnRay
from study.tracking.view import MlflowView


def test_planted_secrets_are_found_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Secrets in the environment and in the tracking address; then every byte that a study leaves or prints is searched."""
    from study.cluster import connection as cluster

    caplog.set_level(logging.INFO)
    for name in (
        "AWS_SECRET_ACCESS_KEY",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "PGPASSWORD",
        "RAY_AUTH_TOKEN",
    ):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setattr(OnRay, "run", InProcess.run)
    # no Ray either: it reads its token once a process, which another test may have done
    monkeypatch.setattr(cluster, "connected", lambda *_: contextlib.nullcontext())
    monkeypatch.chdir(tmp_path)
    Path("planted.yaml").write_text(SPEC)

    def fmm_study(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["fmm-study", *arguments])
        try:
            cli.main()
        except SystemExit as ended:
            assert ended.code in (0, 1, 2)

    nobody = f"http://ann:{SECRET}@127.0.0.1:9/?token={SECRET}"
    with pytest.MonkeyPatch.context() as soon:
        soon.setitem(MlflowView.finish.__kwdefaults__, "timeout", 2.0)
        fmm_study("run", "planted.yaml", "--tracking-uri", nobody)  # a server that does not answer
    fmm_study("run", "planted.yaml")  # and the store of the folder, which the view is replayed into
    fmm_study("audit", "planted.yaml", "--tracking-uri", nobody)
    fmm_study("ui", "planted.yaml", "--no-browse", "--tracking-uri", nobody)
    fmm_study("run", "planted.yaml", "--tracking-uri", f"ann:{SECRET}@nowhere/folder")  # no scheme: refused
    shown = capfd.readouterr()
    held = {str(path): path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    held |= {"stdout": shown.out.encode(), "stderr": shown.err.encode(), "log": caplog.text.encode()}
    assert [line for data in held.values() for line in data.split(b"\n") if SECRET.encode() in line] == []
    # what is searched is what a study leaves: its title is in its specification, ledger or report, and in MLflow's store
    titled = {Path(name).name for name, data in held.items() if b"A title to be found" in data}
    assert {"planted.yaml", "study.json", "report.html", "spec.yaml"} <= titled, titled
    assert any(name.endswith(".jsonl") for name in held) and "results/planted/report.html" in shown.out

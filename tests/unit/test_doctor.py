"""The doctor finds what is wrong and says what to do."""

import http.server
import threading
from importlib import metadata
from pathlib import Path

import pytest

from study.checks import doctor
from study.errors import UserError


def found(name: str, check) -> doctor.Finding:
    return doctor._finding(name, check)


def test_a_missing_and_an_old_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found("packages", doctor._packages).well
    monkeypatch.setattr(metadata, "requires", lambda name: ["no-such-package>=1", "numpy>=2"])
    missing = found("packages", doctor._packages)
    assert not missing.well and "no-such-package is missing" in missing.found
    assert missing.advice == "pip install 'no-such-package>=1'"
    monkeypatch.setattr(metadata, "requires", lambda name: ["numpy>=99"])
    assert ">=99" in found("packages", doctor._packages).found
    monkeypatch.setattr(metadata, "requires", lambda name: ["pytest>=99; extra == 'test'"])
    assert found("packages", doctor._packages).well


def test_a_tracking_server_that_answers_and_one_that_does_not() -> None:
    class Healthy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    uri = f"http://127.0.0.1:{server.server_port}"
    assert found("tracking", lambda: doctor._tracking(uri)).well
    server.shutdown()
    server.server_close()
    gone = found("tracking", lambda: doctor._tracking(uri))
    assert not gone.well and uri in gone.found and "mlflow server" in gone.advice


def test_a_dataset_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found("dataset", lambda: doctor._dataset("digits")).found == "1437 + 360 images 1x8x8, 10 classes"

    def absent(name: str) -> None:
        raise UserError("put the four files into data/")

    monkeypatch.setattr("study.data.load_dataset", absent)
    finding = found("dataset", lambda: doctor._dataset("digits"))
    assert finding.advice == "put the four files into data/"


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert found("results", lambda: doctor._storage(tmp_path / "new" / "folder")).well
    monkeypatch.setattr(doctor, "_LOW_DISK", 2**62)
    assert "GiB free" in found("results", lambda: doctor._storage(tmp_path)).found

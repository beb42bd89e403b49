"""Calm studies: those of the tests that kill and break, as they end where nothing befalls them. One a session."""

from pathlib import Path

import pytest
from driving import FAKE, write_spec
from once import once
from serial import run_serially


def _run(folder: Path, **changes: object) -> None:
    assert run_serially(write_spec(folder / "kill.yaml", **changes), folder, report=False)


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Storage of the study of ``write_spec``, of three blocks: whoever runs fewer compares with ``results(calm, blocks)``."""
    return once(tmp_path_factory, "calm", lambda folder: _run(folder, blocks=3))


@pytest.fixture(scope="session")
def calm_fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Storage of ``write_spec(path, **FAKE)``, of trainings of a tenth of a second."""
    return once(tmp_path_factory, "calm-fake", lambda folder: _run(folder, **FAKE))

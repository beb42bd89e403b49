"""What a shell expects of a command: its version, short help, completion, and ``python -m``."""

import importlib.metadata
import os
import subprocess
import sys

import pytest
from command_line import fmm_study

VERSION = f"fmm-study {importlib.metadata.version('fmm-study')}\n"
# shell -> what its completion asks with, for the words of a command line of which the last is begun
ASKED = {
    "bash": lambda words: {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)},
    "zsh": lambda words: {"_TYPER_COMPLETE_ARGS": words},
    "fish": lambda words: {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}


def test_the_version_and_short_help():
    assert fmm_study("--version").stdout == VERSION
    for command in ((), ("plan",)):
        short, long = fmm_study(*command, "-h"), fmm_study(*command, "--help")
        assert short.returncode == 0 and short.stdout == long.stdout and "Usage" in short.stdout


@pytest.mark.parametrize("package", ["study", "fmm_study"])
def test_python_runs_it_as_a_module(package):
    done = subprocess.run([sys.executable, "-m", package, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, VERSION)


@pytest.mark.parametrize("shell", ASKED)
def test_commands_presets_folders_and_files_are_completed(shell, tmp_path):
    (tmp_path / "digits_of_mine").mkdir()
    for name in ("dim.yaml", "dim.txt"):
        (tmp_path / name).touch()

    def completed(words):
        environ = os.environ | {"_FMM_STUDY_COMPLETE": f"complete_{shell}"} | ASKED[shell](words)
        program = "from study.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )
        return done.stdout

    assert "report" in completed("fmm-study re") and "plan" not in completed("fmm-study re")
    found = completed("fmm-study run di")
    assert all(name in found for name in ("digits", "digits_of_mine/", "dim.yaml"))
    assert "dim.txt" not in found and "dose" not in found


def test_a_shell_is_told_its_script(monkeypatch):
    monkeypatch.setenv("SHELL", "/bin/bash")
    assert "_FMM_STUDY_COMPLETE" in fmm_study("--show-completion", "bash").stdout


@pytest.mark.parametrize("shadow", ["study.py", "analysis/__init__.py", "analysis/notes.txt", "search_spaces.py"])
def test_a_module_that_hides_a_package_is_named_in_one_line(shadow, tmp_path):
    (tmp_path / shadow).parent.mkdir(exist_ok=True)
    (tmp_path / shadow).touch()
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, "-c", "import fmm_study"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    hidden = not shadow.endswith(".txt")  # a folder without __init__.py hides nothing
    name = shadow.partition("/")[0].removesuffix(".py")
    assert done.returncode == int(hidden)
    assert (f"{tmp_path / shadow} hides fmm-study's package '{name}': rename it" in done.stderr) == hidden

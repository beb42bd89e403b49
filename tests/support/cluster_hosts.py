"""A laptop and hosts of our own, as namespaces of this machine (``cluster_hosts.sh``), driven from a test."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import psutil

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("cluster_hosts.sh")
# one user on all machines, who is not root
USER = 1000
PROGRAMS = (
    "chroot",
    "curl",
    "git",
    "ip",
    "mount",
    "nsenter",
    "rsync",
    "ss",
    "ssh",
    "ssh-keygen",
    "unshare",
    "/usr/sbin/sshd",
)
# the hosts have no registry: a new virtual environment begins with the packages and programs of the test's own
PYTHON = """#!/usr/bin/env bash
set -euo pipefail
[ "${{1-}} ${{2-}}" = "-m venv" ] || exec {base} "$@"
{base} -m venv --without-pip "$3"
printf '%s\\n' {packages} > "$(echo "$3"/lib/python*/site-packages)/registry.pth"
for program in {programs}/*; do
  if [ -f "$program" ] && [ "$(head -c 2 "$program")" = '#!' ] && [ ! -e "$3/bin/$(basename "$program")" ]; then
    sed "1s|.*|#!$3/bin/python|" "$program" > "$3/bin/$(basename "$program")"
    chmod +x "$3/bin/$(basename "$program")"
  fi
done
"""
# "false" is pip's way to say that there is none
PIP = "[global]\nno-index = true\nno-build-isolation = false\ndisable-pip-version-check = true\n"


def lacking() -> str:
    """Why there can be no hosts here; empty if they can."""
    if os.geteuid() != 0:
        return "needs root, for namespaces"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"needs {', '.join(absent)} (openssh-server, iproute2, rsync, git, curl)"
    if not all(importlib.util.find_spec(name) for name in ("aiohttp_cors", "grpc", "opencensus")):
        return "needs ray[default], for jobs: pip install -c constraints.txt -e '.[test,cluster]'"
    tried = subprocess.run(["unshare", "-m", "-n", "-p", "-f", "true"], capture_output=True, text=True, check=False)
    return f"namespaces are not allowed here: {tried.stderr.strip()}" if tried.returncode else ""


class Hosts:
    """A laptop, whose wire hosts are plugged into. ``folder`` keeps homes and what is shared; nothing else remains."""

    def __init__(self, folder: Path, addresses: dict[str, str]) -> None:
        self.folder, self.addresses = folder, {"laptop": "10.77.0.254"} | addresses
        self.shared = folder / "shared"
        self.commit = self._prepare()
        self.namespaces: set[str] = set()

    def __enter__(self) -> "Hosts":
        seen = dict.fromkeys(str(Path(path).resolve()) for path in (ROOT, sys.prefix, sys.base_prefix, *_packages()))
        apart = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL"]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*apart, "bash", str(SCRIPT), str(self.folder), *seen],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self._tell("laptop")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin and self._process.stdout
        self._note()
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def start(self, name: str) -> None:
        """Power on; returns before sshd answers."""
        self._tell(f"start {name} {self.addresses[name]}")
        self._note()

    def pull(self, name: str) -> None:
        """Pull the plug."""
        self._tell(f"pull {name}")

    def spawn(self, command: str, **environment: str) -> "subprocess.Popen[str]":
        """Start a command of the user's on the laptop, in the checkout."""
        values = {"HOME": "/user", "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "LANG": "C.UTF-8"}
        values |= {"PYTHONDONTWRITEBYTECODE": "1"} | environment
        (room,) = psutil.Process(self._process.pid).children()
        enter = ["nsenter", "--target", str(room.pid), "--mount", "--net", "--pid"]
        enter += ["chroot", f"--userspec={USER}:{USER}", str(self.folder / "laptop/root"), "env", "-i"]
        enter += [f"{name}={value}" for name, value in values.items()]
        return subprocess.Popen(
            [*enter, "bash", "-c", f"cd {ROOT} && {command}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, command: str, *, code: int | None = 0, timeout: float = 240, **environment: str) -> str:
        """What a command of the user's on the laptop prints; ``code``: how it must end."""
        process = self.spawn(command, **environment)
        try:
            printed, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert code in (None, process.returncode), f"{command}: {process.returncode}\n{printed}"
        return printed

    def ssh(self, name: str, command: str) -> str:
        """The command by which the laptop runs another one on a host."""
        options = "-i ~/.ssh/id_ed25519 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        return f"ssh {options} user@{self.addresses[name]} {command!r}"

    def left(self) -> list[str]:
        """Processes and mounts of these machines that are there still."""
        there = [f"{p.pid} {p.name()}" for p in psutil.process_iter() if _namespaces(p) & self.namespaces]
        return there + [
            line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.folder) in line
        ]

    def _tell(self, line: str) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().split()
        assert answer == line.split()[:2], (self.folder / "log").read_text()

    def _note(self) -> None:
        own = _namespaces(psutil.Process())
        for process in psutil.Process(self._process.pid).children(recursive=True):
            self.namespaces |= _namespaces(process) - own

    def _prepare(self) -> str:
        """Homes, keys, and a repository with the code under test at one commit, which is returned."""
        folder = self.folder
        for name in ("shared/data", "shared/results", "repository", *(f"{name}/home" for name in self.addresses)):
            (folder / name).mkdir(parents=True)
        (folder / "passwd").write_text(
            f"root:x:0:0::/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/bin/false\nuser:*:{USER}:{USER}::/user:/bin/bash\n"
        )
        names = "".join(f"{address} {name}\n" for name, address in self.addresses.items())
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        for path in (folder / "key", folder / "id_ed25519"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
        python = PYTHON.format(
            base=sys._base_executable,  # type: ignore[attr-defined]
            packages=" ".join(_packages()),
            programs=Path(sys.executable).parent,
        )
        for name in self.addresses:
            home = folder / name / "home"
            for path in (".ssh", ".local/bin", ".config/pip"):
                (home / path).mkdir(parents=True)
            (home / ".profile").write_text("PATH=$HOME/.local/bin:$PATH\n. ~/.bashrc\n")
            (home / ".bashrc").write_text("# a host's own\n")
            (home / ".config/pip/pip.conf").write_text(PIP)
            (home / ".local/bin/python3").write_text(python)
            (home / ".local/bin/python3").chmod(0o755)
            shutil.copy(folder / "id_ed25519.pub", home / ".ssh/authorized_keys")
        shutil.move(folder / "id_ed25519", folder / "laptop/home/.ssh/id_ed25519")
        commit = self._commit()
        for top in ("shared", "repository", *(f"{name}/home" for name in self.addresses)):
            for path in (folder / top, *(folder / top).rglob("*")):
                os.chown(path, USER, USER, follow_symlinks=False)
        return commit

    def _commit(self) -> str:
        repository = self.folder / "repository"
        packages = ("analysis", "clusters", "search_spaces", "study")
        for name in packages:
            shutil.copytree(ROOT / name, repository / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, repository)
        # the versions that are here, for there are no others
        pins = sorted({f"{found.name}=={found.version}" for found in importlib.metadata.distributions() if found.name})
        (repository / "constraints.txt").write_text("\n".join(pins) + "\n")
        git = ["git", "-C", str(repository), "-c", "user.name=test", "-c", "user.email=test@localhost"]
        subprocess.run(["git", "init", "-q", str(repository)], check=True)
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-qm", "under test"], check=True)
        return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def _packages() -> list[str]:
    return [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]


def _namespaces(process: psutil.Process) -> set[str]:
    try:
        return {str(Path(f"/proc/{process.pid}/ns/{kind}").readlink()) for kind in ("mnt", "net", "pid")}
    except OSError:
        return set()

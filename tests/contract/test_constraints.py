"""``constraints.txt`` pins all that an installation brings, at the versions that are installed here."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINNED = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.M)
}


def installed(requirements):
    """Name -> version of every distribution that ``requirements`` bring here; those that are not installed are left out."""
    found, waiting = {}, [Requirement(line) for line in requirements]
    seen = set()
    while waiting:
        wanted = waiting.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        seen.add(key)
        try:
            distribution = importlib.metadata.distribution(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found[key[0]] = distribution.version
        for line in distribution.requires or []:
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)):
                needed.marker = None
                waiting.append(needed)
    return found


def test_what_is_installed_is_what_is_pinned():
    there = installed([*PROJECT["dependencies"], *EXTRAS["test"]])
    assert len(there) > 100
    different = {name: (version, PINNED.get(name)) for name, version in there.items() if PINNED.get(name) != version}
    assert not different, "installed, pinned"


@pytest.mark.parametrize("line", [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)])
def test_pins_meet_the_bounds(line):
    wanted = Requirement(line)
    if wanted.name == PROJECT["name"]:
        assert wanted.extras <= EXTRAS.keys()
    else:
        assert PINNED[canonicalize_name(wanted.name)] in wanted.specifier

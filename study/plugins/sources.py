"""What code a study runs from outside the package: modules with digests of their files, and the levels that each registers."""

import ast
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from study.config import is_own
from study.plugins.loading import installed, module_of, site_folders
from study.registry import MAIN, NAMED, NETWORKS, Entry, home_of

# Beside a plug-in in a checkout: not of it.
_OURS = ("study", "search_spaces", "analysis", "fmm_study")
# What a plug-in's entry calls the digest of a module that it imports from beside it.
IMPORTS = "imports "


def plugin_sources(modules: Sequence[str]) -> dict[str, dict[str, str]]:
    """Module -> distribution and version, if one declares it, a digest (16 hex digits) of its file, and what it registers.

    So is the digest of each module from beside it that it imports, at whatever remove, as ``imports NAME``. What a notebook
    or a script registered itself stands there part by part. Among ``modules`` may be networks and spaces of one's own.
    """
    declared = installed()
    found: dict[str, dict[str, str]] = {}
    for name in dict.fromkeys([*declared, *map(module_of, modules)]):
        if name == MAIN:
            continue
        distribution = declared.get(name)
        source = {"distribution": distribution.name, "version": distribution.version} if distribution else {}
        files = _files(name)
        for module, file in files.items():
            source["digest" if module == name else f"{IMPORTS}{module}"] = _digest(file.read_bytes())
        registered = [level for module in files for level in registered_by(module)]
        registered += [f"space {m}" for m in modules if module_of(m) == name and ":" in m and m not in NETWORKS]
        if registered:
            source["registers"] = ", ".join(registered)
        if any(own.startswith(f"{name}/") for own in modules):
            # a library of networks: its first file says nothing of them, its release does
            source = {"distribution": name, "version": importlib.metadata.version(name)}
        found[name] = source
    return found | _own_sources()


def _files(name: str) -> dict[str, Path]:
    """The files of module ``name`` and of those that it imports from the folder in which it was found."""
    first = _file(name)
    if first is None:
        return {}
    found, ahead = {name: first}, [*_imported(name, first)]
    sites = [Path(folder).resolve() for folder in site_folders()]
    top, folder = name.partition(".")[0], first.parents[name.count(".") + (first.name == "__init__.py")]
    while ahead:
        each = ahead.pop()
        file = _file(each) if each in sys.modules and each not in found else None
        if file is None or each.partition(".")[0] in _OURS or not file.is_relative_to(folder):
            continue
        # what is installed is told by its release, but for the plug-in's own package
        if each.partition(".")[0] != top and any(file.is_relative_to(site) for site in sites):
            continue
        found[each] = file
        ahead += _imported(each, file)
    return dict(sorted(found.items()))


def _file(name: str) -> Path | None:
    origin = getattr(sys.modules.get(name), "__file__", None)
    if name not in sys.modules:
        origin = getattr(importlib.util.find_spec(name), "origin", None)
    file = Path(origin).resolve() if origin else None
    return file if file is not None and file.is_file() else None


def _imported(name: str, file: Path) -> Iterator[str]:
    """Names that may be modules, in the import statements of ``file``; and the packages that hold module ``name``."""
    parts = name.split(".")
    yield from (".".join(parts[:end]) for end in range(1, len(parts)))
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # no source: an extension
        return
    package = parts if file.name == "__init__.py" else parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            yield ".".join(base)
            yield from (".".join([*base, alias.name]) for alias in node.names)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def registered_by(module: str) -> list[str]:
    """The levels that ``module`` registered: ``merge geometric``, ..."""
    return [f"{kind} {entry.name}" for kind, entry in _entries_of(module)]


def file_of(entry: Entry[Any]) -> str:
    """The file that a part from outside the package is from; its module's name if it has none; empty for ours, and timm's."""
    home = module_of(entry.name) if is_own(entry.name) else home_of(entry.build)
    if home.partition(".")[0] in (*_OURS, "functools", "timm"):
        return ""
    return str(getattr(sys.modules.get(home), "__file__", None) or home)


def _entries_of(module: str) -> list[tuple[str, Entry[Any]]]:
    return [(registry.kind, entry) for registry in NAMED for entry in registry if home_of(entry.build) == module]


def _own_sources() -> dict[str, dict[str, str]]:
    """As ``plugin_sources``, of each part that a notebook or a script registered itself."""
    found = {}
    for kind, entry in _entries_of(MAIN):
        source = {"registers": f"{kind} {entry.name}"}
        with contextlib.suppress(OSError, TypeError):  # its text is kept nowhere
            text = inspect.getsource(getattr(entry.build, "func", entry.build))
            source["digest"] = _digest(text.encode())
        found[f"{MAIN}: {entry.name}"] = source
    return found

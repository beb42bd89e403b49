"""``init``: a commented specification, and the plug-in that it names, to begin from. What is there already is left alone."""

import keyword
import re
from importlib import resources
from pathlib import Path

from study.errors import StorageError, UserError, nearest

# What a study is about, and what the module beside NAME.yaml is called after NAME; nothing where none is needed.
KINDS = {"network": "_nets", "merge": "_levels", "attention": "_levels", "recipe": ""}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,47}")


def begin(name: str, kind: str, folder: Path) -> list[Path]:
    """Write ``name``.yaml and its module into ``folder``; the files written, in order.

    Raises ``UserError`` for an unknown kind, for a name that cannot be that of a study, a module and a level, and where a file
    is there already: then nothing is written.
    """
    if kind not in KINDS:
        raise UserError(f"--kind {kind[:80]!r}: expected one of {', '.join(KINDS)}{nearest(kind, KINDS)}")
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise UserError(
            f"NAME = {name[:80]!r}: expected a letter, then letters, digits and _, 48 at most: files, a study and a module "
            "are called after it"
        )
    _refuse_taken(name, kind)
    templates = resources.files("study.commands") / "templates"
    written = {folder / f"{name}.yaml": f"{kind}.yaml"}
    written |= {folder / f"{name}{KINDS[kind]}.py": f"{kind}.py.txt"} if KINDS[kind] else {}
    for path in written:
        if path.exists():
            raise UserError(f"{path} is there already, and is left as it is: take another name, or move it")
    for path, template in written.items():
        text = (templates / template).read_text(encoding="utf-8").replace("NAME", name)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise StorageError(path, error) from error
    return list(written)


def next_steps(name: str, kind: str) -> list[str]:
    """What to type next, each with what it does."""
    steps = [f"fmm-study plan {name}.yaml   # cells, cost, power; trains nothing"]
    steps += [f"fmm-study run {name}.yaml    # ends with results/{name}/report.html; the same command continues"]
    allow = f"export FMM_STUDY_PLUGINS={name}{KINDS[kind]}   # a specification runs no code that you have not allowed"
    return [allow, *steps] if KINDS[kind] else steps


def _refuse_taken(name: str, kind: str) -> None:
    """Raise ``UserError`` for a level's name that is one already."""
    if kind in ("merge", "attention"):
        from study import models  # noqa: F401  registers them
        from study.registry import PARTS

        if name in PARTS[kind]:
            raise UserError(f"NAME = {name!r}: there is {kind} {name!r} already; take another name")

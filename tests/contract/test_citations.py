"""Every file and module that a document, a source or a test names is in the repository."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = "study|analysis|search_spaces|tests|benchmarks|docs|clusters"
TEXTS = sorted(
    path
    for suffix in ("py", "md", "yaml", "yml", "toml", "sh", "j2")
    for path in [*ROOT.glob(f"*.{suffix}"), *ROOT.glob(f".github/**/*.{suffix}")]
    + [path for room in ROOMS.split("|") for path in (ROOT / room).rglob(f"*.{suffix}")]
)
# a path from the root, by a letter or glob; in Markdown a link from where the page is
PATH = re.compile(rf"(?<![\w/.-])((?:{ROOMS})/[\w./*-]*\.(?:py|md|ya?ml|toml|js|j2|sh|png))\b")
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")
MODULE = re.compile(rf"`((?:{ROOMS})(?:\.\w+)+)(?<!\.json)(?:\(\))?`")


def cited(path: Path) -> list[str]:
    """What ``path`` names and the repository lacks."""
    text = path.read_text(encoding="utf-8")
    lacking = [name for name in PATH.findall(text) if not any(ROOT.glob(name))]
    if path.suffix == ".md":
        lacking += [link for link in LINK.findall(text) if not (path.parent / link).exists()]
    return lacking + [name for name in MODULE.findall(text) if not is_there(name)]


def is_there(name: str) -> bool:
    """Whether ``name`` is a module, or a name in one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        module = ROOT.joinpath(*parts[:count])
        source = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
        if source.exists():
            return all(re.search(rf"\b{part}\b", source.read_text()) for part in parts[count:])
    return False


def test_what_is_named_is_there() -> None:
    assert not {str(path.relative_to(ROOT)): found for path in TEXTS if (found := cited(path))}


def test_what_is_not_there_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    room, no = "study", "gone"
    named = [f"{room}/{no}.py", f"docs/{no}.md", f"{no}.md", f"{room}.{no}", f"{room}.config.{no}"]
    there = "study/config.py, tests/*/test_house.py, `study.config.TrialConfig`, [a](page.md), [b](https://example.org/c.md)"
    page.write_text("{}, {}, [a]({}), `{}`, ``{}``; ".format(*named) + there)
    assert cited(page) == named

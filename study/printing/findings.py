"""The page of findings and its table on the front page, made from the published studies.

``python -m study.printing.findings`` writes ``docs/findings.md`` and the part of ``README.md`` between its marks.
"""

import functools
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from analysis.report import findings
from analysis.report.by_study import Study
from analysis.words.rows import Rows
from study.errors import UserError
from study.printing.levels import levels
from study.results.sessions import read_sessions
from study.results.workspace import Workspace

REGENERATE = "python -m study.printing.findings"
ROOT = Path(__file__).parents[2]
PUBLISHED, PAGE, FRONT = ROOT / "published", ROOT / "docs" / "findings.md", ROOT / "README.md"
# the factors whose levels the page explains
_FACTORS = ("merge", "attention", "attention_form")
BEGIN, END = "<!-- findings -->\n", "<!-- end of findings -->\n"


def published(folder: Path) -> tuple[list[Study], list[str]]:
    """The published studies that have ended, by name, and the names of those that have not. Raises ``UserError``."""
    ended, running = [], []
    for root in sorted(path.parent for path in folder.glob("*/specification.yaml")):
        if study := ended_study(root):
            ended.append(study)
        else:
            running.append(root.name)
    return ended, running


def ended_study(root: Path) -> Study | None:
    """A published study, from its tables; ``None`` while claims wait for trainings."""
    workspace = Workspace(root)
    spec = workspace.specification()

    @functools.cache
    def read(name: str) -> Rows:
        path = workspace.tables / f"{name}.parquet"
        try:
            rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}): fmm-study report {root}") from None
        return rows

    if spec is None or not workspace.tables.is_dir() or any(row["why"] == "waiting" for row in read("claims")):
        return None
    return Study(spec=spec, read=read, session=(read_sessions(root) or [{}])[-1])


def page(folder: Path = PUBLISHED) -> str:
    """``docs/findings.md``."""
    ended, running = published(folder)
    names = [*(study.name for study in ended), *running]
    formulas = {kind: {row["name"]: row["formula"] for row in levels(kind)} for kind in _FACTORS}
    return f"{findings.page(ended, running, formulas, REGENERATE)}\n{findings.links(names, '../published')}"


def front(text: str, folder: Path = PUBLISHED) -> str:
    """The front page ``text`` with its part on findings made anew. Raises ``UserError`` where it has no place for it."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"the page has no place for the findings: a line {BEGIN.strip()}, and one {END.strip()}")
    ended, running = published(folder)
    names = [*(study.name for study in ended), *running]
    part = f"{findings.summary(ended, running)}\n{findings.links(names, 'published')}"
    return f"{before}{BEGIN}\n{part}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page())
    FRONT.write_text(front(FRONT.read_text()))

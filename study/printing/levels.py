"""What a specification may name: kind, name, formula, extra parameters, source.

The project's own parts are read from a file made from the registry, which would have to import torch first.
"""

import functools
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from study.errors import UserError, nearest
from study.printing.console import print_table
from study.registry import DATASETS, NAMED, PLUGINS

SHIPPED = Path(__file__).with_name("levels.json")
_HEADINGS = {"extra_params": "extra parameters", "accuracy_floor": "accuracy floor"}


def levels(kind: str | None = None, plugins: Sequence[str] = ()) -> list[dict[str, str]]:
    """One row per part of one ``kind`` or of all (``study.printing.registered``), with those of plug-ins.

    Raises ``UserError`` for an unknown kind, or an unknown module among ``plugins``.
    """
    known = [registry.kind for registry in NAMED]
    if kind is not None and kind not in known:
        raise UserError(f"unknown kind {kind!r}{nearest(kind, [*known, 'outcome'])}")
    rows = _shipped()
    if plugins or importlib.metadata.entry_points(group=PLUGINS):
        from study.printing.registered import registered

        rows = list(registered(plugins))
    return [row for row in rows if kind in (None, row["kind"])]


@functools.cache
def _shipped() -> list[dict[str, str]]:
    rows: list[dict[str, str]] = json.loads(SHIPPED.read_text(encoding="utf-8"))
    return rows


def print_levels(rows: Sequence[Mapping[str, str]], console: Console) -> None:
    """Print rows of ``levels``, one table per kind."""
    for kind in dict.fromkeys(row["kind"] for row in rows):
        extra = "accuracy_floor" if kind == DATASETS.kind else "extra_params"
        cells = [(row["name"], row["formula"], row[extra], row["source"]) for row in rows if row["kind"] == kind]
        print_table(console, ("name", "formula", _HEADINGS[extra], "source"), cells, title=kind, num_left=4)


def main() -> None:
    """Write ``docs/levels.md`` and ``levels.json`` anew."""
    from study.printing.registered import markdown, own

    (Path(__file__).parents[2] / "docs" / "levels.md").write_text(markdown(), encoding="utf-8")
    SHIPPED.write_text(json.dumps(own(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

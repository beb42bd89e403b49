"""Every registered part as rows: kind, name, formula, extra parameters, source. What a specification may name."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from study import data, models, smoothness  # noqa: F401  imported for the parts they register
from study.errors import UserError, nearest
from study.planning import search  # noqa: F401  imported for the parts they register
from study.plugins import load_plugins
from study.registry import (
    ATTENTION_FORMS,
    ATTENTIONS,
    AUGMENTATIONS,
    DATASETS,
    MERGES,
    NETWORKS,
    SAMPLERS,
    SCHEDULERS,
    STATISTICS,
    Registry,
)

_KINDS = (MERGES, ATTENTIONS, ATTENTION_FORMS, NETWORKS, DATASETS, AUGMENTATIONS, STATISTICS, SAMPLERS, SCHEDULERS)

REGENERATE = "python -m study.printing.levels"
# A plug-in that is installed here is not in the page; partials and other objects have a module of the library's.
_OWN = ("study", "functools")


def levels(kind: str | None = None, plugins: Sequence[str] = ()) -> Iterator[dict[str, str]]:
    """One row a part, of one ``kind`` or of all; ``extra_params`` is an expression in the channels C, where known.

    Those of installed plug-ins and of the modules ``plugins`` too. Raises ``UserError`` for an unknown kind or module.
    """
    load_plugins(plugins, str(Path.cwd()) if plugins else "")
    for registry in _chosen(kind):
        for entry in registry:
            yield {
                "kind": registry.kind,
                "name": entry.name,
                "formula": entry.formula,
                "extra_params": str(entry.traits.get("extra_params", "")),
                "source": entry.source,
            }


def markdown() -> str:
    """The page ``docs/levels.md``: a table a kind, of the parts of this repository. Written by ``python -m
    study.printing.levels``."""
    lines = [
        "# Levels: what a specification may name",
        "",
        f"Made from the registry by `{REGENERATE}`. C is a block's number of channels.",
    ]
    for registry in _KINDS:
        own = [entry for entry in registry if str(getattr(entry.build, "__module__", "study")).startswith(_OWN)]
        counted = any("extra_params" in entry.traits for entry in own)
        heading = ["name", "formula", *(["extra parameters"] if counted else []), "source"]
        lines += ["", f"## {registry.kind}", "", _row(heading), _row(["---"] * len(heading))]
        for entry in own:
            extra = [f"`{entry.traits['extra_params']}`" if "extra_params" in entry.traits else ""] if counted else []
            lines.append(_row([f"`{entry.name}`", _cell(entry.formula), *extra, entry.source]))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(formula: str) -> str:
    """Plain text within a Markdown table."""
    return formula.replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").replace("<", "&lt;")


def _chosen(kind: str | None) -> tuple[Registry[Any], ...]:
    known = {registry.kind: registry for registry in _KINDS}
    if kind is None:
        return _KINDS
    if kind not in known:
        raise UserError(f"unknown kind {kind!r}{nearest(kind, known)}")
    return (known[kind],)


if __name__ == "__main__":
    (Path(__file__).parent.parent / "docs" / "levels.md").write_text(markdown())

"""Every registered part as rows: kind, name, formula, extra parameters, source. What a specification may name."""

from collections.abc import Iterator
from typing import Any

from study import data, models, search, smoothness  # noqa: F401  imported for the parts they register
from study.errors import UserError, nearest
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


def levels(kind: str | None = None) -> Iterator[dict[str, str]]:
    """One row a part, of one ``kind`` or of all; ``extra_params`` is an expression in the channels C, where known.

    Raises ``UserError`` for an unknown kind.
    """
    for registry in _chosen(kind):
        for entry in registry:
            yield {
                "kind": registry.kind,
                "name": entry.name,
                "formula": entry.formula,
                "extra_params": str(entry.traits.get("extra_params", "")),
                "source": entry.source,
            }


def _chosen(kind: str | None) -> tuple[Registry[Any], ...]:
    known = {registry.kind: registry for registry in _KINDS}
    if kind is None:
        return _KINDS
    if kind not in known:
        raise UserError(f"unknown kind {kind!r}{nearest(kind, known)}")
    return (known[kind],)

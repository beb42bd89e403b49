"""Levels from outside the package, held to their contract before anything starts: a fault is a line with cell and file.

A level that several cells have is looked at once. What the package brings itself is left to its own tests.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from search_spaces import Spec
from study.config import TrialConfig, is_own
from study.errors import StorageError, UserError, reason
from study.plugins import check_attention, check_augmentation, check_merge, check_statistic, file_of
from study.registry import (
    ATTENTION_FORMS,
    ATTENTIONS,
    AUGMENTATIONS,
    DATASETS,
    MERGES,
    NETWORKS,
    STATISTICS,
    Entry,
    Registry,
)


@contextlib.contextmanager
def named(where: str, *entries: Entry[Any]) -> Iterator[None]:
    """Within it whatever levels from outside raise is a ``UserError``, which names ``where`` and their files."""
    files = list(dict.fromkeys(filter(None, map(file_of, entries))))
    prefix = f"{where}, {', '.join(files)}"
    try:
        yield
    except StorageError:
        raise
    except UserError as error:
        raise UserError(f"{prefix}: {error}" if files else str(error)) from error
    except Exception as error:
        if not files:
            raise
        raise UserError(f"{prefix}: {reason(error)}") from error


def parts_of(config: TrialConfig) -> list[Entry[Any]]:
    """The registered parts that a replicate is made of, where they are known."""
    parts: list[tuple[Registry[Any], str]] = [
        (DATASETS, config.dataset),
        (NETWORKS, config.network),
        (AUGMENTATIONS, config.augment),
    ]
    if not is_own(config.network):
        parts += [(MERGES, config.merge), (ATTENTIONS, config.attention), (ATTENTION_FORMS, config.attention_form)]
    return [registry[name] for registry, name in parts if name in registry]


def check_outside(spec: Spec, cells: Mapping[str, TrialConfig]) -> None:
    """Hold operators, gates, forms, augmentations and statistics from outside to their contract. Raises ``UserError``."""
    done: set[tuple[str, ...]] = set()
    for cell, config in cells.items():
        for level, entries, check in _checks(config):
            if level not in done:
                done.add(level)
                if any(map(file_of, entries)):
                    with named(f"cell {cell}", *entries):
                        check()
    for where, name, given in spec.measure.all():
        if file_of(STATISTICS[name]):
            with named(f"measure.{where}.{name}", STATISTICS[name]):
                check_statistic(name, given)


def _checks(config: TrialConfig) -> Iterator[tuple[tuple[str, ...], list[Entry[Any]], Callable[[], None]]]:
    """Levels of a cell, each with the parts that it is made of, and its check."""
    augment, merge, gate, form = config.augment, config.merge, config.attention, config.attention_form
    yield ("augment", augment), [AUGMENTATIONS[augment]], functools.partial(check_augmentation, augment)
    if not is_own(config.network):
        yield ("merge", merge), [MERGES[merge]], functools.partial(check_merge, merge)
        both: list[Entry[Any]] = [ATTENTIONS[gate], ATTENTION_FORMS[form]]
        yield ("attention", gate, form), both, functools.partial(check_attention, gate, [form])

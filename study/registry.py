"""A registry per kind of part: merge operators, attention, datasets, statistics, samplers, tables, figures.

A part is added by one decorated function or class in one file. The packages that hold parts import all of their modules
(``discover``), so there is no second list to keep.
"""

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from study.errors import UserError, nearest

T = TypeVar("T")
U = TypeVar("U")


# The module of a notebook, or of a script.
MAIN = "__main__"
# the entry-point group of plug-ins
PLUGINS = "fmm_study.plugins"


def home_of(build: object) -> str:
    """The name of the module that a part is from."""
    return str(getattr(getattr(build, "func", build), "__module__", ""))


@dataclass(frozen=True, kw_only=True)
class Entry(Generic[T]):
    """A registered part: what builds it, its formula or definition, where it comes from, and traits of its kind."""

    name: str
    build: T
    formula: str
    source: str
    traits: Mapping[str, Any] = field(default_factory=dict)


class Registry(Generic[T]):
    """Names to parts of one kind. Of each tuple of traits in ``needs`` a part has one.

    A duplicate name raises ``ValueError``, a part without such a trait ``TypeError``; an unknown name raises ``UserError``.
    """

    def __init__(self, kind: str, needs: Sequence[tuple[str, ...]] = ()) -> None:
        self.kind = kind
        self._needs = needs
        self._entries: dict[str, Entry[T]] = {}
        self._sized: dict[str, tuple[range, Callable[[str, int], Entry[Any]]]] = {}

    def register(self, name: str, *, formula: str, source: str, **traits: Any) -> Callable[[U], U]:
        """A decorator that registers what it decorates under ``name``, and returns it unchanged."""
        for any_of in self._needs:
            if not traits.keys() & set(any_of):
                raise TypeError(f"{self.kind} {name!r} is registered without {' or '.join(f'{t}=' for t in any_of)}")

        def decorate(build: U) -> U:
            # a notebook's cell is run again; what it registers has no other module
            if name in self._entries and not MAIN == home_of(build) == home_of(self._entries[name].build):
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            # the part keeps its own type in its module; the registry sees it as T
            entry: Entry[Any] = Entry(name=name, build=build, formula=formula, source=source, traits=traits)
            self._entries[name] = entry
            return build

        return decorate

    def register_sizes(self, prefix: str, sizes: range, *, formula: str, source: str) -> Callable[[U], U]:
        """A decorator that registers ``prefix`` followed by any number of ``sizes``, as in ``image_folder_48``.

        What it decorates is called with the name and the number. ``formula`` has ``{size}`` where the number belongs.
        """

        def decorate(build: U) -> U:
            def entry(name: str, size: int) -> Entry[Any]:
                made: Callable[..., Any] = build  # type: ignore[assignment]
                return Entry(
                    name=name,
                    build=functools.partial(made, name, size),
                    formula=formula.format(size=size),
                    source=source,
                )

            self._sized[prefix] = sizes, entry
            return build

        return decorate

    def __getitem__(self, name: str) -> Entry[T]:
        entry = self._entries.get(name) or self._of_size(name)
        if entry is None:
            raise UserError(f"unknown {self.kind} {name!r}{nearest(name, self._entries)}")
        return entry

    def __contains__(self, name: object) -> bool:
        return name in self._entries or self._of_size(str(name)) is not None

    def _of_size(self, name: str) -> Entry[T] | None:
        """What ``register_sizes`` promised; made anew, so that a list of all names does not depend on who asked for what."""
        prefix, _, size = name.rpartition("_")
        sizes, entry = self._sized.get(f"{prefix}_", (range(0), None))
        fits = size == size.lstrip("0") and size.isdecimal() and int(size) in sizes
        return entry(name, int(size)) if entry and fits else None

    def __iter__(self) -> Iterator[Entry[T]]:
        return iter(self._entries.values())

    def names(self) -> list[str]:
        """Registered names in order of registration."""
        return list(self._entries)


def discover(package: str) -> None:
    """Import every module directly inside ``package``, so that the parts they hold are registered."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")


MERGES: Registry[Callable[..., Any]] = Registry("merge")
ATTENTIONS: Registry[Callable[..., Any]] = Registry("attention")
ATTENTION_FORMS: Registry[Callable[..., Any]] = Registry("attention_form")
NETWORKS: Registry[Callable[..., Any]] = Registry("network")
DATASETS: Registry[Callable[..., Any]] = Registry("dataset")
AUGMENTATIONS: Registry[Callable[..., Any]] = Registry("augmentation")
STATISTICS: Registry[Callable[..., Any]] = Registry("statistic", needs=[("settings",), ("names", "outcomes")])
SAMPLERS: Registry[Callable[..., Any]] = Registry("sampler")
SCHEDULERS: Registry[Callable[..., Any]] = Registry("scheduler")
# what a specification may name
NAMED = (MERGES, ATTENTIONS, ATTENTION_FORMS, NETWORKS, DATASETS, AUGMENTATIONS, STATISTICS, SAMPLERS, SCHEDULERS)
# settings that name a part of a network
PARTS = {"network": NETWORKS, "merge": MERGES, "attention": ATTENTIONS, "attention_form": ATTENTION_FORMS}
TABLES: Registry[Callable[..., Any]] = Registry("table")
FIGURES: Registry[Callable[..., Any]] = Registry("figure")


def revised_parts(config: Mapping[str, Any]) -> dict[str, int]:
    """Setting -> revision of the parts of a network with these settings whose trait ``revision`` is above 1.

    A part gets a higher revision when trained weights stay valid and what is measured on them changes.
    """
    named = {setting: config[setting] for setting, registry in PARTS.items() if config.get(setting) in registry}
    revisions = {setting: PARTS[setting][name].traits.get("revision", 1) for setting, name in named.items()}
    return {setting: revision for setting, revision in revisions.items() if revision > 1}

"""The cells of a study, with short names, and the seeds that cells share: a plan, and nothing that it takes to check one.

Nothing here imports torch unless the key of a measurement is asked for, so that a study's status is told at once.
"""

import dataclasses
import functools
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces import Levels, Spec
from study.config import TrialConfig, is_own
from study.errors import UserError, nearest
from study.planning.search import num_points
from study.registry import revised_parts
from study.results.ledger import Contents
from study.schema import Phase, ReplicateRecord
from study.seeding import derive_seed

# What a specification may name under factors, fixed and nuisance: the plan sets the others.
SETTINGS = {
    field.name: field
    for field in dataclasses.fields(TrialConfig)
    if field.name not in ("seed", "split_seed", "stop_curve", "keywords")
}
# The name of a joint search; names of cells have a slash.
_JOINT = "joint"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination of factor levels. ``settings``: all of its replicates' but seeds and nuisance hyperparameters."""

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A checked study: its specification and its cells, in order."""

    spec: Spec
    cells: tuple[Cell, ...]

    @functools.cached_property
    def searches(self) -> dict[str, dict[str, Mapping[str, Any]]]:
        """By name of a search, the settings of the cells that it chooses among: each cell's own, or one of all (joint)."""
        settings = {cell.name: cell.settings for cell in self.cells}
        return {_JOINT: settings} if self.spec.joint else {name: {name: settings[name]} for name in settings}

    @property
    def code(self) -> list[str]:
        """What workers import: plug-ins, and networks of one's own."""
        return named_code(self.spec)

    def search_of(self, cell: str) -> str:
        """The name of the search that tunes ``cell``."""
        return _JOINT if self.spec.joint else cell

    def default_config(self, cell: Cell) -> TrialConfig:
        """Settings of the cell's first replicate with nuisance hyperparameters at their defaults."""
        return self.confirm_config(cell, 0, 0, self.spec.in_cell(cell.settings).defaults)

    def spec_of(self, search: str) -> Spec:
        """The specification with the ranges of a search's cell; as it is for one that the plan does not have."""
        return self.spec.in_cell(next(iter(self.searches.get(search, {"": {}}).values())))

    def search_config(self, cell: Cell, block: int, nuisance: Levels, stop_curve: tuple[float, ...]) -> TrialConfig:
        """Settings of a search trial. All trials of a block, in every cell, share its split and its seed."""
        epochs = self.spec.budget.search_epochs or cell.settings["epochs"]
        seed = derive_seed(self.spec.seed, "search", block)
        return self._config(cell, block, seed, {**nuisance, "epochs": epochs, "stop_curve": stop_curve})

    def confirm_config(
        self, cell: Cell, block: int, replicate: int, nuisance: Levels, epochs: int | None = None
    ) -> TrialConfig:
        """Settings of a confirmed replicate, on its own seed: trained in full, or for ``epochs``."""
        values = {**nuisance, **({} if epochs is None else {"epochs": epochs})}
        return self._config(cell, block, derive_seed(self.spec.seed, "confirm", replicate), values)

    def short_epochs(self, cell: Cell) -> list[int]:
        """Epochs of the shortened trainings of each winner; of few epochs two shares may be as many, and then are one."""
        whole = cell.settings["epochs"]
        lengths = dict.fromkeys(max(1, round(share * whole)) for share in self.spec.budget.shortened)
        return [epochs for epochs in lengths if epochs < whole]

    def replicates(self, block: int) -> range:
        """Indices of the replicates that train the winner of ``block``: its own number, or all where it is the only block."""
        return range(self.spec.replicates) if self.spec.blocks == 1 else range(block, block + 1)

    def asks_for(self, record: ReplicateRecord) -> bool:
        """Whether the plan has a place for a replicate: its cell, block and number."""
        block = record["block"]
        if not (record["cell"] in self._names and block < self.spec.blocks):
            return False
        if record["phase"] == "search":
            return record["number"] < self.spec.budget.search_trials
        return record["replicate"] in self.replicates(block)

    @functools.cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(cell.name for cell in self.cells)

    def statistics_of(self, replicate: int, phase: Phase) -> dict[str, dict[str, Any]]:
        """Statistic -> its settings, of those taken on a replicate once it is trained.

        On a shortened one those that give an outcome which a claim on differences names (all, if none does): matched accuracy
        and verdicts at a smaller budget read no more.
        """
        return self._on_shortened if phase == "short" else self.spec.measure.of(replicate, phase)

    @functools.cached_property
    def _on_shortened(self) -> dict[str, dict[str, Any]]:
        # here, because it imports torch, which who lays out cells does not need
        from study.smoothness import estimate_names, parse_settings

        wanted, claimed = self.spec.measure.of(0, "short"), set(self.spec.claimed_outcomes)
        read = {n: given for n, given in wanted.items() if claimed & set(estimate_names(n, parse_settings(n, given)))}
        return read or wanted

    def measure_keys(self, config: TrialConfig, replicate: int, phase: Phase) -> dict[str, str]:
        """Statistic -> the key of what a study wants measured on a replicate with this ``config``."""
        # models, for the revisions of the parts that they register
        from study import models  # noqa: F401
        from study.smoothness import statistic_key

        wanted, sampled = self.statistics_of(replicate, phase), self.spec.measure.keep_samples
        trial_key, parts = config.trial_key, revised_parts(config.as_dict())
        return {
            name: statistic_key(trial_key, name, settings, samples=name in sampled, parts=parts)
            for name, settings in wanted.items()
        }

    @property
    def trials_a_search(self) -> int:
        """Trials of one search: what the budget grants, or as many as its space has points; the most of any search."""
        points = (num_points(self.spec_of(name), cells) for name, cells in self.searches.items())
        return int(min(self.spec.budget.search_trials, max(points)))

    @property
    def num_search(self) -> int:
        """Search trials of the whole study."""
        return len(self.searches) * self.spec.blocks * self.trials_a_search

    @property
    def num_confirm(self) -> int:
        """Confirmed replicates of the whole study; at most, where the search is joint."""
        each = self.spec.joint.confirm if self.spec.joint else len(self.cells) * self.spec.replicates
        return self.spec.blocks * each

    @property
    def num_short(self) -> int:
        """Shortened trainings of the whole study."""
        each = self.spec.blocks * self.spec.replicates
        return each * sum(len(self.short_epochs(cell)) for cell in self.cells)

    @property
    def num_trainings(self) -> int:
        """All of them; at most, where the search is joint."""
        return self.num_search + self.num_confirm + self.num_short

    def _config(self, cell: Cell, block: int, seed: int, values: Mapping[str, Any]) -> TrialConfig:
        split_seed = derive_seed(self.spec.seed, "split", block)
        return TrialConfig.from_mapping({**cell.settings, **values, "seed": seed, "split_seed": split_seed})

    def continuing(self, contents: Contents) -> "Plan":
        """The plan with its cells under the names that ``contents`` hold them by: an older spelling, or order of factors.

        Raises ``UserError`` where results are there and none of them is a planned cell's.
        """
        held = dict.fromkeys(record["cell"] for record in contents.replicates.values())
        known: dict[Any, str] = {}
        for name in held:
            known.setdefault(_identity(name), name)
        cells = [dataclasses.replace(c, name=known.get(_identity(c.name), c.name)) for c in self.cells]
        if held and not any(cell.name in held for cell in cells):
            name = cells[0].name
            raise UserError(
                f"{self.spec.name}: every cell would be new: {name!r} has no results yet{nearest(name, held)}; put the "
                "specification back, or use another name or --storage"
            )
        return dataclasses.replace(self, cells=tuple(cells))


def lay_out(spec: Spec) -> Plan:
    """The cells of a specification that was checked when it was run: no level is looked up, no data is needed."""
    return Plan(spec=spec, cells=tuple(_cell(spec, levels) for levels in spec.cells()))


def named_code(spec: Spec) -> list[str]:
    """The plug-ins that ``spec`` names, and its networks of one's own (``module:function``, ``timm/name``)."""
    return [*spec.plugins, *filter(is_own, spec.networks)]


def _cell(spec: Spec, levels: Levels) -> Cell:
    settings = {**spec.fixed, **levels}
    defaults = spec.in_cell(settings).defaults
    config = TrialConfig.from_mapping({**settings, **defaults, "seed": 0, "split_seed": 0})
    return Cell(name=_name(config, levels), settings={**settings, "epochs": config.epochs})


def _name(config: TrialConfig, levels: Levels) -> str:
    """``digits/d8/add``, ``digits/d8/add/se.mul`` or ``digits/my_net/kernel=7``; further factors follow as ``width=16``.

    It rests on levels alone, not on which other cells there are, so that extending a study renames no cell.
    """
    named: tuple[str, ...] = ("dataset", "depth", "merge", "merge_site", "attention", "attention_form")
    parts = [config.dataset, f"d{config.depth}", config.merge]
    if is_own(config.network):
        own = {name: value for name, value in config.keywords if name in levels}
        network = config.network if "network" in levels else config.network.replace(":", "/").rpartition("/")[2]
        parts = [config.dataset, network, *(f"{name}={value}" for name, value in own.items())]
        named = ("dataset", "network", *own)
    if config.merge_site != "skip":
        parts[-1] += f"@{config.merge_site}"
    if config.attention != "none":
        parts.append(f"{config.attention}.{config.attention_form}")
    # as the setting holds it, in the order of the settings: 0.0 where a specification says 0
    further = [name for name in SETTINGS if name in levels and name not in named]
    return "/".join(parts + [f"{name}={getattr(config, name)}" for name in further])


def _identity(name: str) -> tuple[tuple[str, Any], ...]:
    """What a cell's name says, however its levels are spelled and in whatever order they follow."""
    said: list[tuple[str, Any]] = []
    for part in name.split("/"):
        setting, sign, level = part.partition("=")
        known = sign and setting in SETTINGS
        said.append((setting, _typed(setting, level)) if known else ("", part))
    return tuple(sorted(said, key=repr))


def _typed(setting: str, level: str) -> Any:
    try:
        return typing.get_args(SETTINGS[setting].type)[0](level)
    except ValueError:
        return level

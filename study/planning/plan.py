"""From a specification to a plan: cells with short names, checked levels, and the seeds that cells share.

What can be refused is refused here, before anything starts: unknown settings, levels, statistics, samplers.
"""

import dataclasses
import functools
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces import Choice, Levels, Spec, folders
from study.config import OF_NETWORK, TrialConfig, is_own
from study.data import dataset_facts, load_dataset
from study.data.dataset import Facts
from study.errors import UserError, nearest
from study.planning.networks import check_network, untrained
from study.planning.search import num_points
from study.planning.trying import check_parts, check_search
from study.plugins import load_plugins, refuse_foreign
from study.registry import AUGMENTATIONS, DATASETS, NETWORKS, PARTS, Registry, revised_parts
from study.results.ledger import Contents
from study.schema import Phase, ReplicateRecord
from study.seeding import derive_seed
from study.smoothness import estimate_names, on_validation, parse_settings, statistic_key
from study.training import check_schedule

_REGISTRIES: dict[str, Registry[Any]] = {"dataset": DATASETS, "augment": AUGMENTATIONS, **PARTS}
# What a specification may name under factors, fixed and nuisance: the plan sets the others.
SETTINGS = {
    field.name: field
    for field in dataclasses.fields(TrialConfig)
    if field.name not in ("seed", "split_seed", "stop_curve", "keywords")
}
# Settings that pick blocks: at some depths two of their levels pick the same.
_PLACES = ("merge_where", "attention_where")
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
        wanted, claimed = self.spec.measure.of(0, "short"), set(self.spec.claimed_outcomes)
        read = {n: given for n, given in wanted.items() if claimed & set(estimate_names(n, parse_settings(n, given)))}
        return read or wanted

    def measure_keys(self, config: TrialConfig, replicate: int, phase: Phase) -> dict[str, str]:
        """Statistic -> the key of what a study wants measured on a replicate with this ``config``."""
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


def load_levels(spec: Spec) -> None:
    """Import the plug-ins and networks that ``spec`` names, installed, in the current folder or beside the specification.

    Raises ``UserError`` for those that its user has not allowed.
    """
    foreign = [*named_code(spec), *filter(None, [spec.space.partition(":")[0]])]
    refuse_foreign(foreign)
    load_plugins(named_code(spec), *([str(Path.cwd()), *folders()] if foreign else []))


def make_plan(spec: Spec, *, needs_data: bool = True, known: Mapping[str, Facts] | None = None) -> Plan:
    """Check every name in ``spec`` and lay out its cells. Raises ``UserError`` naming the key and the nearest name.

    With ``needs_data`` every dataset is loaded, so that one which is absent is told before anything starts. Of datasets that
    are ``known`` (by name) no more is looked at.
    """
    load_levels(spec)
    _check_names(spec)
    if "epochs" in spec.nuisance:
        raise UserError("nuisance: 'epochs' is the budget, equal for every trial; put it under fixed or factors")
    check_parts(spec)
    for where, statistic, settings in spec.measure.all():
        parse_settings(statistic, on_validation(statistic, settings) if where.startswith("during") else settings)
    plan, found = lay_out(spec), dict(known or {})
    for cell in plan.cells:
        _check_cell(spec.in_cell(cell.settings), plan.default_config(cell), found)
    check_search(plan.spec, plan.searches)
    same: dict[str, str] = {}
    for cell in plan.cells:
        facts = found[cell.settings["dataset"]]
        varied = " or ".join(name for name in _PLACES if name in spec.factor_names())
        same_blocks = f" ({varied} picks the same blocks at this depth); leave one out"
        for identity, why in ((plan.default_config(cell).trial_key, ""), (_placed(plan, cell, facts), same_blocks)):
            if identity in same:
                raise UserError(
                    f"factors: two cells are one and the same network: {same[identity]!r} and {cell.name!r}{why}"
                )
            same[identity] = cell.name
        _check_shares(spec, cell, facts)
    if needs_data:
        for name in spec.datasets:
            load_dataset(name)
    given = {name: spec.floor_of(name) for name in spec.datasets}
    floors = {name: found[name].accuracy_floor if floor is None else floor for name, floor in given.items()}
    stated = {name: floor for name, floor in floors.items() if floor is not None}
    return dataclasses.replace(plan, spec=spec.model_copy(update={"accuracy_floor": stated}))


def _check_names(spec: Spec) -> None:
    """Raise ``UserError`` for a setting that neither trainings nor any network of the study have."""
    own = [(name, NETWORKS[name].traits["own"]) for name in filter(is_own, spec.networks)]
    settled = {**spec.fixed, **spec.defaults}
    registered = not all(is_own({**settled, **levels}.get("network")) for levels in spec.cells())
    for role, names in (("fixed", spec.fixed), ("factors", spec.factor_names()), ("nuisance", spec.nuisance)):
        for name in names:
            if name in SETTINGS and (registered or name not in OF_NETWORK):
                continue
            if not any(name in signature.keywords or signature.takes_any for _, signature in own):
                if len(own) == 1 and not registered:
                    own[0][1].check_name(own[0][0], name)
                known = [*SETTINGS, *(keyword for _, signature in own for keyword in signature.keywords)]
                raise UserError(f"{role}: unknown setting {name!r}{nearest(name, known)}")


def _cell(spec: Spec, levels: Levels) -> Cell:
    settings = {**spec.fixed, **levels}
    defaults = spec.in_cell(settings).defaults
    config = TrialConfig.from_mapping({**settings, **defaults, "seed": 0, "split_seed": 0})
    return Cell(name=_name(config, levels), settings={**settings, "epochs": config.epochs})


def _check_cell(spec: Spec, config: TrialConfig, known: dict[str, Facts]) -> None:
    """Raise ``UserError`` unless every value, every level and the network are fit; facts of its data become ``known``."""
    tried = []
    for name, nuisance in spec.nuisance.items():
        for value in nuisance.choices if isinstance(nuisance, Choice) else (nuisance.low, nuisance.high):
            other = TrialConfig.from_mapping({**config.as_dict(), name: value})
            # what a range allows of a network's keyword, the network has to take
            tried += [other] if name in dict(other.keywords) and other != config else []
    check_schedule(config.schedule)
    if config.validation == "test" and spec.budget.search_trials:
        raise UserError(
            "setting 'validation' = 'test' with budget.search_trials above 0: the search would choose by test images"
        )
    for name, registry in _REGISTRIES.items():
        if name not in OF_NETWORK or not is_own(config.network):
            registry[getattr(config, name)]
    if config.dataset not in known:
        known[config.dataset] = dataset_facts(config.dataset)
    for one in (config, *tried):
        check_network(one, known[config.dataset])


def _check_shares(spec: Spec, cell: Cell, facts: Facts) -> None:
    """Raise ``UserError`` for a batch that ``resources.data_parallel`` processes cannot share out evenly."""
    num, given = spec.resources.data_parallel, spec.in_cell(cell.settings).nuisance.get("batch_size")
    for name in ("last_batch", "norm_parts"):
        if num > 1 and cell.settings.get(name, SETTINGS[name].default) != SETTINGS[name].default:
            raise UserError(
                f"resources.data_parallel = {num} with {name} = {cell.settings[name]!r} ({cell.name}): batches are shared out "
                "evenly there, and norms see the whole batch"
            )
    asked = given.choices if isinstance(given, Choice) else [cell.settings.get("batch_size", TrialConfig.batch_size)]
    for size in asked:
        batch = min(int(size), facts.num_train)
        if batch % num:
            raise UserError(
                f"resources.data_parallel = {num} with batches of {batch} images ({cell.name}): expected a number that "
                "divides them"
            )


def _placed(plan: Plan, cell: Cell, facts: Facts) -> str:
    """All settings but which blocks have operator and attention, and what that gives: modules by name, with attributes.

    Names of levels count: ``add`` and its alias are one network on purpose.
    """
    settings = {**cell.settings, **dict.fromkeys(_PLACES, "")}
    parts: list[Any] = [sorted(settings.items())]
    if any(name in plan.spec.factor_names() for name in _PLACES):
        config = plan.default_config(cell)
        network = untrained(config, facts)
        for name, module in network.named_modules():
            plain = {key: value for key, value in vars(module).items() if isinstance(value, (str, int, float, tuple))}
            shapes = [tuple(parameter.shape) for parameter in module.parameters(recurse=False)]
            parts.append((name, type(module).__qualname__, sorted(plain.items()), shapes))
    return repr(parts)


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

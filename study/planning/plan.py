"""From a specification to a checked plan.

What can be refused is refused here, before anything starts: unknown settings, levels, statistics, samplers.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search_spaces import Choice, Spec, folders
from study.config import OF_NETWORK, TrialConfig, is_own
from study.data import dataset_facts, load_dataset
from study.data.dataset import Facts
from study.errors import UserError, nearest
from study.planning.layout import SETTINGS, Cell, Plan, lay_out, named_code
from study.planning.networks import check_network, untrained
from study.planning.outside import named, parts_of
from study.planning.trying import check_parts, check_search
from study.plugins import load_plugins, refuse_foreign
from study.registry import AUGMENTATIONS, DATASETS, NETWORKS, PARTS, STATISTICS, Registry
from study.smoothness import on_validation, parse_settings
from study.training import check_schedule

_REGISTRIES: dict[str, Registry[Any]] = {"dataset": DATASETS, "augment": AUGMENTATIONS, **PARTS}
# Settings that pick blocks: at some depths two of their levels pick the same.
_PLACES = ("merge_where", "attention_where")


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
        with named(f"measure.{where}.{statistic}", STATISTICS[statistic]):
            parse_settings(statistic, on_validation(statistic, settings) if where.startswith("during") else settings)
    plan, found = lay_out(spec), dict(known or {})
    for cell in plan.cells:
        _check_cell(spec.in_cell(cell.settings), cell.name, plan.default_config(cell), found)
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
            with named(f"dataset {name}", DATASETS[name]):
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


def _check_cell(spec: Spec, cell: str, config: TrialConfig, known: dict[str, Facts]) -> None:
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
        with named(f"cell {cell}", DATASETS[config.dataset]):
            known[config.dataset] = dataset_facts(config.dataset)
    for one in (config, *tried):
        with named(f"cell {cell}", *parts_of(config)):
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

"""How many groups share a GPU, by the memory they fill.

Ray's fractions of a GPU place groups and limit nothing. So the memory that a group takes is measured before any begins: of
training steps and of an evaluation in every cell, and of measuring per network (depth, width, data), in its cell that needs
most for training. Where fewer groups fit than ``resources.gpus`` asks for, fewer run. ``memory.json`` in the study's folder
keeps what was found on a device, so that it is measured once. None of this changes a result.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from search_spaces import Choice
from study.atomic import read_json, write_json
from study.config import Execution, TrialConfig
from study.data import load_dataset
from study.data.dataset import dataset_facts
from study.data.parts import Split
from study.data.stream import NUM_HELD
from study.errors import UserError, out_of_memory
from study.measuring.replicate import estimates_of, measure_context
from study.planning.layout import Cell, Plan
from study.planning.networks import untrained
from study.resources.timing import Ask, random_split, timer
from study.results.files import MEMORY
from study.schema import DeviceMemory
from study.smoothness.context import exact_float32
from study.training import evaluate
from study.training.loop import EVALUATION_BATCH

# The share of a device's memory that all groups together may fill: allocators leave gaps.
FILLED = 0.9
# Bytes that a process takes beside its tensors: CUDA's context and the code of its libraries.
CONTEXT = 600 * 2**20
# Ray counts GPUs in ten-thousandths.
_UNITS = 10_000


def sharing_gpus(plan: Plan, folder: Path, execution: Mapping[str, Execution], ask: Ask | None) -> tuple[Plan, str]:
    """``plan``, with a larger ``resources.gpus`` where groups would not fit on a GPU side by side, and a line that says so.

    ``execution``: how replicates train, by cell. The line is empty where there is nothing to say. ``ask``
    (``study.resources.timing``) runs functions where there is a GPU; where it is ``None`` the share is as asked. Takes some
    seconds per cell, and once as long as measuring one replicate per network. Raises ``UserError`` where not even one
    group fits.
    """
    asked = plan.spec.resources.gpus
    if not 0 < asked < 1:
        return plan, ""
    if ask is None:
        return plan, f"no GPU here to measure memory on: groups share one as resources.gpus = {asked:g} says"
    device, total = ask(metered, "device")
    training, needs = _needs(plan, folder / MEMORY, execution, ask, f"{device}, {total} bytes")
    largest = max(needs, key=lambda name: needs[name])
    beside = _data(plan) + CONTEXT
    # the driver has just measured and keeps a context of its own
    room = FILLED * total - CONTEXT
    filled = f"a group of {largest} fills {_gib(needs[largest] + beside)} of {_gib(total)} ({device})"
    if max(training.values()) + beside > room:
        raise UserError(f"resources.gpus = {asked:g}: not even one group fits on a GPU: {filled}")
    # measuring itself would go on in smaller chunks, but would leave no memory to other groups
    fit, wanted = max(1, int(room / (needs[largest] + beside))), _UNITS // max(1, round(asked * _UNITS))
    if fit >= wanted:
        return plan, ""
    return (
        _with_gpus(plan, _UNITS // fit / _UNITS),
        f"{fit} group{'s' if fit > 1 else ''} on a GPU at once, not the {wanted} of resources.gpus = {asked:g}: {filled}",
    )


def whole_gpu(plan: Plan) -> tuple[Plan, str]:
    """``plan`` where one group runs at a time, so that none shares a GPU, and a line that says so, or is empty."""
    if not 0 < plan.spec.resources.gpus < 1:
        return plan, ""
    told = f"one group at a time: it has the GPU to itself, not the {plan.spec.resources.gpus:g} of resources.gpus"
    return _with_gpus(plan, 1), told


def _with_gpus(plan: Plan, gpus: float) -> Plan:
    resources = plan.spec.resources.model_copy(update={"gpus": gpus})
    return dataclasses.replace(plan, spec=plan.spec.model_copy(update={"resources": resources}))


def _needs(
    plan: Plan, path: Path, execution: Mapping[str, Execution], ask: Ask, device: str
) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes by cell, of training and of all; read from ``path`` where they are known, else measured and written there."""
    kept: dict[str, Any] = read_json(path, dict[str, DeviceMemory]) or {}
    known = kept.setdefault(device, {"training": {}, "measuring": {}})
    before, configs = json.dumps(kept), {cell.name: _config(plan, cell) for cell in plan.cells}
    training = {}
    for name, config in configs.items():
        way = execution.get(name, Execution())
        # options of the step take memory of their own: a graph keeps that of a whole step
        label = "+".join([name, *way.step])
        if label not in known["training"]:
            known["training"][label] = ask(metered, "training", config, way.together, way.step)
        training[name] = known["training"][label]
    networks = {name: f"{config.structure}, {config.dataset}" for name, config in configs.items()}
    # a later run of the study may measure other statistics
    statistics = [[name, settings] for _, name, settings in plan.spec.measure.all()]
    for network in dict.fromkeys(networks.values()):
        if known["measuring"].get(network, {}).get("statistics") != statistics:
            largest = max((name for name in configs if networks[name] == network), key=training.__getitem__)
            found = ask(metered, "measuring", configs[largest], statistics) if statistics else 0
            known["measuring"][network] = {"bytes": found, "statistics": statistics}
    if json.dumps(kept) != before:
        write_json(path, kept)
    return training, {name: max(training[name], known["measuring"][networks[name]]["bytes"]) for name in configs}


def _config(plan: Plan, cell: Cell) -> TrialConfig:
    """A replicate of the cell, with the largest batch that its search may choose."""
    batch, config = plan.spec.in_cell(cell.settings).nuisance.get("batch_size"), plan.default_config(cell)
    if isinstance(batch, Choice):
        return dataclasses.replace(config, batch_size=max(map(int, batch.choices)))
    return config


def _data(plan: Plan) -> int:
    """Bytes of images that a worker keeps on the device between trials."""
    names = {cell.settings["dataset"] for cell in plan.cells}
    held = [part for name in names for part in (load_dataset(name).pool, load_dataset(name).test)]
    return sum(part.stored.nbytes + part.labels.nbytes for part in held if isinstance(part, Split))


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"


def metered(method: str, *arguments: Any) -> Any:
    """What a method of ``CudaMeter`` returns."""
    return getattr(CudaMeter(), method)(*arguments)


class CudaMeter:
    """The first GPU of this machine, in bytes that torch's allocator reserves at most; all of it where work does not fit."""

    kind = "cuda"

    def device(self) -> tuple[str, int]:
        """Its name and memory in bytes."""
        known = torch.cuda.get_device_properties(0)
        return known.name, known.total_memory

    def training(self, config: TrialConfig, together: int, step: Sequence[str] = ()) -> int:
        """Bytes for steps, with options ``step``, and an evaluation of ``together`` replicates that train as one."""
        known = dataset_facts(config.dataset)

        def steps() -> None:
            timer(config, known, together, self.kind, options=step)

        def evaluation() -> None:
            part = random_split(known, min(EVALUATION_BATCH, known.num_val), self.kind)
            evaluate(untrained(config, known).to(self.kind), part.batches(EVALUATION_BATCH))

        return max(self._filled(steps), together * self._filled(evaluation))

    def measuring(self, config: TrialConfig, statistics: list[list[Any]]) -> int:
        """Bytes for measuring one replicate; ``statistics`` as pairs of name and settings."""
        known = dataset_facts(config.dataset)
        most = known.num_train if isinstance(load_dataset(config.dataset).pool, Split) else NUM_HELD
        sizes = {"train": known.num_train, "val": known.num_val, "test": known.num_test}

        def measured() -> None:
            parts = {name: random_split(known, min(num, most), self.kind) for name, num in sizes.items()}
            model, batch = untrained(config, known).to(self.kind), config.batch_size
            # a statistic that an untrained network cannot give is left out
            with (
                contextlib.suppress(UserError),
                measure_context(model, parts, known.num_classes, seed=0, batch_size=batch) as context,
            ):
                for name, settings in statistics:
                    estimates_of(name, settings, context)

        return self._filled(measured)

    def _filled(self, work: Callable[[], None]) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            with exact_float32():
                work()
        except Exception as error:
            if not out_of_memory(error):
                raise
            return self.device()[1]
        finally:
            filled = torch.cuda.max_memory_reserved()
            torch.cuda.empty_cache()
        return filled

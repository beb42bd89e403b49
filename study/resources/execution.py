"""https://arxiv.org/abs/2102.02344 (HFTA): how replicates of a cell train, measured once and then frozen.

Whether replicates gain by training together, or by a training step with options (``study.training.options``), depends on the
network, its data, the batch and the device, so it is measured: serial steps and others in turn, on random pixels, once for
each network, size and batch of a study (operators and attention are taken to gain alike). ``execution.json`` beside the
ledger keeps what was found; it is never measured again, because last digits depend on it. A study whose results are older
than this choice goes on as it began, one by one and by the plain step.
"""

import dataclasses
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from study.atomic import read_json, write_text
from study.config import TrialConfig
from study.data.facts import Facts, dataset_facts
from study.planning.plan import Cell, Plan
from study.resources.timing import FEW_IMAGES, Ask, medians, timer
from study.task import Execution
from study.training.fused import out_of_memory
from study.training.options import OPTIONS, obstacle

FILE = "execution.json"
# A fused group, or an option of the step, must make the same trainings this much faster.
WORTHWHILE = 1.1
# A serial step of more than this many seconds, of few images, is not worth measuring: the device is busy as it is.
_SLOW_STEP = 0.3
# Compiling takes up to a minute in each process and network: for trainings of fewer seconds it is not tried.
_WORTH_COMPILING = 300.0


def frozen_execution(plan: Plan, folder: Path, ask: Ask | None, *, started: bool) -> dict[str, Execution]:
    """For every cell of ``plan``, how many of its replicates train together (1: one by one), and by what step.

    Read from ``folder``; what is not there yet is decided now and written, as measured where ``ask``
    (``study.resources.gpu``) runs
    functions; where it is ``None``, without measuring. ``started``: whether the study has results.
    Cost: some seconds for each network, where ``resources.fuse`` is ``auto`` or ``resources.step`` holds it; warns of an
    option that was asked for and cannot be had.
    """
    path = folder / FILE
    held: dict[str, Any] | None = read_json(path)
    before, chosen = held or {}, dict(held or {})
    measured: dict[tuple[Any, ...], dict[str, Any]] = {}
    for cell in plan.cells:
        if cell.name not in chosen:
            chosen[cell.name] = {"together": 1} if started and held is None else _decide(plan, cell, measured, ask)
    if chosen != before:
        write_text(path, json.dumps(chosen, indent=2) + "\n")
    # a file that is older than the step's options says nothing of them: the step was plain
    return {
        cell.name: Execution(
            together=chosen[cell.name]["together"], step=tuple(chosen[cell.name].get("step", {}).get("options", ()))
        )
        for cell in plan.cells
    }


def _decide(plan: Plan, cell: Cell, measured: dict[tuple[Any, ...], dict[str, Any]], ask: Ask | None) -> dict[str, Any]:
    nuisance = {name: value.default for name, value in plan.spec.nuisance.items()}
    config = plan.confirm_config(cell, 0, 0, nuisance)
    like = (config.network, config.depth, config.width, config.dataset, config.batch_size, config.jacobian_penalty > 0)
    if like not in measured:
        threads = torch.get_num_threads()
        torch.set_num_threads(plan.spec.resources.threads)
        try:
            measured[like] = _group(plan, config, ask)
            if plan.spec.resources.step:
                measured[like]["step"] = _step(plan, config, measured[like]["together"], ask)
        finally:
            torch.set_num_threads(threads)
    return measured[like]


def _group(plan: Plan, config: TrialConfig, ask: Ask | None) -> dict[str, Any]:
    resources = plan.spec.resources
    # a group holds members of different blocks, or all replicates of one
    most = min(resources.group, max(plan.spec.blocks, plan.spec.replicates))
    if resources.fuse == "always":
        return {"together": most}
    if resources.fuse == "never" or most == 1 or ask is None:
        return {"together": 1}
    found: dict[str, Any] = ask(measure_groups, config, dataset_facts(config.dataset), most, _device(plan))
    return found


def _step(plan: Plan, config: TrialConfig, together: int, ask: Ask | None) -> dict[str, Any]:
    device, asked = _device(plan), plan.spec.resources.step
    named = [option for option in OPTIONS if option in asked]
    absent = {option: why for option in named if (why := ask(obstacle, option, config, device))} if ask else {}
    for option, why in absent.items():
        warnings.warn(f"resources.step: {option!r} is left out: {why}", stacklevel=2)
    named = [option for option in named if option not in absent]
    if "auto" not in asked or ask is None:
        return {"options": named, "left_out": absent}
    found: dict[str, Any] = ask(measure_step, config, dataset_facts(config.dataset), together, device, named)
    return found


def _device(plan: Plan) -> str:
    return "cuda" if plan.spec.resources.gpus else "cpu"


def measure_groups(config: TrialConfig, known: Facts, group: int, device: str) -> dict[str, Any]:
    """``together``, the size up to ``group`` of least time a replicate, and ``milliseconds`` a replicate-step by size."""
    timers: dict[int, Callable[[], float]] = {}
    if few_images_are_slow(config, known, device):
        return {"together": 1}
    for size in sizes(group):
        try:
            timers[size] = timer(config, known, size, device)
            timers[size]()
        except Exception as error:
            # the largest size that fits, or, for what cannot be stacked, none
            timers.pop(size, None)
            if not out_of_memory(error) and size == 1:
                raise
            break
    found = medians(timers)
    best = min(found, key=lambda size: found[size])
    return {
        "together": best if found[1] >= WORTHWHILE * found[best] else 1,
        "milliseconds": {str(size): round(1000 * seconds, 3) for size, seconds in found.items()},
        "device": _name(device),
    }


def measure_step(
    config: TrialConfig, known: Facts, together: int, device: str, named: Sequence[str] = ()
) -> dict[str, Any]:
    """``options`` of the step, ``named`` and what makes it faster, added one by one, for ``together`` replicates.

    ``milliseconds`` a replicate-step with the options tried, ``+`` between them; ``left_out`` says why others were not.
    Every option is beside the best so far, timed in turn, and stays where it makes the step ``WORTHWHILE`` faster.
    bfloat16 is timed in the end, and not chosen: it changes more than last digits.
    """
    if few_images_are_slow(config, known, device):
        return {
            "options": list(named),
            "left_out": {"auto": f"a step of {FEW_IMAGES} images takes over {_SLOW_STEP} s"},
        }
    chosen, left_out, told = tuple(named), {}, {}
    steps = config.epochs * (known.num_train // min(config.batch_size, known.num_train))
    try:
        best = timer(config, known, together, device, options=chosen)
        best()
        seconds = best()
    except Exception as error:  # noqa: BLE001  training itself will say so, with fewer at once or without the options
        return {"options": list(named), "left_out": {"auto": f"{type(error).__name__}: {error}".splitlines()[0]}}
    told[_label(chosen)] = seconds
    for option in OPTIONS:
        why = obstacle(option, config, device)
        if option == "compile" and not why and steps * seconds < _WORTH_COMPILING:
            why = f"a training takes {steps * seconds:.3g} s, which compiling would not pay back"
        if option in chosen or (option == "fused" and together > 1):
            continue
        if why:
            left_out[option] = why
            continue
        more = (*chosen, option)
        try:
            tried = timer(config, known, together, device, options=more)
            tried()
            found = medians({"best": best, "tried": tried})
        except Exception as error:  # noqa: BLE001  what a device or a network does not bear is left out
            left_out[option] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        told[_label(chosen)], told[_label(more)] = found["best"], found["tried"]
        if option == "bf16":
            left_out[option] = "it changes more than last digits: name it in resources.step where that is wanted"
        elif found["best"] >= WORTHWHILE * found["tried"]:
            chosen, best, seconds = more, tried, found["tried"]
    return {
        "options": list(chosen),
        "milliseconds": {label: round(1000 * value, 3) for label, value in told.items()},
        "left_out": left_out,
        "device": _name(device),
    }


def _label(options: Sequence[str]) -> str:
    return "+".join(options) or "plain"


def _name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else device


def sizes(group: int) -> list[int]:
    """1, 2, 4 and so on up to ``group``, which is the last."""
    return sorted({2**power for power in range(group.bit_length())} | {group})


def few_images_are_slow(config: TrialConfig, known: Facts, device: str) -> bool:
    """Whether a step of a few images alone keeps the device busy for long."""
    few = timer(dataclasses.replace(config, batch_size=FEW_IMAGES), known, 1, device, steps=1)
    return few() > _SLOW_STEP

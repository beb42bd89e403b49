"""How replicates of a cell train: how many as one network and by what step, measured once and then frozen.

Whether replicates gain by training together, or by a training step with options (``study.training.options``), depends on the
network, its data, the batch and the device. So it is measured: serial steps and others in turn, on random pixels, once per
network, size and batch of a study (operators and attention are taken to gain alike). ``execution.json`` beside the ledger
keeps the choice. It is never measured again, because last digits depend on it. A study that has results but no such file
goes on as it began: one by one and by the plain step.

Source: https://arxiv.org/abs/2102.02344 (HFTA)
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from study.atomic import read_json, write_json
from study.config import Execution, TrialConfig, is_own
from study.data.dataset import Facts, dataset_facts
from study.errors import out_of_memory, reason
from study.planning.layout import Cell, Plan
from study.resources.timing import FEW_IMAGES, Ask, few_images, medians, timer, torch_threads
from study.results.files import EXECUTION
from study.schema import ExecutionChoice
from study.training.options import OPTIONS, obstacle

# A fused group, or an option of the step, must make the same trainings this many times faster.
WORTHWHILE = 1.1
# If a serial step of few images takes longer, in seconds, the device is busy and nothing else is measured.
_SLOW_STEP = 0.3
# Compiling takes up to a minute per process and network: it is not tried for trainings of fewer seconds.
_WORTH_COMPILING = 300.0


def frozen_execution(plan: Plan, folder: Path, ask: Ask | None, *, started: bool) -> dict[str, Execution]:
    """How many replicates of each cell of ``plan`` train together (1: one by one), and by what step.

    Read from ``folder``. What is missing there is decided now and written: by measuring where ``ask``
    (``study.resources.timing``) runs functions, without measuring where it is ``None``. ``started``: whether the study has
    results. Takes some seconds per network where ``resources.fuse`` or ``resources.step`` is ``auto``. Warns of an option
    that was asked for and cannot be had.
    """
    path = folder / EXECUTION
    held: dict[str, Any] | None = read_json(path, dict[str, ExecutionChoice])
    before, chosen = held or {}, dict(held or {})
    measured: dict[tuple[Any, ...], dict[str, Any]] = {}
    for cell in plan.cells:
        if cell.name not in chosen:
            chosen[cell.name] = {"together": 1} if started and held is None else _decide(plan, cell, measured, ask)
    if chosen != before:
        write_json(path, chosen)
    # a file without a step is older than the step's options: the step was plain
    return {
        name: Execution(together=held["together"], step=tuple(held.get("step", {}).get("options", ())))
        for name, held in ((cell.name, chosen[cell.name]) for cell in plan.cells)
    }


def _decide(plan: Plan, cell: Cell, measured: dict[tuple[Any, ...], dict[str, Any]], ask: Ask | None) -> dict[str, Any]:
    config = plan.default_config(cell)
    like = (config.structure, config.dataset, config.batch_size, config.optimizer, config.jacobian_penalty > 0)
    if like not in measured:
        with torch_threads(plan.spec.resources.threads):
            measured[like] = _group(plan, config, ask)
            if plan.spec.resources.step:
                measured[like]["step"] = _step(plan, config, measured[like]["together"], ask)
    return measured[like]


def _group(plan: Plan, config: TrialConfig, ask: Ask | None) -> dict[str, Any]:
    resources = plan.spec.resources
    # a group holds members of different blocks, or all replicates of one
    most = min(resources.group, max(plan.spec.blocks, plan.spec.replicates))
    fused = most > 1 and resources.fuse != "never"
    if fused and ask is not None and is_own(config.network) and (why := _apart(plan, config, ask)):
        warnings.warn(f"network {config.structure!r}: its replicates train one by one: {why}", stacklevel=2)
        return {"together": 1}
    if resources.fuse == "always":
        return {"together": most}
    if resources.fuse == "never" or most == 1 or ask is None:
        return {"together": 1}
    known, layouts = dataset_facts(config.dataset), _layouts(resources.step)
    found: dict[str, Any] = ask(measure_groups, config, known, most, _device(plan), layouts)
    return found


def _layouts(asked: Sequence[str]) -> Sequence[tuple[str, ...]]:
    """Options that decide which size is fastest, of those that a study may train by: what lies innermost in memory."""
    inward = ("channels_last",)
    return [inward] if "channels_last" in asked else [(), inward] if "auto" in asked else [()]


def _apart(plan: Plan, config: TrialConfig, ask: Ask) -> str:
    return str(ask(apart, few_images(config), dataset_facts(config.dataset), _device(plan)))


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


def apart(config: TrialConfig, known: Facts, device: str) -> str:
    """Why replicates of a network of one's own cannot train as one (it draws, or looks at its numbers); empty if they can."""
    try:
        timer(config, known, 2, device, steps=1)
    except Exception as error:  # noqa: BLE001  whatever a user's module raises under vmap
        return reason(error)
    return ""


def measure_groups(
    config: TrialConfig, known: Facts, group: int, device: str, layouts: Sequence[tuple[str, ...]] = ((),)
) -> dict[str, Any]:
    """``together``, the size up to ``group`` that takes least time per replicate, by the best for it of ``layouts``.

    ``layouts``: options of the step. ``milliseconds`` per replicate and step, by size and options ("8", "8 channels_last").
    """
    if _is_slow(config, known, device):
        return {"together": 1}
    timers: dict[tuple[int, tuple[str, ...]], Callable[[], float]] = {}
    for size in sizes(group):
        before = len(timers)
        for options in layouts:
            try:
                timers[size, options] = timer(config, known, size, device, options=options)
            except Exception as error:
                # options, as groups, are for what can be stacked
                if not out_of_memory(error) and size == 1 and not options:
                    raise
        if len(timers) == before:
            # larger sizes do not fit either; what cannot be stacked trains one by one
            break
    if not timers:
        return {"together": 1}
    found = medians(timers)
    best = min(found, key=lambda timed: found[timed])
    alone = min(seconds for (size, _), seconds in found.items() if size == 1)
    return {
        "together": best[0] if alone >= WORTHWHILE * found[best] else 1,
        "milliseconds": {
            " ".join([str(size), *options]): round(1000 * seconds, 3) for (size, options), seconds in found.items()
        },
        "device": _name(device),
    }


def measure_step(
    config: TrialConfig, known: Facts, together: int, device: str, named: Sequence[str] = ()
) -> dict[str, Any]:
    """``options`` of the step for ``together`` replicates: those ``named``, and each further one that makes it faster.

    Options are added one by one. Each is timed in turn with the best so far, and stays if the step is ``WORTHWHILE`` times
    faster. bfloat16 is timed last and never chosen, because it changes more than last digits. ``milliseconds`` per
    replicate and step by the options tried, ``+`` between them; ``left_out`` says why an option was not chosen.
    """
    if _is_slow(config, known, device):
        why = f"a step of {FEW_IMAGES} images takes over {_SLOW_STEP} s"
        return {"options": list(named), "left_out": {"auto": why}}
    chosen, left_out, told = tuple(named), {}, {}
    steps = config.epochs * (known.num_train // min(config.batch_size, known.num_train))
    try:
        best = timer(config, known, together, device, options=chosen)
        seconds = best()
    except Exception as error:  # noqa: BLE001  training itself will tell it, with fewer at once or without the options
        return {"options": list(named), "left_out": {"auto": _reason(error)}}
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
            found = medians({"best": best, "tried": tried})
        except Exception as error:  # noqa: BLE001  an option that the device or the network cannot take is left out
            left_out[option] = _reason(error)
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


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _label(options: Sequence[str]) -> str:
    return "+".join(options) or "plain"


def _name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else device


def sizes(group: int) -> list[int]:
    """1, 2, 4 and so on up to ``group``, which is the last."""
    return sorted({2**power for power in range(group.bit_length())} | {group})


def _is_slow(config: TrialConfig, known: Facts, device: str) -> bool:
    """Whether a step of a few images alone keeps the device busy for long."""
    return timer(few_images(config), known, 1, device, steps=1)() > _SLOW_STEP

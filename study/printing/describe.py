"""What ``plan``, ``cost``, ``run`` and ``status`` print."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console

from analysis.claims.power_words import power_lines, verdict_warning
from analysis.inputs import Inputs
from analysis.report.summary import DEMONSTRATION, summary
from analysis.tables.build import build_table
from analysis.words.spending import device_hours, unit
from search_spaces import Resources
from study.config import is_own
from study.data import dataset_facts
from study.errors import UserError, nearest
from study.models.cost import LayerCost, layer_costs
from study.planning.layout import Cell, Plan
from study.planning.networks import untrained
from study.printing.console import print_table, say, say_heading
from study.printing.status import used_up
from study.resources.forecast import CellForecast, forecast, forecast_device, total_seconds
from study.results.files import FIGURES_FOLDER, REPORT
from study.results.ledger import Contents
from study.results.revisions import num_outdated
from study.results.workspace import Workspace

_OUTDATED = "re-estimated batch norm in an earlier revision of their form: those metrics are left out (docs/faults.md)"
# A warning is printed where measuring in mid-training takes a larger share of training.
MOST_DURING = 0.1
_NUMBERS = ("trained parameters", "FLOPs", "activations")


def described(plan: Plan, price: float | None = None) -> dict[str, Any]:
    """What ``plan --json`` prints: cells with their cost, numbers of trainings, seconds, and the lines of ``print_plan``.

    ``price``: per hour of a GPU, or of a core where the study trains on the CPU. Times a few steps, trains nothing.
    """
    device = forecast_device(plan)
    cells = forecast(plan, device)
    return {
        "study": plan.spec.name,
        "title": plan.spec.title,
        "device": device,
        "cells": [dataclasses.asdict(cell) for cell in cells],
        "trainings": {"search": plan.num_search, "confirm": plan.num_confirm, "shortened": plan.num_short},
        "seconds_of_one_worker": total_seconds(plan, cells),
        "lines": _lines(plan, cells, device, price),
    }


def print_plan(plan: Plan, console: Console, price: float | None = None) -> None:
    """Print cells with their cost, trials, model-guided suggestions, forecast, power. Times a few steps, trains nothing.

    ``price``: per hour of a GPU, or of a core where the study trains on the CPU.
    """
    spec, device = plan.spec, forecast_device(plan)
    cells = forecast(plan, device)
    headings = ("cell", "trained parameters", "MFLOPs", "s a search trial", "s a confirm", "s measuring")
    rows = []
    for cell in cells:
        seconds = (cell.search_seconds, cell.confirm_seconds, cell.measure_seconds)
        rows.append((cell.cell, f"{cell.params:,}", f"{cell.flops / 1e6:,.2f}", *(f"{s:,.2f}" for s in seconds)))
    say_heading(console, spec.name, spec.title)
    print_table(console, headings, rows)
    for line in _lines(plan, cells, device, price):
        say(console, line)


def _lines(plan: Plan, cells: list[CellForecast], device: str, price: float | None) -> list[str]:
    """What follows the table of cells."""
    lines = _joint_lines(plan, cells) if plan.spec.joint else _plan_lines(plan, cells, device)
    floors = ", ".join(f"{floor:.4g} on {dataset}" for dataset, floor in plan.spec.accuracy_floor.items())
    lines.append(f"accuracy_floor: {floors}; a network that ends below it on validation images counts as collapsed")
    if price is not None:
        lines.append(money(total_seconds(plan, cells), plan.spec.resources, price, device))
    return [*lines, DEMONSTRATION] if plan.spec.demonstration else lines


def _plan_lines(plan: Plan, cells: list[CellForecast], device: str) -> list[str]:
    """Trainings, suggestions, sizes, expected time, measuring, power, warnings."""
    spec, budget = plan.spec, plan.spec.budget
    trials = plan.trials_a_search
    guided = len(plan.cells) * spec.blocks * max(0, trials - budget.startup_trials)
    params, flops = [cell.params for cell in cells], [cell.flops for cell in cells]
    return [
        f"{len(plan.cells)} cells x {spec.blocks} blocks x ({trials} search trials + {spec.replicates} "
        f"confirmed{_shortened(plan)}) = {'at most ' if spec.sequential else ''}{plan.num_search} + {plan.num_confirm}"
        + (f" + {plan.num_short}" if plan.num_short else "")
        + " trainings",
        f"{guided} suggestions are guided by the {spec.sampler.name} sampler; the others are one Sobol set a block, "
        "shared by all cells",
        f"networks of {min(params):,} to {max(params):,} parameters and {min(flops) / 1e6:,.4g} to "
        f"{max(flops) / 1e6:,.4g} MFLOPs an image; {sum(cell.training_flops for cell in cells):.2g} FLOPs of training in all",
        _expected(plan, cells, device),
        *_untimed(cells),
        *_measuring(plan, cells),
        *power_lines(spec),
        *_warnings(plan),
    ]


def _joint_lines(plan: Plan, cells: list[CellForecast]) -> list[str]:
    """Trials, objectives and expected time of a joint search, whose cells have no budget of their own."""
    spec, budget = plan.spec, plan.spec.budget
    assert spec.joint is not None
    wanted = ", ".join(f"{objective.direction} {objective.name}" for objective in spec.joint.objectives)
    trials = plan.trials_a_search
    guided = spec.blocks * max(0, trials - budget.startup_trials)
    return [
        f"joint search over {len(plan.cells)} cells: {wanted}",
        f"{spec.blocks} blocks x ({trials} search trials + at most {spec.joint.confirm} confirmed) = "
        f"{plan.num_search} + {plan.num_confirm} trainings",
        f"{guided} suggestions are guided by the {spec.sampler.name} sampler; the others are one Sobol set a block",
        f"expected: about {total_seconds(plan, cells) / 60:.1f} min of one worker, timed here on random weights",
        "a search for the best network: cells get unequal budgets, so that it shows no effect and has no verdict",
    ]


def _measuring(plan: Plan, cells: Sequence[CellForecast]) -> list[str]:
    """The cost of measuring as a share of training, and a warning where mid-training takes more than ``MOST_DURING``."""
    training = sum(cell.confirm_seconds for cell in cells)
    if not list(plan.spec.measure.all()) or not training:
        return []
    after, during = sum(cell.measure_seconds for cell in cells), sum(cell.during_seconds for cell in cells)
    line = f"measuring a confirmed replicate: {after / training:.0%} of its training"
    if plan.spec.measure.during:
        line += f", and {during / training:.0%} in mid-training"
    lines = [line + ", timed here on a small network"]
    if plan.spec.measure.during and during > MOST_DURING * training:
        lines.append(
            f"warning: measuring in mid-training takes more than {MOST_DURING:.0%} of it: measure.during.every = "
            f"{plan.spec.measure.during.every} could be larger, or the number of samples smaller"
        )
    return lines


def _untimed(cells: Sequence[CellForecast]) -> list[str]:
    num = sum(not cell.timed for cell in cells)
    return [f"{num} of {len(cells)} cells were not timed: their times follow from their FLOPs"] if num else []


def _shortened(plan: Plan) -> str:
    shares = plan.spec.budget.shortened
    return f" + {len(shares)} shortened each" if shares else ""


def _expected(plan: Plan, cells: list[CellForecast], device: str) -> str:
    """The whole study's time, from the steps timed just now."""
    seconds, gpus = total_seconds(plan, cells), plan.spec.resources.gpus
    if device == "cuda":
        alone = f"timed here on {torch.cuda.get_device_name()}, a trial alone on it"
        num = plan.spec.resources.data_parallel
        waiting = f", without what the {num} processes of a trial wait for each other" if num > 1 else ""
        return f"expected: {gpu_hours(seconds, gpus)}, {alone}{waiting}"
    text = f"expected: {_duration(seconds)} of one worker ({_duration(seconds / 2)} with two), timed here on random weights"
    return f"{text}; there is no GPU here: plan on a host with one for GPU hours" if gpus else text


def gpu_hours(seconds: float, gpus: float) -> str:
    """GPU hours of ``seconds`` of trials that occupy ``gpus`` each; a fraction costs its share at least, a whole at most."""
    hours = seconds / 3600
    shared = f", up to {hours:,.1f} where trials that share one slow each other down" if gpus < 1 else ""
    return f"{hours * gpus:,.1f} GPU hours{shared}"


def money(seconds: float, resources: Resources, price: float, device: str) -> str:
    """The cost of ``seconds`` of trials, timed on ``device``, at ``price`` per GPU hour (per core hour without GPUs)."""
    if resources.gpus and device != "cuda":
        return "money: there is no GPU here to time steps on; plan on a host with one"
    least, most = price * device_hours(seconds, resources), price * seconds / 3600
    shared = f", up to {most:,.2f} where trials that share one slow each other down" if 0 < resources.gpus < 1 else ""
    return f"money: {least:,.2f} at {price:g} a {unit(resources)} hour{shared}; idle hours come on top"


def _warnings(plan: Plan) -> list[str]:
    """What stands in the way of a verdict, and what would be enough."""
    spec, lines = plan.spec, used_up(plan)
    if spec.joint:
        return lines
    if spec.blocks == 1:
        lines.append("warning: one block: effects hold at the hyperparameters found, and carry no verdict")
    elif warning := verdict_warning(spec):
        lines.append(f"warning: {warning}")
    if spec.control is None:
        shown = "{arm: {merge: add_alias}, reference: {merge: add}}"
        if all(is_own(plan.default_config(cell).network) for cell in plan.cells):
            shown = "{arm: {FACTOR: LEVEL_alias}, reference: {FACTOR: LEVEL}}, with LEVEL_alias among the levels"
        lines.append(f"warning: no A/A control (control: {shown})")
    return lines


def print_cost(plan: Plan, name: str, console: Console) -> None:
    """Print every layer of the cell called ``name`` (of the first cell if it is empty) and the total of each other cell.

    Numbers are per image. Raises ``UserError`` for an unknown cell.
    """
    cells = {cell.name: cell for cell in plan.cells}
    name = name or plan.cells[0].name
    if name not in cells:
        raise UserError(f"--cell: unknown cell {name!r}{nearest(name, cells)}")
    layers = _layers(plan, cells[name])
    rows = [(row.name or "(network)", row.kind, "x".join(map(str, row.shape)), *_numbers([row])) for row in layers]
    rows.append(("total", "", "", *_numbers(layers)))
    print_table(console, ("layer", "kind", "output", *_NUMBERS), rows, title=name, num_left=2)
    say(console, "one image; a multiply-add is two FLOPs, of convolutions, linear layers and matrix products alone")
    if others := [cell for cell in plan.cells if cell.name != name]:
        totals = [(cell.name, *_numbers(_layers(plan, cell))) for cell in others]
        print_table(console, ("other cells", *_NUMBERS), totals)


def _layers(plan: Plan, cell: Cell) -> list[LayerCost]:
    config = plan.default_config(cell)
    known = dataset_facts(config.dataset)
    return layer_costs(untrained(config, known), known.image_shape)


def _numbers(layers: Sequence[LayerCost]) -> tuple[str, ...]:
    """The sums over ``layers``, one for each of ``_NUMBERS``."""
    costs = [(layer.params, layer.flops, layer.activations) for layer in layers]
    return tuple(f"{sum(column):,}" for column in zip(*costs, strict=True))


def start_lines(plan: Plan, contents: Contents, workspace: Workspace) -> list[str]:
    """What is about to run, warnings, and what is there already."""
    spec = plan.spec
    lines = [
        f"{spec.name}: {len(plan.cells)} cells, {spec.blocks} blocks, {plan.num_search} search trials, "
        f"{plan.num_confirm} confirmed replicates{_shortened(plan)} -> {workspace.root}",
        *_warnings(plan),
    ]
    if contents.num_damaged:
        lines.append(f"warning: {contents.num_damaged} damaged ledger lines were left out; what they held is run again")
    if contents.replicates:
        lines.append(f"continuing: {len(contents.replicates)} replicates are in the ledger")
    if outdated := num_outdated(contents):
        lines.append(f"{outdated} of them {_OUTDATED}")
    return lines


def print_results(inputs: Inputs, console: Console) -> None:
    """Print claims, main effects and what to know before believing them; of a joint search, each block's Pareto front."""
    if inputs.spec.joint:
        for row in build_table(inputs, "pareto").to_pylist():
            reached = row["test_accuracy"]
            tested = row["state"] or "not confirmed yet" if reached is None else f"test accuracy {100 * reached:.1f}%"
            say(console, f"block {row['block']}: {row['cell']} ({row['settings']}): {row['objectives']}; {tested}")
        return
    found = summary(inputs)
    blocks = {
        "claims": found.claims,
        "effects": found.effects.lines(),
        "every other level against the reference (exploratory, no verdict)": found.levels.lines(),
        "notes": found.notes,
    }
    for heading, lines in blocks.items():
        if lines:
            say_heading(console, f"{inputs.spec.name}: {heading}")
        for line in lines:
            say(console, line)


def print_places(workspace: Workspace, tracking: str, console: Console) -> None:
    """Print where everything is. ``tracking``: the MLflow store, without credentials."""
    places = {
        "report": workspace.root / REPORT,
        "tables": workspace.tables,
        "figures": workspace.root / FIGURES_FOLDER,
        "mlflow": f"{tracking}   (fmm-study ui {workspace.argument})",
    }
    for what, where in places.items():
        say(console, f"{what + ':':9}{where}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 360_000 else f"{seconds / 3600:,.0f} h"

"""What the commands print: a plan, a study's status, the end of a run."""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from analysis.claims.power_words import power_lines, verdict_warning
from analysis.inputs import Inputs
from analysis.report.summary import DEMONSTRATION, summary
from analysis.words.spending import device_hours, unit
from search_spaces import Resources
from study.planning.plan import Plan
from study.printing.console import say
from study.printing.joint import plan_lines, result_lines
from study.resources.forecast import CellForecast, forecast, forecast_device, total_seconds
from study.results.files import FIGURES_FOLDER, REPORT
from study.results.ledger import Contents
from study.results.workspace import Workspace
from study.schema import STATES

# Measuring in mid-training that takes a larger share of training than this is warned of.
MOST_DURING = 0.1


def print_plan(plan: Plan, console: Console, price: float | None = None) -> None:
    """Cells with their cost, trials, model-guided suggestions, forecast, power. Times a few steps, trains nothing.

    ``price``: of a GPU hour, or of a core's hour where the study trains on the CPU.
    """
    spec, device = plan.spec, forecast_device(plan)
    cells = forecast(plan, device)
    table = Table("cell", *_right("parameters", "MFLOPs", "s a search trial", "s a confirm", "s measuring"), box=None)
    for cell in cells:
        each = (cell.search_seconds, cell.confirm_seconds, cell.measure_seconds)
        table.add_row(cell.cell, f"{cell.params:,}", f"{cell.flops / 1e6:,.2f}", *(f"{s:,.2f}" for s in each))
    console.print(f"[bold]{escape(spec.name)}[/bold]  {escape(spec.title)}")
    console.print(table)
    budget = spec.budget
    guided = len(plan.cells) * spec.blocks * (budget.search_trials - budget.startup_trials)
    lines = [
        f"{len(plan.cells)} cells x {spec.blocks} blocks x ({budget.search_trials} search trials + {spec.replicates} "
        f"confirmed{_shortened(plan)}) = {'at most ' if spec.sequential else ''}{plan.num_search} + {plan.num_confirm}"
        + (f" + {plan.num_short}" if plan.num_short else "")
        + " trainings",
        f"{guided} suggestions are guided by the {spec.sampler.name} sampler; the others are one Sobol set a block, "
        "shared by all cells",
        _size(cells),
        _expected(plan, cells, device),
        *_measuring(plan, cells),
        *power_lines(spec),
        *_warnings(plan),
    ]
    if spec.joint:
        lines = plan_lines(plan, cells)
    if price is not None:
        lines.append(money(total_seconds(plan, cells), spec.resources, price, device))
    if spec.demonstration:
        lines.append(DEMONSTRATION)
    for line in lines:
        say(console, line)


def _measuring(plan: Plan, cells: Sequence[CellForecast]) -> list[str]:
    """What measuring costs beside training; a warning where measuring in mid-training takes more than a tenth of it."""
    training = sum(cell.confirm_seconds for cell in cells)
    if not any(True for _ in plan.spec.measure.all()) or not training:
        return []
    after, during = sum(cell.measure_seconds for cell in cells), sum(cell.during_seconds for cell in cells)
    line = f"measuring a confirmed replicate: {after / training:.0%} of its training"
    if plan.spec.measure.during:
        line += f", and {during / training:.0%} in mid-training"
    lines = [line + ", timed here on a small network"]
    if during > MOST_DURING * training:
        every = plan.spec.measure.during.every if plan.spec.measure.during else 0
        lines.append(
            f"warning: measuring in mid-training takes more than {MOST_DURING:.0%} of it: measure.during.every = {every} "
            "could be larger, or the number of samples smaller"
        )
    return lines


def _shortened(plan: Plan) -> str:
    shares = plan.spec.budget.shortened
    return f" + {len(shares)} shortened each" if shares else ""


def _size(cells: Sequence[CellForecast]) -> str:
    params, flops = [cell.params for cell in cells], [cell.flops for cell in cells]
    total = sum(cell.training_flops for cell in cells)
    return (
        f"networks of {min(params):,} to {max(params):,} parameters and {min(flops) / 1e6:,.4g} to "
        f"{max(flops) / 1e6:,.4g} MFLOPs an image; {total:.2g} FLOPs of training in all"
    )


def _expected(plan: Plan, cells: Sequence[CellForecast], device: str) -> str:
    """The whole study's time from the steps timed just now, on the kind of device that they were timed on."""
    seconds, gpus = total_seconds(plan, list(cells)), plan.spec.resources.gpus
    if device == "cuda":
        alone = f"timed here on {torch.cuda.get_device_name()}, a trial alone on it"
        num = plan.spec.resources.data_parallel
        waiting = f", without what the {num} processes of a trial wait for each other" if num > 1 else ""
        return f"expected: {gpu_hours(seconds, gpus)}, {alone}{waiting}"
    text = f"expected: {_duration(seconds)} of one worker ({_duration(seconds / 2)} with two), timed here on random weights"
    return f"{text}; there is no GPU here: plan on a host with one for GPU hours" if gpus else text


def gpu_hours(seconds: float, gpus: float) -> str:
    """Of ``seconds`` of trials that occupy ``gpus`` each; a fraction costs its share at the least, a whole one at most."""
    hours = seconds / 3600
    shared = f", up to {hours:,.1f} where trials that share one slow each other down" if gpus < 1 else ""
    return f"{hours * gpus:,.1f} GPU hours{shared}"


def money(seconds: float, resources: Resources, price: float, device: str) -> str:
    """What ``seconds`` of trials cost at ``price`` an hour of one GPU (a core where they hold none), timed on ``device``."""
    if resources.gpus and device != "cuda":
        return "money: there is no GPU here to time steps on; plan on a host with one"
    least, most = price * device_hours(seconds, resources), price * seconds / 3600
    shared = f", up to {most:,.2f} where trials that share one slow each other down" if 0 < resources.gpus < 1 else ""
    return f"money: {least:,.2f} at {price:g} a {unit(resources)} hour{shared}; idle hours come on top"


def _warnings(plan: Plan) -> list[str]:
    """What stands in the way of a verdict, and how much would be enough."""
    spec = plan.spec
    if spec.joint:
        return []
    lines = []
    if spec.blocks == 1:
        lines.append("warning: one block: effects hold at the hyperparameters found, and carry no verdict")
    elif warning := verdict_warning(spec):
        lines.append(f"warning: {warning}")
    if spec.control is None:
        lines.append("warning: no A/A control (control: {arm: {merge: add_alias}, reference: {merge: add}})")
    return lines


def print_levels(rows: Sequence[Mapping[str, str]], console: Console) -> None:
    """Registered parts, a table a kind."""
    for kind in dict.fromkeys(row["kind"] for row in rows):
        table = Table("name", "formula", "extra parameters", "source", box=None)
        for row in rows:
            if row["kind"] == kind:
                table.add_row(*(escape(row[column]) for column in ("name", "formula", "extra_params", "source")))
        console.print(f"[bold]{kind}[/bold]")
        console.print(table)


def print_start(plan: Plan, contents: Contents, workspace: Workspace, console: Console) -> None:
    """Say what is about to run, and what is there already."""
    spec = plan.spec
    say(
        console,
        f"{spec.name}: {len(plan.cells)} cells, {spec.blocks} blocks, {plan.num_search} search trials, "
        f"{plan.num_confirm} confirmed replicates{_shortened(plan)} -> {workspace.root}",
    )
    for line in _warnings(plan):
        say(console, line)
    if contents.num_damaged:
        lost = f"{contents.num_damaged} damaged ledger lines were left out; what they held is run again"
        say(console, f"warning: {lost}")
    if contents.replicates:
        say(console, f"continuing: {len(contents.replicates)} replicates are in the ledger")


def print_status(plan: Plan, contents: Contents, workspace: Workspace, console: Console) -> None:
    """One row a cell: search trials and replicates done, and every outcome counted."""
    spec = plan.spec
    short = ["shortened"] if plan.num_short else []
    table = Table("cell", *_right("search", "confirmed", *short, *STATES), box=None)
    totals: Counter[str] = Counter()
    for cell in plan.cells:
        records = [r for r in contents.replicates.values() if r["cell"] == cell.name]
        counts = Counter(r["phase"] for r in records) + Counter(r["state"] for r in records)
        totals += counts
        table.add_row(
            cell.name,
            # a joint search gives no cell a number of its own
            f"{counts['search']}" + ("" if spec.joint else f"/{spec.blocks * spec.budget.search_trials}"),
            f"{counts['confirm']}" + ("" if spec.joint else f"/{spec.blocks * spec.replicates}"),
            *(f"{counts['short']}/{plan.num_short // len(plan.cells)}" for _ in short),
            *(str(counts[state] or "-") for state in STATES),
        )
    done = totals["search"] + totals["confirm"] + totals["short"]
    left = plan.num_trainings - done
    waiting = f"at most {left}" if spec.joint or spec.sequential else left
    console.print(table)
    console.print(
        f"{done} done, {waiting} waiting; {_driver(workspace)}",
        highlight=False,
    )
    failed = [record for record in contents.replicates.values() if record["state"] == "failed"]
    for reason, count in Counter(record["reason"].splitlines()[-1] for record in failed).most_common():
        say(console, f"failed ({count}): {reason}")
    if failed:
        say(console, f"to run them again: fmm-study retry {spec.name} --failed")
    if contents.num_damaged:
        say(console, f"{contents.num_damaged} damaged ledger lines were left out")


def print_results(inputs: Inputs, console: Console) -> None:
    """The claims and main effects, and what to know before believing them; of a joint search, what it found."""
    if inputs.spec.joint:
        for line in result_lines(inputs):
            say(console, line)
        return
    found = summary(inputs.spec, inputs.effects, inputs.findings, inputs.assay, inputs.amendment.words)
    for heading, lines in (("claims", found.claims), ("effects", found.lines()), ("notes", found.notes)):
        if lines:
            console.print(f"[bold]{escape(inputs.spec.name)}: {heading}[/bold]", highlight=False)
        for line in lines:
            say(console, line)


def print_places(workspace: Workspace, tracking: str, console: Console) -> None:
    """Where everything is. ``tracking``: the MLflow store, without credentials."""
    places = {
        "report": workspace.root / REPORT,
        "tables": workspace.tables,
        "figures": workspace.root / FIGURES_FOLDER,
        "mlflow": f"{tracking}   (fmm-study ui {workspace.root.name})",
    }
    for what, where in places.items():
        say(console, f"{what + ':':9}{where}")


def _driver(workspace: Workspace) -> str:
    holder = workspace.holder()
    return (
        f"running as process {holder['pid']} on {holder['host']} since {holder['since']}" if holder else "not running"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 360_000 else f"{seconds / 3600:,.0f} h"


def _right(*headings: str) -> list[Column]:
    return [Column(heading, justify="right") for heading in headings]

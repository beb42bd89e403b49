"""The commands that need no study: measure, levels, behaviour, doctor."""

import json
from pathlib import Path
from typing import Annotated

import typer

from study.cli.commands import app, opened
from study.cli.options import RESULTS, AddressOption, JsonOption, PluginOption, StorageOption, TrackingOption
from study.printing.console import open_console


@app.command()
def measure(
    checkpoint: Annotated[
        Path, typer.Argument(help="A replicate's final.pt or best.pt, or with --model a state dict.")
    ],
    statistic: Annotated[list[str], typer.Option(help="One statistic; may be repeated. All if left out.")] = [],
    setting: Annotated[
        list[str], typer.Option("--set", metavar="STATISTIC.KEY=VALUE", help="A setting, e.g. path.num_pairs=500.")
    ] = [],
    model: Annotated[str, typer.Option(metavar="MODULE:FUNCTION", help="What makes a network of one's own.")] = "",
    dataset: Annotated[str, typer.Option(help="What that network is measured on.")] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    plugin: PluginOption = [],
    as_json: JsonOption = False,
) -> None:
    """Take statistics of one trained network, without a study: a kept replicate, or a network of one's own."""
    from study.measuring.network import as_plain, measure_file, parse_statistics
    from study.plugins import load_plugins
    from study.printing.measured import print_measured

    load_plugins(plugin, *([str(Path.cwd())] if plugin else []))
    chosen = parse_statistics(statistic, setting)
    found = measure_file(
        checkpoint, chosen, model=model, dataset=dataset, device=device, say=lambda line: typer.echo(line, err=True)
    )
    if as_json:
        typer.echo(json.dumps(as_plain(found), indent=2))
    else:
        print_measured(found, open_console())


@app.command()
def levels(
    kind: Annotated[
        str | None, typer.Argument(help="One kind alone: merge, attention, dataset, statistic, ...; or outcome.")
    ] = None,
    spec: Annotated[
        str, typer.Argument(metavar="[SPEC]", help="With outcome: what this study's claims may name.")
    ] = "",
    storage: StorageOption = RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list.")] = False,
    plugin: PluginOption = [],
) -> None:
    """List what a specification may name: kind, name, formula, extra parameters, source; and the outcomes of claims."""
    from study.printing.levels import levels, print_levels

    if kind == "outcome" or spec:
        _outcomes(kind, spec, storage, plugin, as_json=as_json)
        return
    rows = levels(kind, plugin)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        print_levels(rows, open_console())


def _outcomes(kind: str | None, spec: str, storage: Path, plugin: list[str], *, as_json: bool) -> None:
    from study.errors import UserError
    from study.plugins import load_plugins
    from study.printing.outcomes import outcomes, plain, print_outcomes, recorded_outcomes
    from study.results.sessions import read_sessions

    if kind != "outcome":
        raise UserError(f"levels {kind} {spec}: only outcomes are listed for a study: fmm-study levels outcome {spec}")
    load_plugins(plugin, *([str(Path.cwd())] if plugin else []))
    if spec:
        asked, workspace = opened(spec, [], storage)
        found = recorded_outcomes(asked, read_sessions(workspace.root)).values()
    else:
        found = outcomes().values()
    if as_json:
        typer.echo(json.dumps(plain(found), indent=2))
    else:
        print_outcomes(found, open_console())


@app.command()
def behaviour(
    merge: Annotated[
        list[str],
        typer.Option(help="One merge operator; may be repeated. All but the authors' rows if left out."),
    ] = [],
    depth: Annotated[list[int], typer.Option(help="6n + 2; may be repeated. 8, 20, 56 and 110 if left out.")] = [],
    width: Annotated[int, typer.Option(help="Of the first stage.", min=1)] = 16,
    blocks: Annotated[bool, typer.Option("--blocks", help="A line a block instead of a line a network.")] = False,
) -> None:
    """Show merge operators at initialisation: scales and gradients by depth, half precision, which will hardly train."""
    from study.models.initial_behaviour import format_blocks, format_overview, initial_behaviours
    from study.registry import MERGES

    merges = merge or [entry.name for entry in MERGES if not entry.traits.keys() & {"matches", "row"}]
    found = initial_behaviours(merges=merges, depths=depth or [8, 20, 56, 110], width=width)
    typer.echo("\n\n".join(map(format_blocks, found)) if blocks else format_overview(found))


@app.command()
def doctor(
    storage: StorageOption = RESULTS,
    address: AddressOption = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what works here and what to do about the rest: versions, devices, Ray, datasets, storage, tracking."""
    from study.checks.doctor import LOOKED_AT, OF_HOSTS, examine

    found = []
    for finding in examine(storage, address, tracking_uri):
        absent = not finding.well and finding.name.startswith("dataset ")  # no fault: no study needs them all
        outcome = "ok" if finding.well else "none" if absent else "FAIL"
        found.append({"name": finding.name, "outcome": outcome, "found": finding.found, "advice": finding.advice})
        if not as_json:
            typer.echo(f"{outcome:4}  {finding.name}: {finding.found}")
            if not finding.well:
                typer.echo(f"      -> {finding.advice}")
    looked_at = f"{LOOKED_AT}{OF_HOSTS if address else ''}; not at the files of a study: fmm-study audit SPEC"
    typer.echo(
        json.dumps({"findings": found, "looked_at": looked_at}, indent=2) if as_json else f"looked at: {looked_at}"
    )
    if any(finding["outcome"] == "FAIL" for finding in found):
        raise typer.Exit(1)

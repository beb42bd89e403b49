"""Arguments and options that several commands share, and the study that they name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from search_spaces import Spec
    from study.results.workspace import Workspace

SpecArgument = Annotated[str, typer.Argument(metavar="SPEC", help="A preset's name (digits) or a path to a YAML file.")]
StorageOption = Annotated[Path, typer.Option("--storage", help="Folder under which each study has its own.")]
SetOption = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a value of the specification, e.g. blocks=2.")
]
AddressOption = Annotated[str | None, typer.Option(help="A running Ray cluster; this machine alone if left out.")]
CpusOption = Annotated[int | None, typer.Option(help="Cores to use on this machine (all if left out).", min=1)]
TrackingOption = Annotated[
    str | None,
    typer.Option("--tracking-uri", help="An MLflow store or server; SQLite under the results folder if left out."),
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from-mlflow",
        metavar="URI",
        help="Read from this MLflow store or server instead of the folder; SPEC may then be the study's name there.",
    ),
]
PluginOption = Annotated[list[str], typer.Option(help="A module of one's own to import; may be repeated.")]
PriceOption = Annotated[float | None, typer.Option(help="Of a GPU hour (a core's without GPUs), to see money.", min=0)]
RESULTS = Path("results")


def opened(name_or_path: str, override: list[str], storage: Path) -> "tuple[Spec, Workspace]":
    """The specification that a command names and its study's folder. Raises ``SpecError`` or ``UserError``."""
    from search_spaces import load_spec
    from study.results.workspace import Workspace

    spec = load_spec(name_or_path, override)
    return spec, Workspace(storage / spec.name)

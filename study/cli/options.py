"""Arguments and options that several commands share, and what they name: a specification and a study's folder."""

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
PriceOption = Annotated[float | None, typer.Option(help="Of a GPU hour (a core's without GPUs), to see money.", min=0)]
MaxHoursOption = Annotated[
    float | None,
    typer.Option(
        help="Begin nothing more once trials have held GPUs (cores, without GPUs) for this long in all.", min=0
    ),
]
MaxMoneyOption = Annotated[float | None, typer.Option(help="The same in money, at --price.", min=0)]
RESULTS = Path("results")


def checked_spec(name_or_path: str, override: list[str]) -> "Spec":
    """The specification that a command names. Raises ``SpecError``."""
    from search_spaces import load_spec

    return load_spec(name_or_path, override)


def workspace_of(spec: "Spec", storage: Path) -> "Workspace":
    """The study's folder under ``storage``."""
    from study.results.workspace import Workspace

    return Workspace(storage / spec.name)

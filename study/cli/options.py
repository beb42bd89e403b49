"""Arguments and options that several commands have."""

import glob
from pathlib import Path
from typing import Annotated

import typer

_YAML = (".yaml", ".yml")


def _begun(incomplete: str) -> list[str]:
    """Presets, and folders and YAML files here, whose names begin as the shell has it."""
    from search_spaces import presets

    paths = [
        path for path in sorted(Path().glob(f"{glob.escape(incomplete)}*")) if path.is_dir() or path.suffix in _YAML
    ]
    return [
        *(name for name in presets() if name.startswith(incomplete)),
        *(f"{path}/" if path.is_dir() else str(path) for path in paths),
    ]


StudyArgument = Annotated[
    str,
    typer.Argument(
        metavar="SPEC",
        help="A preset's name (digits), a path to a YAML file, a study's folder, or its name under --storage.",
        autocompletion=_begun,
    ),
]


def as_folder(parameter: typer.CallbackParam, folder: Path) -> Path:
    """What an option names as a folder. Raises ``UserError``."""
    from study.results.workspace import storage_folder

    return storage_folder(folder, parameter.opts[0])


StorageOption = Annotated[
    Path, typer.Option("--storage", help="Folder under which each study has its own.", callback=as_folder)
]
SetOption = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a value of the specification, e.g. blocks=2.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors alone.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Print a line for each training that ends.")]
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
PriceOption = Annotated[
    float | None, typer.Option(help="Of a GPU hour (a core's without GPUs), to see money.", min=0, max=1e9)
]
AcceptOption = Annotated[
    bool,
    typer.Option(
        "--accept-changes", help="Go on with other data or plug-in code than before; audit and report say so."
    ),
]
InProcessOption = Annotated[
    bool,
    typer.Option("--in-process", help="Train and measure in this process, on its device, without Ray and MLflow."),
]
RESULTS = Path("results")

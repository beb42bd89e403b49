"""Levels from outside the package.

A plug-in is a module whose import registers parts. An installed distribution declares it in the entry-point group
``fmm_study.plugins``, or a specification names it (``plugins: [module]``). Importing a module runs its code, and a
specification may come from someone else: a module that is named but not installed as a plug-in runs only where
``FMM_STUDY_PLUGINS`` names it too. What calls itself a distribution in some other folder of the search path, such as the one
a command is run in, is not installed. The list enters no trial key; the names of levels do.
"""

import dataclasses
import importlib
import importlib.metadata
import inspect
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

# the package's own parts are registered first, so that a plug-in that takes one of their names raises
from study import data, models, smoothness  # noqa: F401
from study.config import is_own
from study.errors import UserError, nearest, reason
from study.models.own import ALIAS, OF_DATA, signature_of
from study.registry import MAIN, NETWORKS, PLUGINS, home_of

ALLOWED = "FMM_STUDY_PLUGINS"
# folders that were added to the search path, for a worker to add them too
sought: dict[str, None] = {}


def load_plugins(modules: Sequence[str] = (), *folders: str) -> None:
    """Import every installed plug-in, then ``modules``; ``folders``, if given, are the last places where they are sought.

    A module that is imported already is left as it is. Among ``modules`` may be networks of one's own (``module:function``,
    ``timm/name``). Raises ``UserError`` naming a module that is missing or raises, as one does that registers a name twice.
    """
    for folder in folders:
        sought[folder] = None
        if folder not in sys.path:
            sys.path.append(folder)
    for name in [*installed(), *modules]:
        load_network(name) if is_own(name) else import_plugin(name)


def load_network(name: str) -> None:
    """Register the network ``module:function`` or ``timm/name``; importing a module runs its code. Raises ``UserError``."""
    # a notebook's own may have been written anew since
    if name in NETWORKS and module_of(name) != MAIN:
        return
    library, slash, model = name.partition("/")
    if slash:
        if library != "timm":
            raise UserError(f"network = {name!r}: expected a registered name, module:function, or timm/name")
        _register_timm(name, model)
        return
    module, _, function = name.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), function]):
        raise UserError(f"network = {name!r}: expected a registered name, module:function, or timm/name")
    imported = import_plugin(module)
    found = getattr(imported, function, None) or getattr(imported, function.removesuffix(ALIAS), None)
    # of a notebook's names, those that it imported are not offered to a specification
    if not callable(found) or (module == MAIN and home_of(found) != MAIN):
        known = [each for each, value in vars(imported).items() if getattr(value, "__module__", "") == module]
        raise UserError(f"network = {name!r}: module {module!r} has no function {function!r}{nearest(function, known)}")
    told = (inspect.getdoc(found) or "").partition("\n")[0]
    source = Path(getattr(imported, "__file__", None) or module).name
    NETWORKS.register(name, formula=told, source=source, own=signature_of(found))(found)


def _register_timm(name: str, model: str) -> None:
    """Register a network of timm's, untrained. Its keywords are the parameters of its class."""
    try:
        import timm
    except ModuleNotFoundError:
        raise UserError(f"network = {name!r}: timm is not installed: pip install 'fmm-study[timm]'") from None
    model = model if timm.is_model(model) else model.removesuffix(ALIAS)
    if not timm.is_model(model):
        raise UserError(
            f"network = {name!r}: unknown model {model!r} of timm {timm.__version__}{nearest(model, timm.list_models())}"
        )

    def build(*, num_classes: int, in_channels: int, **keywords: Any) -> nn.Module:
        made: nn.Module = timm.create_model(
            model, pretrained=False, num_classes=num_classes, in_chans=in_channels, **keywords
        )
        return made

    with torch.device("meta"):
        kind = type(build(num_classes=2, in_channels=3))
    own = signature_of(kind, beside=("in_chans", "global_pool"))
    # what its class must be given, its own function gives
    optional = {name: dataclasses.replace(keyword, required=False) for name, keyword in own.keywords.items()}
    own = dataclasses.replace(own, keywords=optional, given=frozenset(OF_DATA[:2]), takes_any=False)
    NETWORKS.register(
        name,
        formula=f"{model} of timm, untrained",
        source="https://github.com/huggingface/pytorch-image-models",
        own=own,
    )(build)


def installed() -> dict[str, importlib.metadata.Distribution]:
    """Modules that installed distributions declare as plug-ins, and which distribution does."""
    found: dict[str, importlib.metadata.Distribution] = {}
    there = list(importlib.metadata.distributions(path=site_folders()))
    for number, distribution in enumerate(there):
        points = distribution.entry_points.select(group=PLUGINS)
        # of two releases the first is the one that is imported; a name is read from a file each time it is asked for
        if points and distribution.name not in {other.name for other in there[:number]}:
            for point in points:
                found.setdefault(point.module, distribution)
    return found


def site_folders() -> list[str]:
    """Where distributions are installed: this interpreter's site folders, what ``.pth`` files there name, and our own's."""
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    own = Path(__file__).parents[2]
    # ``pip install --target``; a checkout has none
    folders += [str(own)] if any(own.glob("fmm_study-*.dist-info")) else []
    for folder in [Path(folder) for folder in folders]:
        for named in sorted(folder.glob("*.pth")):
            lines = [line.strip() for line in named.read_text(errors="replace").splitlines()]
            folders += [
                str(folder / line) for line in lines if line and not line.startswith(("#", "import ", "import\t"))
            ]
    return list(dict.fromkeys(folders))


def refuse_foreign(modules: Iterable[str]) -> None:
    """Raise ``UserError`` for modules that are neither installed as plug-ins nor named in ``FMM_STUDY_PLUGINS``.

    Among ``modules`` may be networks of one's own; a library's run no code but the library's. For the driver: what it lets
    through, workers import.
    """
    # what a notebook or a script holds has run already
    allowed = {MAIN, *(name.strip() for name in os.environ.get(ALLOWED, "").split(","))}
    unknown = {module_of(name) for name in modules if "/" not in name} - allowed
    if foreign := sorted(unknown and unknown - set(installed())):
        raise UserError(
            f"plugins, space, network: the specification would run the code of {', '.join(foreign)}; if you have read it or "
            f"it is yours: export {ALLOWED}={','.join(foreign)}"
        )


def import_plugin(name: str) -> ModuleType:
    """Module ``name``, imported. Raises ``UserError`` in one line."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}.")
        if missing:
            raise UserError(
                f"plugins: no module {name!r}: install it, or put {name.partition('.')[0]}.py beside the specification, "
                "or into the folder that the command is run in"
            ) from None
        raise UserError(f"plugins: module {name!r} raises {reason(error)}") from error


def module_of(name: str) -> str:
    """The module whose code a plug-in or a network of one's own (``module:function``, ``timm/name``) runs."""
    return name.partition(":")[0].partition("/")[0]

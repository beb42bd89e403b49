"""Levels from outside the package.

A plug-in is a module whose import registers parts. An installed distribution declares it in the entry-point group
``fmm_study.plugins``, or a specification names it (``plugins: [module]``). Importing a module runs its code, and a
specification may come from someone else: a module that is named but not installed as a plug-in runs only where
``FMM_STUDY_PLUGINS`` names it too. What calls itself a distribution in some other folder of the search path, such as the one
a command is run in, is not installed. The list enters no trial key; the names of levels do.
"""

import contextlib
import copy
import dataclasses
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import site
import sys
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

# the package's own parts are registered first, so that a plug-in that takes one of their names raises
from study import data, models, smoothness  # noqa: F401
from study.config import is_own
from study.errors import UserError, nearest, reason
from study.models.attention import build_attention
from study.models.build import initialise
from study.models.own import ALIAS, OF_DATA, signature_of
from study.registry import ATTENTION_FORMS, MAIN, MERGES, NAMED, NETWORKS, PLUGINS, Entry, home_of
from study.smoothness.batchnorm import not_reestimated
from study.smoothness.untouched import untouched, with_weights

ALLOWED = "FMM_STUDY_PLUGINS"
_CHANNELS = 8


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
    own = Path(__file__).parents[1]
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


def plugin_sources(modules: Sequence[str]) -> dict[str, dict[str, str]]:
    """Module -> distribution and version, if one declares it, a digest (16 hex digits) of its file, and what it registers.

    What a notebook or a script registered itself stands there part by part.
    """
    declared = installed()
    found: dict[str, dict[str, str]] = {}
    for name in dict.fromkeys([*declared, *map(module_of, modules)]):
        if name == MAIN:
            continue
        distribution = declared.get(name)
        source = {"distribution": distribution.name, "version": distribution.version} if distribution else {}
        known = importlib.util.find_spec(name)
        if known is not None and known.origin and Path(known.origin).is_file():
            source["digest"] = hashlib.blake2b(Path(known.origin).read_bytes(), digest_size=8).hexdigest()
        if registered := registered_by(name):
            source["registers"] = ", ".join(registered)
        if any(own.startswith(f"{name}/") for own in modules):
            # a library of networks: its first file says nothing of them, its release does
            source = {"distribution": name, "version": importlib.metadata.version(name)}
        found[name] = source
    return found | _own_sources()


def module_of(name: str) -> str:
    """The module whose code a plug-in or a network of one's own (``module:function``, ``timm/name``) runs."""
    return name.partition(":")[0].partition("/")[0]


def registered_by(module: str) -> list[str]:
    """The levels that ``module`` registered: ``merge geometric``, ..."""
    return [f"{kind} {entry.name}" for kind, entry in _entries_of(module)]


def _entries_of(module: str) -> list[tuple[str, Entry[Any]]]:
    return [(registry.kind, entry) for registry in NAMED for entry in registry if home_of(entry.build) == module]


def _own_sources() -> dict[str, dict[str, str]]:
    """As ``plugin_sources``, of each part that a notebook or a script registered itself."""
    found = {}
    for kind, entry in _entries_of(MAIN):
        source = {"registers": f"{kind} {entry.name}"}
        with contextlib.suppress(OSError, TypeError):  # its text is kept nowhere
            text = inspect.getsource(getattr(entry.build, "func", entry.build))
            source["digest"] = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        found[f"{MAIN}: {entry.name}"] = source
    return found


def check_merge(name: str) -> None:
    """Hold merge operator ``name`` to what ours keep; for tests of plug-ins. Raises ``UserError`` with what is wrong.

    Its output has the shape of its inputs; it and its gradients are finite; it draws nothing at random in ``forward``;
    equal seeds give equal weights; its weights survive a state dict; it has as many parameters as it declares. Weights put in
    the place of its own take effect wherever it uses them, and leave it as it was. Statistics that training takes of its
    images can be re-estimated (``study.smoothness.batchnorm.RunningStatistics``).
    """
    entry = MERGES[name]
    build = functools.partial(entry.build, _CHANNELS)
    _check(f"merge {name!r}", build, lambda merge, images: merge(images, images.flip(0).roll(1, 1)))
    declared = str(entry.traits.get("extra_params", ""))
    built = sum(parameter.numel() for parameter in build().parameters())
    # the plug-in's own text: its author's code has run already
    if declared and int(eval(declared, {"C": _CHANNELS})) != built:
        raise UserError(f"merge {name!r}: extra_params = {declared!r} is not its {built} parameters at C = {_CHANNELS}")


def check_attention(name: str) -> None:
    """Hold attention ``name``, in every registered form, to what ``check_merge`` asks. Raises ``UserError``."""
    for form in ATTENTION_FORMS:
        if form.name != "none":
            build = functools.partial(build_attention, name, form.name, _CHANNELS)
            _check(f"attention {name!r} in form {form.name!r}", build, lambda attention, images: attention(images))


def _check(where: str, build: Callable[[], nn.Module], call: Callable[[Any, Tensor], Tensor]) -> None:
    """Raise ``UserError`` unless ``call`` keeps the contract on what ``build`` gives, in training and in evaluation."""

    def require(holds: bool, what: str) -> None:
        if not holds:
            raise UserError(f"{where}: {what}")

    shape = (4, _CHANNELS, 5, 5)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    module, twin = build(), build()
    for drawn in (module, twin):
        initialise(drawn, 1)
    weights = module.state_dict()
    same = all(torch.equal(value, twin.state_dict()[name]) for name, value in weights.items())
    require(
        same, "equal seeds give other weights (initialise draws by seed and parameter name; a module may set its own)"
    )
    for training in (True, False):
        mode = "training" if training else "evaluation"
        module.train(training), twin.train(training)
        before = torch.get_rng_state()
        out = call(module, images)
        require(bool((before == torch.get_rng_state()).all()), f"draws from the global random state in {mode}")
        require(tuple(out.shape) == shape, f"gives shape {tuple(out.shape)} for {shape} in {mode}")
        require(bool(out.isfinite().all()), f"gives values that are not finite in {mode}")
        require(torch.equal(out, call(twin, images)), f"gives another result the second time in {mode}")
        wanted = [images, *(parameter for parameter in module.parameters() if parameter.requires_grad)]
        for gradient in torch.autograd.grad(out.square().sum(), wanted, allow_unused=True):
            require(gradient is None or bool(gradient.isfinite().all()), f"has a gradient that is not finite in {mode}")
    with torch.no_grad():
        _check_measured(_Called(module, call), images.detach(), require)
    for value in twin.state_dict().values():
        value.copy_(value + 1)
    twin.load_state_dict(module.state_dict())
    require(torch.equal(call(module, images), call(twin, images)), "gives another result from its own state dict")


class _Called(nn.Module):
    """``module``, as ``call`` calls it, as a network of images alone."""

    def __init__(self, module: nn.Module, call: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.module, self.call = module, call

    def forward(self, images: Tensor) -> Tensor:
        return self.call(self.module, images)


def _check_measured(network: _Called, images: Tensor, require: Callable[[bool, str], None]) -> None:
    """What measuring a network with this module rests on."""
    left = [name.removeprefix("module.") for name in not_reestimated(network, images, -images)]
    require(
        not left,
        f"training sets {', '.join(map(repr, left[:3]))} by its images and re-estimation cannot: the module that holds it "
        "needs reset_running_stats() and momentum, as nn.BatchNorm2d has them, and to update it in its own training mode",
    )
    network.eval()
    weights = {name: 1.01 * value + 0.01 for name, value in network.named_parameters()}
    changed = copy.deepcopy(network)
    for name, parameter in changed.named_parameters():
        parameter.copy_(weights[name])
    with untouched(network):
        moved = with_weights(network, weights, images)
    require(
        torch.allclose(moved, changed(images), rtol=1e-4, atol=1e-5),
        "does not follow weights that are put in the place of its own: a tensor of them is kept outside its parameters",
    )

"""What levels from outside the package are held to: the same as the package's own.

A plan holds those of its cells to it; a plug-in's own tests may do so too. Each check takes milliseconds, on toy images.
"""

import copy
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from study.config import TrialConfig
from study.errors import UserError, nearest, reason
from study.models import build_network
from study.models.attention import build_attention
from study.models.build import initialise
from study.registry import ATTENTION_FORMS, AUGMENTATIONS, MERGES, STATISTICS
from study.schema import SPLITS
from study.smoothness import Estimate, MeasureContext, parse_settings
from study.smoothness.batchnorm import not_reestimated
from study.smoothness.context import exact_evaluation
from study.smoothness.statistic import quantities
from study.smoothness.untouched import untouched, with_weights

T = TypeVar("T")
_CHANNELS = 8
_NUM_CLASSES, _NUM_IMAGES, _SIDE = 10, 16, 8


def check_merge(name: str) -> None:
    """Hold merge operator ``name`` to what ours keep. Raises ``UserError`` with what is wrong.

    Its output has the shape of its inputs, which it leaves as they are; it and its gradients are finite; it draws nothing at
    random in ``forward``; equal seeds give equal weights; its weights survive a state dict; it has as many parameters as it
    declares. Weights put in the place of its own take effect wherever it uses them, and leave it as it was. Statistics that
    training takes of its images can be re-estimated (``study.smoothness.batchnorm.RunningStatistics``).
    """
    entry, where = MERGES[name], f"merge {name!r}"
    build = functools.partial(entry.build, _CHANNELS)
    _check(where, build, lambda images: (images.clone(), images.flip(0).roll(1, 1)))
    built, declared = build(), str(entry.traits.get("extra_params", ""))
    num = sum(parameter.numel() for parameter in built.parameters())
    # the plug-in's own text: its author's code has run already
    told = (
        _tried(f"{where}: extra_params = {declared!r}", lambda: int(eval(declared, {"C": _CHANNELS})))
        if declared
        else num
    )
    if told != num:
        raise UserError(f"{where}: extra_params = {declared!r} is not its {num} parameters at C = {_CHANNELS}")


def check_attention(name: str, forms: Iterable[str] | None = None) -> None:
    """Hold attention ``name``, in ``forms`` (every registered one), to what ``check_merge`` asks. Raises ``UserError``."""
    for form in ATTENTION_FORMS.names() if forms is None else forms:
        if form != "none":
            build = functools.partial(build_attention, name, form, _CHANNELS)
            _check(f"attention {name!r} in form {form!r}", build, lambda images: (images.clone(),))


def check_augmentation(name: str) -> None:
    """Raise ``UserError`` unless augmentation ``name`` draws a row an image, and gives images of their shape and type."""
    where, entry = f"augmentation {name!r}", AUGMENTATIONS[name]
    images = torch.arange(4 * 3 * _SIDE * _SIDE).remainder(251).to(torch.uint8).view(4, 3, _SIDE, _SIDE)
    before = images.clone()

    def augmented() -> Tensor:
        chosen = entry.build()
        drawn = chosen.draw(len(images), (_SIDE, _SIDE), torch.Generator().manual_seed(0))
        found: Tensor = chosen.apply(images, drawn)
        return found

    first, second = (_tried(f"{where}: raises", augmented) for _ in range(2))
    if not torch.equal(images, before):
        raise UserError(f"{where}: changes its input in place")
    found, wanted = (_described(value) for value in (first, images))
    if found != wanted:
        raise UserError(f"{where}: gives {found} for {wanted}")
    if not torch.equal(first, second):
        raise UserError(f"{where}: gives other images the second time; draw from the generator that it is given")


def check_statistic(name: str, given: Mapping[str, Any] | None = None) -> None:
    """Raise ``UserError`` unless statistic ``name``, with the settings ``given``, gives on a toy network what it promises.

    Its estimates are those that it lists, and the same when they are taken again; images are left as they are. What
    it raises itself as a ``UserError`` (that it needs another kind of network, say) is no fault.
    """
    where, entry = f"statistic {name!r}", STATISTICS[name]
    settings = _tried(f"{where}: its settings raise", lambda: parse_settings(name, given or {}))
    names = [each.name for each in _tried(f"{where}: its outcomes raise", lambda: quantities(name, settings))]
    context = _toy_context()
    before = {split: images[:].clone() for split, images in context.images.items()}
    with untouched(context.model), exact_evaluation(context.model):
        try:
            first, second = (entry.build(settings, context) for _ in range(2))
        except UserError:
            return
        except Exception as error:  # noqa: BLE001  whatever a plug-in raises
            _refuse(f"{where}: raises", error)
    if not isinstance(first, dict) or not all(isinstance(value, Estimate) for value in first.values()):
        raise UserError(f"{where}: gives {_described(first)}, not a dict of study.smoothness.Estimate by name")
    # of single layers: networks differ in how many they have
    families = [re.compile(re.sub(r"\\{.*?\\}", ".+", re.escape(each))) for each in names if "{" in each]
    listed = {each for each in names if "{" not in each}
    if missing := sorted(listed - first.keys()):
        raise UserError(f"{where}: gives no estimate {missing[0]!r}, which it lists")
    if odd := [each for each in sorted(first.keys() - listed) if not any(f.fullmatch(each) for f in families)]:
        raise UserError(f"{where}: gives an estimate {odd[0]!r}, which it does not list{nearest(odd[0], names)}")
    if any(not torch.equal(images[:], before[split]) for split, images in context.images.items()):
        raise UserError(f"{where}: changes images in place")
    if repr(first) != repr(second):
        raise UserError(f"{where}: gives other values the second time; draw from context.generator(purpose)")


@functools.cache
def _toy_network() -> nn.Module:
    config = TrialConfig(
        dataset="toy",
        depth=8,
        width=8,
        attention="se",
        attention_form="mul",
        seed=0,
        split_seed=0,
        batch_size=_NUM_IMAGES,
    )
    return build_network(config, num_classes=_NUM_CLASSES, mean=(0.5,) * 3, deviation=(0.25,) * 3).eval()


def _toy_context() -> MeasureContext:
    """A network with gates, and images with every class."""
    generator = torch.Generator().manual_seed(0)
    return MeasureContext.calibrated(
        model=_toy_network(),
        images={split: torch.rand(_NUM_IMAGES, 3, _SIDE, _SIDE, generator=generator) for split in SPLITS},
        labels={split: torch.arange(_NUM_IMAGES) % _NUM_CLASSES for split in SPLITS},
        num_classes=_NUM_CLASSES,
        seed=0,
    )


def _check(where: str, build: Callable[[], nn.Module], operands: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
    """Raise ``UserError`` unless what ``build`` gives keeps the contract on ``operands``, in training and in evaluation."""

    def require(holds: bool, what: str) -> None:
        if not holds:
            raise UserError(f"{where}: {what}")

    shape = (4, _CHANNELS, 5, 5)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    module, twin = (_tried(f"{where}: cannot be built for {_CHANNELS} channels", build) for _ in range(2))
    require(isinstance(module, nn.Module), f"gives a {type(module).__name__}, not a torch.nn.Module")
    for drawn in (module, twin):
        _tried(f"{where}: cannot be initialised", functools.partial(initialise, drawn, 1))
    weights = module.state_dict()
    same = all(torch.equal(value, twin.state_dict()[name]) for name, value in weights.items())
    require(
        same, "equal seeds give other weights (initialise draws by seed and parameter name; a module may set its own)"
    )
    for training in (True, False):
        mode = "training" if training else "evaluation"
        module.train(training), twin.train(training)
        before, inputs = torch.get_rng_state(), operands(images)
        out = _tried(f"{where}: raises in {mode}", functools.partial(module, *inputs))
        require(bool((before == torch.get_rng_state()).all()), f"draws from the global random state in {mode}")
        unchanged = all(map(torch.equal, inputs, operands(images)))
        require(unchanged, f"changes its input in place in {mode}")
        require(isinstance(out, Tensor), f"gives {_described(out)}, not a tensor, in {mode}")
        require(tuple(out.shape) == shape, f"gives shape {tuple(out.shape)} for {shape} in {mode}")
        require(bool(out.isfinite().all()), f"gives values that are not finite in {mode}")
        require(torch.equal(out, twin(*operands(images))), f"gives another result the second time in {mode}")
        wanted = [images, *(parameter for parameter in module.parameters() if parameter.requires_grad)]
        try:
            gradients = torch.autograd.grad(out.square().sum(), wanted, allow_unused=True)
        except RuntimeError as error:
            # torch tells of an operation in place here, and names no line of the plug-in
            require(False, f"has no gradient in {mode}: {' '.join(str(error).split())[:200]}")
        for gradient in gradients:
            require(gradient is None or bool(gradient.isfinite().all()), f"has a gradient that is not finite in {mode}")
    with torch.no_grad():
        _check_measured(_Called(module, operands), images.detach(), require)
    for value in twin.state_dict().values():
        value.copy_(value + 1)
    twin.load_state_dict(module.state_dict())
    same = torch.equal(module(*operands(images)), twin(*operands(images)))
    require(same, "gives another result from its own state dict")


class _Called(nn.Module):
    """``module``, called on ``operands`` of images, as a network of images alone."""

    def __init__(self, module: nn.Module, operands: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.module, self.operands = module, operands

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.module(*self.operands(images))
        return found


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


def _tried(what: str, call: Callable[[], T]) -> T:
    """``call``, with whatever a plug-in raises as one line that begins with ``what``."""
    try:
        return call()
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  whatever a plug-in raises
        _refuse(what, error)


def _refuse(what: str, error: Exception) -> NoReturn:
    raise UserError(f"{what}: {reason(error)}") from error


def _described(value: Any) -> str:
    """A tensor's type and shape, of anything else the type."""
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}" if value is not None else "None"

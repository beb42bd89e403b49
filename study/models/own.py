"""A network of one's own: the keywords of a callable, checked by name and type, and the network that it gives.

The callable is given what it has parameters for: ``num_classes``, ``in_channels``, ``image_shape`` (C, H, W), a setting of the
training by its name, and the keywords that a specification sets. It gives a module that maps normalised images (N, C, H, W) to
logits (N, num_classes). Its own initial weights stand: it draws them from torch's generator, seeded by the replicate.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from study.config import OF_NETWORK, TrialConfig
from study.errors import UserError, nearest, reason
from study.models.networks import Normalize
from study.registry import Entry
from study.schema import COST_COLUMNS, IDENTITY_COLUMNS, ReplicateRecord
from study.seeding import derive_seed

# A level that ends so is the one without it, under another name: the arm of an A/A control.
ALIAS = "_alias"
# What a callable may have parameters for, beside its own keywords.
OF_DATA = ("num_classes", "in_channels", "image_shape")
_OF_TRAINING = {field.name for field in dataclasses.fields(TrialConfig)} - {*OF_NETWORK, "keywords"}
# A keyword becomes a column of the results beside these.
_COLUMNS = {*ReplicateRecord.__annotations__, *IDENTITY_COLUMNS, *COST_COLUMNS, "study", "measure_seconds"} - {
    *OF_NETWORK
}
_PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True, kw_only=True)
class Keyword:
    """A parameter that a specification may set: its types and words; ``None`` where any level will do."""

    required: bool
    kinds: tuple[type, ...] | None = None
    words: tuple[Any, ...] = ()

    def fits(self, value: Any) -> bool:
        """Whether ``value`` may be given."""
        if self.kinds is None:
            return True
        # true is no 1
        named = any(type(value) is type(word) and value == word for word in self.words)
        return named or type(value) in self.kinds or (type(value) is int and float in self.kinds)

    @property
    def expected(self) -> str:
        """What may be given, in words."""
        return " or ".join([*map(repr, self.words), *(_PLAIN[kind] for kind in self.kinds or ())])

    def converted(self, value: Any) -> Any:
        """``value`` as the callable is given it: a whole number as a float, a text without ``_alias``."""
        if type(value) is int and self.kinds and float in self.kinds and int not in self.kinds:
            return float(value)
        return value.removesuffix(ALIAS) if isinstance(value, str) and value not in self.words else value


@dataclass(frozen=True, kw_only=True)
class Signature:
    """The parameters of a callable: its keywords, what else it is given, and whether it takes any other keyword."""

    keywords: Mapping[str, Keyword]
    given: frozenset[str]
    takes_any: bool

    def check(self, network: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """``values`` as the callable takes them. Raises ``UserError`` naming the keyword, the value and what was expected."""
        for name in values:
            self.check_name(network, name)
        for name, keyword in self.keywords.items():
            if keyword.required and name not in values:
                raise UserError(f"network {network!r} needs {name!r}: put it under factors, fixed or nuisance")
        taken = {}
        for name, value in values.items():
            keyword = self.keywords.get(name, Keyword(required=False))
            if keyword.kinds == () and not keyword.words:
                raise UserError(
                    f"setting {name!r} = {value!r}: no level can be that parameter of {network!r}; for one that "
                    "a specification sets, annotate it as bool, int, float, str or Literal"
                )
            taken[name] = keyword.converted(value)
            if not keyword.fits(value) and not keyword.fits(taken[name]):
                words = [word for word in keyword.words if isinstance(word, str)]
                known = nearest(str(value), words) if words else ""
                raise UserError(
                    f"setting {name!r} = {value!r} of network {network!r}: expected {keyword.expected}{known}"
                )
        return taken

    def check_name(self, network: str, name: str) -> None:
        """Raise ``UserError`` unless the callable has a keyword ``name`` that the results have a column for."""
        if name not in self.keywords and not self.takes_any:
            none = (
                "no merge operator" if name.startswith("merge") else "no gate" if name.startswith("attention") else ""
            )
            known = nearest(name, self.keywords) or " (it takes no keyword)"
            raise UserError(
                f"unknown setting {name!r}: network {network!r} has no such parameter{f', so {none}' if none else ''}{known}"
            )
        if name in _COLUMNS:
            raise UserError(
                f"setting {name!r} of network {network!r}: results have a column of that name; rename the parameter"
            )


def signature_of(function: Callable[..., Any], *, beside: Iterable[str] = ()) -> Signature:
    """The parameters of ``function``, without those ``beside`` it and those that it is given without being asked for."""
    try:
        parameters = inspect.signature(function, eval_str=True).parameters
    except NameError:  # a name that is imported for type checkers alone
        parameters = inspect.signature(function).parameters
    except (ValueError, TypeError):  # a class in C
        return Signature(keywords={}, given=frozenset(), takes_any=True)
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = {name: parameter for name, parameter in parameters.items() if parameter.kind in by_name}
    given = {*OF_DATA, *_OF_TRAINING}.intersection(named)
    return Signature(
        keywords={n: _keyword(p) for n, p in named.items() if n not in given and n not in beside},
        given=frozenset(given),
        takes_any=any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()),
    )


def _keyword(parameter: inspect.Parameter) -> Keyword:
    required, annotation = parameter.default is inspect.Parameter.empty, parameter.annotation
    if annotation in (inspect.Parameter.empty, Any) or isinstance(annotation, str):
        plain = type(parameter.default) if annotation is inspect.Parameter.empty else None
        # a default of 0 says nothing of 0.1
        kinds = (int, float) if plain in (int, float) else (plain,) if plain in _PLAIN else None
        return Keyword(required=required, kinds=kinds)
    alternatives = _alternatives(annotation)
    words = [
        word for each in alternatives if typing.get_origin(each) is typing.Literal for word in typing.get_args(each)
    ]
    kinds = tuple(kind for kind in alternatives if kind in _PLAIN)
    return Keyword(required=required, kinds=kinds, words=tuple(word for word in words if word is not None))


def _alternatives(annotation: Any) -> list[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _alternatives(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [each for part in typing.get_args(annotation) for each in _alternatives(part)]
    return [annotation]


class OwnNetwork(nn.Module):
    """``network`` after the normalisation of pixels. Maps pixels (N, C, H, W) in [0, 1] to logits (N, num_classes)."""

    def __init__(self, network: nn.Module, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.normalize = Normalize(mean, deviation)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.network(self.normalize(x))
        return logits


def build_own(
    entry: Entry[Callable[..., Any]],
    config: TrialConfig,
    *,
    num_classes: int,
    image_shape: tuple[int, int, int] | None,
    mean: Sequence[float],
    deviation: Sequence[float],
    weights: bool,
) -> nn.Module:
    """The network that ``entry`` gives for ``config``, its weights drawn after ``config.seed``.

    Without ``weights`` what the callable raises is raised; with them it is a ``UserError``, as is a keyword that does not fit.
    """
    signature: Signature = entry.traits["own"]
    keywords = signature.check(config.network, dict(config.keywords))
    known = {**vars(config), "num_classes": num_classes, "in_channels": len(mean), "image_shape": image_shape}
    given = {name: known[name] for name in signature.given} | keywords
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(config.seed, "init"))
        try:
            network = entry.build(**given)
        except UserError:
            raise
        except Exception as error:
            if not weights:
                raise
            raise UserError(f"network {config.structure!r} raises {reason(error)}") from error
    if not isinstance(network, nn.Module):
        raise UserError(f"network {config.network!r} gives a {type(network).__name__}, not a torch.nn.Module")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(f"network {config.network!r} has no parameter to train")
    return OwnNetwork(network, mean, deviation)

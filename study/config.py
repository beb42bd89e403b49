"""A replicate: its settings, the two keys that name it and its measurements, and the task that a worker is given.

``trial_key`` hashes what changes the trained weights; ``measure_key`` hashes that and what changes one measurement.
Fields at their default are left out of the hash, so a new field whose default keeps today's behaviour renames no trial of an
old study. Paths, devices, worker counts and the phase are no settings: they change no result.
"""

import dataclasses
import hashlib
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from study.errors import UserError, nearest
from study.schema import Phase

_REQUIRED = dataclasses.MISSING
# The largest values of settings that a network or its training can be asked for.
MOST = {
    "depth": 2_000,
    "width": 4_096,
    "epochs": 100_000,
    "batch_size": 65_536,
    "lr": 1e6,
    "weight_decay": 1e6,
    "warmup_epochs": 1e5,
    "jacobian_penalty": 1e6,
    "clip_norm": 1e6,
    "mixup": 1e3,
}
# Settings that are one of a few words; the first is the default.
WORDS = {
    "last_batch": ("drop", "keep"),
    "optimizer_made": ("once", "each_epoch"),
    "optimizer": ("sgd", "nesterov", "adamw"),
    "decayed": ("all", "weights"),
    "norm": ("batch", "group", "layer", "none"),
    "activation": ("relu", "gelu", "silu"),
    "input_moments": ("dataset", "imagenet"),
    "validation": ("held_out", "test"),
}
# Settings that have an effect only where another one is one of a few words.
GOES_WITH = {
    "beta2": ("optimizer", ("adamw",)),
    "norm_momentum": ("norm", ("batch",)),
    "norm_parts": ("norm", ("batch",)),
}
# Settings of a network that is built from its registered parts. One of one's own has its own keywords in their place.
OF_NETWORK = (
    "depth", "width", "merge", "merge_site", "merge_where", "attention", "attention_where", "attention_form", "dropout",
    "norm", "activation",
)  # fmt: skip
# fields of a task that JSON holds as lists
_TUPLES = ("boundary", "keep_samples", "step")


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """Everything that decides the weights of one trained replicate, each setting with its meaning."""

    dataset: Annotated[str, "A registered dataset."]
    depth: Annotated[
        int, "The network's number of layers, as its paper counts them. A network of one's own needs none."
    ] = 0
    seed: Annotated[int, "The root of initial weights, data order and augmentation."]
    split_seed: Annotated[int, "The root of the split into training and validation images."]
    network: Annotated[
        str, "A registered network, or one of one's own: `module:function`, `timm/name` (`docs/plugins.md`)."
    ] = "cifar_resnet"
    width: Annotated[int, "Channels of the first stage; in `wrn` the factor by which it is widened."] = 16
    merge: Annotated[str, "A registered merge operator."] = "add"
    merge_site: Annotated[str, "Where it sits: `skip` (in place of the addition) or `branch` (inside the branch)."] = (
        "skip"
    )
    merge_where: Annotated[str, "Blocks that have it: `all`, `first` or `last` of each stage, or `alternate`."] = "all"
    attention: Annotated[str, "A registered attention."] = "none"
    attention_where: Annotated[str, "Blocks that have attention, as in `merge_where`."] = "all"
    attention_form: Annotated[str, "How it enters the network; `none` goes with attention `none` alone."] = "none"
    epochs: Annotated[int, "Epochs of training."] = 10
    batch_size: Annotated[int, "Images of a step."] = 128
    lr: Annotated[float, "Learning rate, at its highest."] = 0.1
    momentum: Annotated[float, "Momentum of SGD, below 1; of AdamW its first beta."] = 0.9
    weight_decay: Annotated[float, "Weight of the squared norm of the weights; AdamW's is decoupled."] = 0.0
    warmup_epochs: Annotated[float, "Epochs in which the learning rate rises linearly."] = 0.0
    schedule: Annotated[str, "How the learning rate goes on: `cosine`, `constant`, `wrn_step` or `imagenet_step`."] = (
        "cosine"
    )
    stop_curve: Annotated[
        tuple[float, ...], "Validation loss per epoch above which training is pruned; empty: never."
    ] = ()
    augment: Annotated[str, "A registered augmentation."] = "none"
    dropout: Annotated[float, "Share of activations dropped, below 1, where the network has a place for it."] = 0.0
    jacobian_penalty: Annotated[float, "Weight of the squared norm of the input Jacobian in the training loss."] = 0.0
    last_batch: Annotated[str, "What becomes of a short last batch of an epoch: `drop` or `keep`."] = "drop"
    optimizer_made: Annotated[str, "`once`, or `each_epoch`: then momentum starts from zero in every epoch."] = "once"
    optimizer: Annotated[str, "`sgd`, `nesterov` (SGD with Nesterov's momentum) or `adamw`."] = "sgd"
    beta2: Annotated[float, "Second beta of AdamW, below 1."] = 0.999
    decayed: Annotated[
        str,
        "What weight decay acts on: `all` parameters, or `weights`, those of two dimensions or more: no norm, no bias.",
    ] = "all"
    clip_norm: Annotated[float, "Norm to which a larger gradient, of all parameters, is scaled down; 0: never."] = 0.0
    norm_momentum: Annotated[
        float, "Share of a batch in batch norms' running statistics, but for norms with one of their own."
    ] = 0.1
    norm_parts: Annotated[
        int, "Parts of a batch that batch norms see apart, as that many devices do; the first one's are kept."
    ] = 1
    input_moments: Annotated[
        str, "Mean and deviation that pixels are normalised by: the `dataset`'s, or `imagenet`'s."
    ] = "dataset"
    validation: Annotated[
        str,
        "`held_out` from training; or `test`: all of it is trained on, and the test images are looked at each epoch.",
    ] = "held_out"
    label_smoothing: Annotated[float, "Part of each label that goes to all classes alike, below 1."] = 0.0
    mixup: Annotated[
        float, "alpha: images and labels of a batch are mixed in pairs, by shares from Beta(alpha, alpha); 0: never."
    ] = 0.0
    ema_decay: Annotated[
        float,
        "Decay of the moving average of the weights, which is evaluated, measured and kept in their place; 0: none.",
    ] = 0.0
    norm: Annotated[
        str,
        "`batch`, `group` (of 16 channels or more), `layer` (all of an image's map) or `none`: scale and shift alone.",
    ] = "batch"
    activation: Annotated[
        str, "`relu`, `gelu` or `silu`, in blocks and stem; formulas of operators and gates stay."
    ] = "relu"
    keywords: Annotated[
        tuple[tuple[str, Any], ...], "Of a network of one's own, what is given to it: names and values, by name."
    ] = ()

    def __post_init__(self) -> None:
        for name in ("width", "epochs", "batch_size"):
            self._require(name, getattr(self, name) >= 1, "a whole number of at least 1")
        for name in ("weight_decay", "warmup_epochs", "jacobian_penalty", "clip_norm", "mixup"):
            self._require(name, 0 <= getattr(self, name) < math.inf, "a finite number of at least 0")
        self._require("lr", 0 < self.lr < math.inf, "a finite number above 0")
        for name in ("momentum", "beta2", "dropout", "label_smoothing", "ema_decay"):
            self._require(name, 0 <= getattr(self, name) < 1, "a number from 0 to below 1")
        self._require("norm_momentum", 0 < self.norm_momentum <= 1, "a number above 0, 1 at most")
        self._require("norm_parts", 1 <= self.norm_parts <= self.batch_size, "a whole number from 1 to the batch size")
        for name, words in WORDS.items():
            given = getattr(self, name)
            self._require(name, given in words, f"{' or '.join(words)}{nearest(str(given), words)}")
        for name, most in MOST.items():
            self._require(name, self._value(name) <= most, f"at most {most:,g}")
        self._require("mixup", self.mixup == 0 or self.mixup >= 1e-3, "0, or at least 0.001")
        self._require(
            "momentum", self.momentum > 0 or self.optimizer != "nesterov", "above 0 with optimizer = 'nesterov'"
        )
        for name, (other, words) in GOES_WITH.items():
            default = type(self).__dataclass_fields__[name].default
            fits = getattr(self, name) == default or getattr(self, other) in words
            self._require(name, fits, f"{default!r} unless {other} is {' or '.join(words)}")

    def _value(self, name: str) -> Any:
        return dict(self.keywords).get(name, getattr(self, name))

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise UserError(f"setting {name!r} = {self._value(name)!r}: expected {expected}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "TrialConfig":
        """Build from plain values (as JSON gives them). Raises ``UserError`` naming an unknown or missing key.

        For a network of one's own every key that is no setting of a training is a keyword of the network.
        """
        fields = {f.name: f for f in dataclasses.fields(cls) if f.name != "keywords"}
        own = is_own(values.get("network", cls.network))
        keywords = {name: value for name, value in values.items() if own and _is_keyword(name, fields)}
        for key in values:
            if key not in fields and key not in keywords:
                raise UserError(f"unknown setting {key!r}{nearest(key, fields)}")
        required = [n for n, f in fields.items() if f.default is _REQUIRED or (n == "depth" and not own)]
        missing = [name for name in required if name not in values]
        if missing:
            raise UserError(f"missing setting {missing[0]!r}: it has no default")
        checked: dict[str, Any] = {
            name: _checked(name, typing.get_args(fields[name].type)[0], value)
            if name in fields
            else _level(name, value)
            for name, value in values.items()
        }
        given = {name: checked.pop(name) for name in sorted(keywords)}
        return cls(**checked, keywords=tuple(given.items()))

    def as_dict(self) -> dict[str, Any]:
        """All settings as plain JSON values: of a network of one's own its keywords, not the settings of registered parts."""
        left_out = {"keywords", *(OF_NETWORK if is_own(self.network) else ())}
        fields = [f.name for f in dataclasses.fields(self) if f.name not in left_out]
        return {name: _plain(getattr(self, name)) for name in fields} | dict(self.keywords)

    @property
    def trial_key(self) -> str:
        """16 hex digits that change when, and only when, a field that changes the weights does."""
        changed = {
            f.name: _plain(getattr(self, f.name))
            for f in dataclasses.fields(self)
            if f.name != "keywords" and (f.default is _REQUIRED or getattr(self, f.name) != f.default)
        }
        return _digest("train", changed | dict(self.keywords))

    @property
    def structure(self) -> str:
        """The network and its size in words; of one of one's own all of its keywords."""
        size = dict(self.keywords) if is_own(self.network) else {"depth": self.depth, "width": self.width}
        return ", ".join([self.network, *(f"{name} {value}" for name, value in size.items())])


def is_own(network: Any) -> bool:
    """Whether a level of ``network`` names one of one's own (``module:function``) or a library's (``timm/name``)."""
    return isinstance(network, str) and (":" in network or "/" in network)


def settings_types() -> dict[str, Any]:
    """The type of each setting, as JSON holds it."""
    kinds = {f.name: typing.get_args(f.type)[0] for f in dataclasses.fields(TrialConfig) if f.name != "keywords"}
    return {name: list[float] if typing.get_origin(kind) is tuple else kind for name, kind in kinds.items()}


def setting_meanings() -> dict[str, str]:
    """What each setting means, as ``TrialConfig`` says it."""
    return {f.name: typing.get_args(f.type)[1] for f in dataclasses.fields(TrialConfig) if f.name != "keywords"}


def measure_key(trial_key: str, statistic: str, settings: Mapping[str, Any]) -> str:
    """The name of a statistic, at these non-default ``settings`` (and its revision), on the weights of ``trial_key``."""
    return _digest("measure", {"trial": trial_key, "statistic": statistic, "settings": dict(settings)})


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How replicates of a cell train: fields of ``Task``. A study freezes them, for they change last digits."""

    together: int = 1
    step: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """One member of a group, as a worker is given it: plain values that can be sent to any machine.

    ``statistics`` (name -> settings) are still to be measured on its weights; of those in ``keep_samples`` single values are
    kept. ``during`` are measured every ``every`` epochs of training. ``together`` members of its group, at most, train as one
    network; ``ranks`` processes train this one. ``step``: options of the training step (``study.training.options``).
    ``accuracy_floor``: below it, on validation images, the network has collapsed (``None``:
    ``study.data.dataset.unstated_floor``).
    """

    config: TrialConfig
    cell: str
    phase: Phase
    block: int
    replicate: int
    number: int
    statistics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    keep_samples: tuple[str, ...] = ()
    during: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    every: int = 0
    boundary: tuple[str, ...] = ()
    defaulted: bool = False
    checkpoints: str = "none"
    together: int = 1
    step: tuple[str, ...] = ()
    ranks: int = 1
    accuracy_floor: float | None = None

    def to_plain(self) -> dict[str, Any]:
        """JSON values."""
        lists = {name: list(getattr(self, name)) for name in _TUPLES}
        return {**vars(self), "config": self.config.as_dict(), **lists}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "Task":
        """The inverse of ``to_plain``."""
        config = TrialConfig.from_mapping(values["config"])
        return cls(**{**values, "config": config, **{name: tuple(values[name]) for name in _TUPLES}})


def _checked(name: str, kind: Any, value: Any) -> Any:
    """``value`` as field ``name`` holds it; an int is a good float, and a list a good tuple. Raises ``UserError``."""
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise UserError(f"setting {name!r} = {value!r}: expected a list of numbers")
        return tuple(float(item) for item in value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UserError(f"setting {name!r} = {value!r}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _is_keyword(name: str, fields: Mapping[str, Any]) -> bool:
    return name in OF_NETWORK or (name not in fields and name.isidentifier())


def _level(name: str, value: Any) -> Any:
    """The value of a network's keyword. A whole number is an int, however it is written: equal values give one key."""
    if type(value) is float and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if type(value) not in (bool, int, float, str):
        raise UserError(f"setting {name!r} = {str(value)[:200]!r}: expected a text, a number or a boolean")
    return value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _digest(kind: str, values: Mapping[str, Any]) -> str:
    text = json.dumps([kind, values], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

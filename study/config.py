"""What a replicate is, and the two keys that name it.

``trial_key`` hashes what changes the trained weights; ``measure_key`` hashes that and what changes one measurement.
Fields at their default are left out of the hash, so a new field with a default that keeps today's behaviour renames no
trial of an old study. Paths, devices, worker counts and the phase are no fields here: they change no result.
Literal keys are frozen in ``tests/test_config.py``.
"""

import dataclasses
import hashlib
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from study.errors import UserError, nearest

_REQUIRED = dataclasses.MISSING


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """Everything that decides the weights of one trained replicate.

    ``seed`` is the root of initial weights, data order and augmentation; ``split_seed`` of the train/validation split.
    ``stop_curve`` holds one validation loss an epoch: training is pruned when it is worse than the curve (empty: never).
    ``dropout`` is the share of activations dropped, where the network has a place for it; ``jacobian_penalty`` the weight of
    the squared input-Jacobian norm in the training loss.
    """

    dataset: str
    depth: int
    seed: int
    split_seed: int
    network: str = "cifar_resnet"
    width: int = 16
    merge: str = "add"
    merge_site: str = "skip"
    merge_where: str = "all"
    attention: str = "none"
    attention_form: str = "none"
    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    warmup_epochs: float = 0.0
    schedule: str = "cosine"
    stop_curve: tuple[float, ...] = ()
    augment: str = "none"
    dropout: float = 0.0
    jacobian_penalty: float = 0.0

    def __post_init__(self) -> None:
        for name in ("width", "epochs", "batch_size"):
            self._require(name, getattr(self, name) >= 1, "a whole number of at least 1")
        for name in ("weight_decay", "warmup_epochs", "jacobian_penalty"):
            self._require(name, 0 <= getattr(self, name) < math.inf, "a finite number of at least 0")
        self._require("lr", 0 < self.lr < math.inf, "a finite number above 0")
        for name in ("momentum", "dropout"):
            self._require(name, 0 <= getattr(self, name) < 1, "a number from 0 to below 1")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise UserError(f"setting {name!r} = {getattr(self, name)!r}: expected {expected}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "TrialConfig":
        """Build from plain values (as JSON gives them). Raises ``UserError`` naming an unknown or missing key."""
        fields = {f.name: f for f in dataclasses.fields(cls)}
        for key in values:
            if key not in fields:
                raise UserError(f"unknown setting {key!r}{nearest(key, fields)}")
        missing = [n for n, f in fields.items() if f.default is _REQUIRED and n not in values]
        if missing:
            raise UserError(f"missing setting {missing[0]!r}: it has no default")
        checked: dict[str, Any] = {name: _checked(name, fields[name].type, value) for name, value in values.items()}
        return cls(**checked)

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @property
    def trial_key(self) -> str:
        """16 hex digits that change when, and only when, a field that changes the weights does."""
        changed = {
            f.name: _plain(getattr(self, f.name))
            for f in dataclasses.fields(self)
            if f.default is _REQUIRED or getattr(self, f.name) != f.default
        }
        return _digest("train", changed)


def measure_key(trial_key: str, statistic: str, settings: Mapping[str, Any]) -> str:
    """Name of one statistic, at these non-default ``settings`` (and its revision), on the weights named by ``trial_key``."""
    return _digest("measure", {"trial": trial_key, "statistic": statistic, "settings": dict(settings)})


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


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _digest(kind: str, values: Mapping[str, Any]) -> str:
    text = json.dumps([kind, values], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

"""The keys that name replicates and measurements: frozen, since a changed key orphans every result ever written."""

import dataclasses
import json

import pytest

from study.config import TrialConfig, measure_key
from study.errors import UserError

REQUIRED = {"dataset": "digits", "depth": 8, "seed": 1, "split_seed": 2}
# another value for every field, so that a field left out of the key is found
OTHER = {
    "dataset": "fake", "depth": 14, "seed": 3, "split_seed": 4, "network": "other", "width": 8, "merge": "mul",
    "merge_site": "branch", "merge_where": "first",
    "attention_where": "last", "attention": "se", "attention_form": "mul", "epochs": 11,
    "batch_size": 64, "lr": 0.2, "momentum": 0.8, "weight_decay": 0.1, "warmup_epochs": 0.5, "schedule": "constant",
    "stop_curve": (1.0, 0.5), "augment": "flip", "dropout": 0.3, "jacobian_penalty": 0.1,
    "last_batch": "keep", "optimizer_made": "each_epoch", "norm_momentum": 0.2, "norm_parts": 2, "input_moments": "imagenet",
    "validation": "test", "optimizer": "adamw", "beta2": 0.9, "decayed": "weights", "clip_norm": 1.0,
    "label_smoothing": 0.1, "mixup": 0.2, "ema_decay": 0.9, "norm": "layer", "activation": "gelu",
}  # fmt: skip

# what a setting goes with
NEEDED = {"beta2": {"optimizer": "adamw"}}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({}, "6aa758fb9d6e27d2"),
        (
            {"depth": 14, "seed": 3, "split_seed": 4, "width": 8, "merge": "sig_bn", "epochs": 6, "lr": 0.2}
            | {"weight_decay": 5e-4},
            "400e7f91ab8958af",
        ),
        ({"attention": "se", "attention_form": "mul", "stop_curve": (2.0, 1.5)}, "b3fb154643909197"),
    ],
)
def test_trial_keys_are_frozen(changes, key):
    assert TrialConfig(**REQUIRED | changes).trial_key == key


def test_measure_keys_are_frozen():
    assert measure_key("6aa758fb9d6e27d2", "path", {}) == "11fc57aed6c0aa3d"
    assert measure_key("6aa758fb9d6e27d2", "path", {"num_pairs": 64}) == "1ef2827fac08857d"


def test_every_part_of_a_measure_key_counts_and_the_order_of_settings_does_not():
    keys = {
        measure_key("a", "path", {}),
        measure_key("b", "path", {}),
        measure_key("a", "noise", {}),
        measure_key("a", "path", {"x": 1}),
        measure_key("a", "path", {"x": 2}),
        measure_key("a", "path", {"y": 1}),
    }
    assert len(keys) == 6
    assert measure_key("a", "path", {"x": 1, "y": 2}) == measure_key("a", "path", {"y": 2, "x": 1})


def test_a_default_spelled_out_gives_the_same_key():
    plain = TrialConfig(**REQUIRED)
    assert TrialConfig.from_mapping(plain.as_dict()).trial_key == plain.trial_key
    for field in dataclasses.fields(TrialConfig):
        if field.name not in REQUIRED:
            assert TrialConfig(**REQUIRED, **{field.name: field.default}).trial_key == plain.trial_key, field.name


def test_every_field_changes_the_key():
    # keywords are keys of their own: tests/unit/test_own_networks.py
    assert {*OTHER, "keywords"} == {field.name for field in dataclasses.fields(TrialConfig)}
    keys = {TrialConfig(**REQUIRED | {name: value} | NEEDED.get(name, {})).trial_key for name, value in OTHER.items()}
    assert len(keys | {TrialConfig(**REQUIRED).trial_key}) == len(OTHER) + 1


def test_a_config_survives_json():
    # momentum and parts are those of batch norms
    config = TrialConfig(**REQUIRED | OTHER | {"norm": "batch"})
    back = TrialConfig.from_mapping(json.loads(json.dumps(config.as_dict())))
    assert back == config and back.trial_key == config.trial_key and isinstance(back.stop_curve, tuple)


def test_a_whole_number_is_a_good_float():
    config = TrialConfig.from_mapping(REQUIRED | {"lr": 1})
    assert type(config.lr) is float and config.trial_key == TrialConfig(**REQUIRED, lr=1.0).trial_key


def test_a_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrialConfig(**REQUIRED).lr = 0.2


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (REQUIRED | {"weigth_decay": 0.1}, ["weigth_decay", "did you mean 'weight_decay'"]),
        (REQUIRED | {"depth": "8"}, ["depth", "'8'", "expected int", "got str"]),
        (REQUIRED | {"depth": 8.0}, ["depth", "8.0", "expected int", "got float"]),
        (REQUIRED | {"depth": True}, ["depth", "True", "expected int", "got bool"]),
        (REQUIRED | {"lr": "fast"}, ["lr", "'fast'", "expected float", "got str"]),
        (REQUIRED | {"lr": None}, ["lr", "None", "expected float"]),
        (REQUIRED | {"merge": 3}, ["merge", "3", "expected str", "got int"]),
        ({"dataset": "digits", "depth": 8, "seed": 1}, ["missing", "split_seed"]),
    ],
)
def test_faults_are_told_by_key_and_value(values, parts):
    with pytest.raises(UserError) as caught:
        TrialConfig.from_mapping(values)
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in parts), message

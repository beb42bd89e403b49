"""The page of keys and the shipped schema are the models', and the schema takes every preset."""

import jsonschema
import pytest
import yaml

from search_spaces import Spec, presets
from study.planning.layout import SETTINGS
from study.printing.specification import PAGE, REGENERATE, SCHEMA, example, page, schema, schema_text

WHOLE = schema()
MODELS = {"Spec": WHOLE, **WHOLE["$defs"]}
KEYS = [(model, key) for model in MODELS for key in MODELS[model]["properties"]]
VALIDATOR = jsonschema.Draft202012Validator(WHOLE)


def test_the_page_and_the_schema_are_the_models():
    told = f"not what the models say: run `{REGENERATE}`"
    assert page() == PAGE.read_text(), told
    assert schema_text() == SCHEMA.read_text(), told
    jsonschema.Draft202012Validator.check_schema(WHOLE)


def test_every_model_is_reached_and_every_setting_is_on_the_page():
    text = page()
    assert all(f"\n{name}. " in text for name in WHOLE["$defs"])
    assert len([line for line in text.splitlines() if line.startswith("| `")]) == len(KEYS) + len(SETTINGS)


@pytest.mark.parametrize(("model", "key"), KEYS, ids=".".join)
def test_a_key_has_a_meaning_and_an_example_that_is_valid(model, key):
    value = MODELS[model]["properties"][key]
    assert len(value["description"]) > 4
    shown = example(value, WHOLE["$defs"])
    jsonschema.Draft202012Validator({**value, "$defs": WHOLE["$defs"]}).validate(shown)


@pytest.mark.parametrize("name", presets())
def test_a_preset_names_the_schema_and_is_valid(name):
    text = (SCHEMA.parent / f"{name}.yaml").read_text()
    assert text.splitlines()[0] == "# yaml-language-server: $schema=spec.schema.json"
    values = yaml.safe_load(text)
    VALIDATOR.validate(values)
    # as YAML was written out of a study: with every default
    VALIDATOR.validate(Spec.model_validate(values).model_dump(mode="json"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"bugdet": {}},
        {"blocks": 0},
        {"checkpoints": "all"},
        {"alpha": 0.5},
        {"factors": {"merge": "add"}},
        {"factors": []},
        {"resources": {"step": "quick"}},
        {"nuisance": {"lr": {"low": 0.1}}},
        {"name": "a/b"},
    ],
    ids=str,
)
def test_the_schema_refuses_what_the_models_refuse(wrong):
    values = yaml.safe_load((SCHEMA.parent / "digits.yaml").read_text())
    for grids in (values["factors"], values["factors"][0]):
        VALIDATOR.validate(values | {"factors": grids})
    assert not VALIDATOR.is_valid(values | wrong)
    with pytest.raises(ValueError):
        Spec.model_validate(values | wrong)


@pytest.mark.parametrize("key", ["factors", "fixed", "nuisance"])
def test_the_schema_knows_the_settings(key):
    values = yaml.safe_load((SCHEMA.parent / "dose.yaml").read_text())
    held = values[key][0] if key == "factors" else values[key]
    assert VALIDATOR.is_valid(values | {key: held})
    assert not VALIDATOR.is_valid(values | {key: {"widht": next(iter(held.values()))}})


@pytest.mark.parametrize(
    "own",
    [
        {"fixed": {"network": "my_nets:f"}},
        {"factors": [{"network": ["a", "timm/b"]}]},
        {"factors": {"network": ["m:f"]}},
    ],
)
def test_beside_a_network_of_ones_own_other_settings_may_stand(own):
    values = yaml.safe_load((SCHEMA.parent / "dose.yaml").read_text())
    keyword = {"nuisance": {"variant": {"choices": ["a", "b"]}}}
    assert VALIDATOR.is_valid(values | keyword | own) and not VALIDATOR.is_valid(values | keyword)

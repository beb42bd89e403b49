"""The keys of a specification as a page and as a JSON schema for editors, both made from its models.

``python -m study.printing.specification`` writes ``docs/specification.md`` and ``search_spaces/spec.schema.json``.
"""

import dataclasses
import json
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic.json_schema import GenerateJsonSchema

from search_spaces import Spec
from study.config import MOST
from study.planning.layout import SETTINGS
from study.printing.console import markdown_table

REGENERATE = "python -m study.printing.specification"
ROOT = Path(__file__).parents[2]
PAGE, SCHEMA = ROOT / "docs" / "specification.md", ROOT / "search_spaces" / "spec.schema.json"
_LEVEL = "level"
_KINDS = {str: "string", int: "integer", float: "number"}
_INTRODUCTION = f"""# The keys of a specification

Made from the models by `{REGENERATE}`. A level is a boolean, a number or a string.
`NAME` stands for the name of a hyperparameter, dose or claim, `[]` for each item of a list. `fmm-study plan SPEC` checks a
file and runs nothing.

Editors that know the YAML language server complete and check a file whose first line names the schema. It comes with the
package, in the folder that `python -c "import search_spaces; print(search_spaces.__path__[0])"` prints:

    # yaml-language-server: $schema=THAT_FOLDER/spec.schema.json
"""


class _AsWritten(GenerateJsonSchema):
    """Keys stay in the order of the models."""

    def sort(self, value: Any, parent_key: str | None = None) -> Any:
        return value


def schema() -> dict[str, Any]:
    """The JSON schema of a specification; unlike the models it knows the names of settings."""
    written = Spec.model_json_schema(schema_generator=_AsWritten)
    return {"$schema": GenerateJsonSchema.schema_dialect, **written, **_known_settings()}


def _known_settings() -> dict[str, Any]:
    """The part of the schema that knows the names of settings; a network of one's own has others too."""
    known, own = {"propertyNames": {"enum": list(SETTINGS)}}, {"type": "string", "pattern": "[:/]"}
    same = {"propertyNames": {"$ref": "#/else/properties/fixed/propertyNames"}}

    def has(network: Any) -> dict[str, Any]:
        return {"type": "object", "properties": {"network": network}, "required": ["network"]}

    grid = has({"contains": own})
    places = {
        "fixed": has(own),
        "nuisance": has({"properties": {"choices": {"contains": own}}, "required": ["choices"]}),
        "factors": {"anyOf": [grid, {"type": "array", "contains": grid}]},
    }
    found = [{"properties": {key: held}, "required": [key]} for key, held in places.items()]
    grids = {"if": {"type": "array"}, "then": {"items": same}, "else": same}
    ranges = {"items": {"properties": {"where": same, "nuisance": same}}}
    named = {"fixed": known, "nuisance": same, "factors": grids, "ranges": ranges}
    return {"if": {"anyOf": found}, "else": {"properties": named}}


def schema_text() -> str:
    """The schema as the package ships it."""
    return json.dumps(schema(), indent=1) + "\n"


def page() -> str:
    """The page ``docs/specification.md``: a table per model, then the settings that factors, fixed and nuisance name."""
    whole = schema()
    lines = [_INTRODUCTION, *_table(whole, whole["$defs"])]
    for name, paths in _places(whole).items():
        model = whole["$defs"][name]
        lines += [
            f"\n## {', '.join(f'`{path}`' for path in paths)}\n",
            f"{name}. {' '.join(model['description'].split())}\n",
        ]
        lines += _table(model, whole["$defs"])
    lines += [
        "\n## Settings\n",
        "What `factors`, `fixed` and `nuisance` may name; a factor maps it to a list of levels.\n",
    ]
    rows = []
    for setting in SETTINGS.values():
        kind, meaning = typing.get_args(setting.type)
        required = setting.default is dataclasses.MISSING or setting.name == "depth"
        most = f" ≤ {MOST[setting.name]:g}" if setting.name in MOST else ""
        rows.append(
            (f"`{setting.name}`", _KINDS[kind] + most, "required" if required else _code(setting.default), meaning)
        )
    return "\n".join([*lines, *markdown_table(("key", "type", "default", "meaning"), rows)]) + "\n"


def example(key: Mapping[str, Any], models: Mapping[str, Any]) -> Any:
    """A value of a key: the one that its model gives, or one that follows from its type and the keys below it."""
    if "examples" in key:
        return key["examples"][0]
    if "enum" in key:
        return key["enum"][-1]
    if key.get("type") == "boolean":
        return True
    if "$ref" in key:
        model = models[key["$ref"].rpartition("/")[2]]
        return {name: example(model["properties"][name], models) for name in model["required"]}
    if "items" in key:
        return [example(key["items"], models)]
    if isinstance(key.get("additionalProperties"), dict):
        return {"NAME": example(key["additionalProperties"], models)}
    return example(key["anyOf"][0], models)


def _places(whole: Mapping[str, Any]) -> dict[str, list[str]]:
    """Model -> the keys that hold one, outermost first."""
    found: dict[str, list[str]] = {}

    def walk(model: Mapping[str, Any], before: str) -> None:
        for key, value in model["properties"].items():
            for name, path in _models_in(value, f"{before}{key}"):
                if path not in found.setdefault(name, []):
                    found[name].append(path)
                    walk(whole["$defs"][name], f"{path}.")

    walk(whole, "")
    return found


def _models_in(key: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    if "$ref" in key:
        yield key["$ref"].rpartition("/")[2], path
    for part in key.get("anyOf", ()):
        yield from _models_in(part, path)
    if "items" in key:
        yield from _models_in(key["items"], f"{path}[]")
    if isinstance(key.get("additionalProperties"), dict):
        yield from _models_in(key["additionalProperties"], f"{path}.NAME")


def _table(model: Mapping[str, Any], models: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, key in model["properties"].items():
        default = "required" if name in model.get("required", ()) else _code(_default(key, models))
        rows.append((f"`{name}`", _type(key), default, key["description"], _code(example(key, models))))
    return markdown_table(("key", "type", "default", "meaning", "example"), rows)


def _default(key: Mapping[str, Any], models: Mapping[str, Any]) -> Any:
    """The default of a key; of a model only what differs from its own defaults."""
    if "$ref" not in key:
        return key["default"]
    own = models[key["$ref"].rpartition("/")[2]]["properties"]
    return {name: value for name, value in key["default"].items() if value != own[name].get("default")}


def _type(key: Mapping[str, Any]) -> str:
    if "anyOf" in key:
        parts = list(dict.fromkeys(_type(part) for part in key["anyOf"] if part.get("type") != "null"))
        return _LEVEL if parts == ["boolean", "integer", "number", "string"] else " or ".join(parts)
    if "$ref" in key:
        return str(key["$ref"].rpartition("/")[2])
    if "enum" in key:
        return " or ".join(map(_code, key["enum"]))
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    said = [f"{sign} {key[name]:g}" for name, sign in bounds.items() if name in key]
    if key["type"] == "array":
        least = f" (at least {key['minItems']})" if key.get("minItems", 1) > 1 else ""
        return f"list of {_type(key['items'])}{least}"
    if key["type"] == "object":
        inner = key.get("additionalProperties")
        return f"mapping to {_type(inner)}" if isinstance(inner, dict) else "mapping"
    return " ".join([str(key["type"]), ", ".join(said)]).strip()


def _code(value: Any) -> str:
    """A value as a specification has it."""
    if value is None:
        return "none"
    return f"`{yaml.safe_dump([value], default_flow_style=True, sort_keys=False, width=10_000).strip()[1:-1]}`"


if __name__ == "__main__":
    PAGE.write_text(page())
    SCHEMA.write_text(schema_text())

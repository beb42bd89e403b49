"""Reading a specification: a preset by name or a YAML file by path, safely, with one line about a fault."""

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from search_spaces.spec import Spec


class SpecError(ValueError):
    """A specification that cannot be used; the message is one line naming the key, the value and what was expected."""


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    files = resources.files("search_spaces").iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def load_spec(name_or_path: str, overrides: Sequence[str] = ()) -> Spec:
    """Read a preset by name, or a YAML file by path, with ``dotted.key=value`` overrides. Raises ``SpecError``."""
    return parse_spec(_read(name_or_path), name_or_path, overrides)


def _read(name_or_path: str) -> str:
    if name_or_path in presets():
        return (resources.files("search_spaces") / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml") and not path.is_file():
        raise SpecError(
            f"unknown preset {name_or_path!r}{_nearest(name_or_path, presets())}; or give a path to a .yaml file"
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read {name_or_path}: {getattr(error, 'strerror', None) or error}") from None


def parse_spec(text: str, origin: str, overrides: Sequence[str] = ()) -> Spec:
    """Parse YAML text (safe loader: a tag that would run code is refused). ``origin`` names it in errors."""
    values = _yaml(text, origin)
    if values is None:
        raise SpecError(f"{origin}: the file is empty; a specification is a YAML mapping")
    if not isinstance(values, dict):
        raise SpecError(f"{origin}: a specification is a YAML mapping, this is a {type(values).__name__}")
    for override in overrides:
        _override(values, override)
    return check_spec(values, origin)


def check_spec(values: dict[str, Any], origin: str) -> Spec:
    """The specification of plain ``values``. Raises ``SpecError``, which names ``origin``."""
    try:
        return Spec.model_validate(values)
    except ValidationError as error:
        raise SpecError(f"{origin}: {_first_fault(error)}") from None


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses a key that stands twice (YAML would let the last one win in silence)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for (key, _), name in zip(node.value, keys, strict=True):
            if keys.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {name!r} stands twice", key.start_mark)
        return super().construct_mapping(node, deep=deep)


def _yaml(text: str, origin: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2021-13-45
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or f"not valid YAML ({' '.join(str(error).split())})"
        raise SpecError(f"{origin}{where}: {problem}") from None


def _override(values: dict[str, Any], override: str) -> None:
    """Put ``dotted.key=value`` (the value as YAML) into ``values``."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SpecError(f"--set {override!r}: expected KEY=VALUE, as in --set budget.search_trials=2")
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise SpecError(f"--set {override!r}: {part!r} is no mapping")
    values[last] = _yaml(text, f"--set {override!r}")


def _first_fault(error: ValidationError) -> str:
    """The first fault as ``key.path: what is wrong``, with the nearest known key for an unknown one.

    An unknown key comes first, for its misspelling is why another key is missing. Where a value may be one of two models,
    pydantic reports the faults of both: a key that either model knows is not unknown.
    """
    faults = error.errors(include_url=False)
    unknown = [f for f in faults if f["type"] == "extra_forbidden" and f["loc"][-1] not in _known_keys(f["loc"])]
    others = [f for f in faults if f["type"] not in ("extra_forbidden", "missing")]
    fault = (unknown + others + faults)[0]
    # the names of a union's models stand in the location; no key of a specification looks like them
    models = ("function-after[_ordered(), FloatRange]", "FloatRange", "Choice")
    key = ".".join(str(part) for part in fault["loc"] if part not in models)
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key!r} = {fault['input']!r}{_nearest(str(fault['loc'][-1]), _known_keys(fault['loc']))}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] in ("missing", "value_error"):
        return f"{key}: {message}" if key else message
    return f"{key}: {message}, got {fault['input']!r}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Keys of the models in which ``location`` may end, found by walking the field types from the top."""
    models: list[type[BaseModel]] = [Spec]
    for part in location[:-1]:
        inner = [model.model_fields[str(part)].annotation for model in models if part in model.model_fields]
        if inner:
            models = [model for annotation in inner for model in _models_in(annotation)]
    return list(dict.fromkeys(key for model in models for key in model.model_fields))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models_in(argument)]


def _nearest(name: str, known: list[str]) -> str:
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else f" (known: {', '.join(known)})" if known else ""

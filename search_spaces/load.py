"""Reading a specification: a preset by name or a YAML file by path, safely, with one line about a fault."""

import contextlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from search_spaces.document import DocumentError, read_text, read_yaml
from search_spaces.spec import Spec
from search_spaces.strict import canonical, found, nearest, quoted

# a specification in the folder of a published study
SPECIFICATION = "specification.yaml"


class SpecError(ValueError):
    """A specification that cannot be used; the message is one line naming the key, the value and what was expected.

    ``key``: the first part of the key, where one is at fault.
    """

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class UnknownPreset(SpecError):
    """A name that is neither a preset nor a file."""


# Where this process has read specifications: modules that they name may lie beside them.
_folders: dict[str, None] = {}


def folders() -> list[str]:
    """The folders of the YAML files that were read, in order."""
    return list(_folders)


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    files = resources.files("search_spaces").iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def load_spec(source: str | Mapping[str, Any], overrides: Sequence[str] = ()) -> Spec:
    """Read a preset by name, a YAML file by path, or a mapping as YAML would give it. Raises ``SpecError``.

    ``overrides``: ``dotted.key=value``.
    """
    if isinstance(source, str):
        return parse_spec(_read(source), source, overrides)
    return spec_from(_in_order(dict(source)), "specification", overrides)


def _read(name_or_path: str) -> str:
    if name_or_path in presets():
        return (resources.files("search_spaces") / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    path = Path(name_or_path)
    if _is_folder(path):
        inside = path / SPECIFICATION
        which = f": {inside} is one" if _is_file(inside) else ""
        raise SpecError(f"{quoted(name_or_path)} is a folder; give a preset or a path to a .yaml file{which}")
    if path.suffix not in (".yaml", ".yml") and not _is_file(path):
        raise UnknownPreset(
            f"unknown preset {quoted(name_or_path)}{nearest(name_or_path, presets())}; or give a path to a .yaml file"
        )
    try:
        text = read_text(path)
    except DocumentError as error:
        raise SpecError(str(error)) from None
    _folders[str(path.resolve().parent)] = None
    return text


def _is_file(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):  # a name that is too long, or holds a null
        return path.is_file()
    return False


def _is_folder(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return path.is_dir()
    return False


def parse_spec(text: str, origin: str, overrides: Sequence[str] = ()) -> Spec:
    """Parse YAML text (safe loader: a tag that would run code is refused). ``origin`` names it in errors."""
    try:
        values = read_yaml(text, origin)
    except DocumentError as error:
        raise SpecError(str(error)) from None
    return spec_from(_in_order(values), origin, overrides)


def _in_order(values: Any) -> Any:
    """``values`` with hyperparameters by name: their order decides which coordinate of a Sobol set is whose."""
    if isinstance(values, dict) and isinstance(tuned := values.get("nuisance"), dict):
        return values | {"nuisance": dict(sorted(tuned.items(), key=lambda item: str(item[0])))}
    return values


def spec_from(values: Any, origin: str, overrides: Sequence[str] = ()) -> Spec:
    """The specification of plain ``values``, with overrides. Raises ``SpecError``."""
    try:
        if values is None:
            raise SpecError(f"{origin}: the file is empty; a specification is a YAML mapping")
        if not isinstance(values, dict):
            raise SpecError(f"{origin}: a specification is a YAML mapping, this is a {type(values).__name__}")
        # a copy, in which no two keys share a mapping that an override would change under both
        values = _canonical(values, origin)
        for override in overrides:
            _override(values, override)
    except DocumentError as error:
        raise SpecError(str(error)) from None
    return check_spec(values, origin)


def with_changes(spec: Spec, overrides: list[str], origin: str) -> Spec:
    """``spec`` with ``dotted.key=value`` overrides. Raises ``SpecError``, which names ``origin``."""
    return spec_from(spec.model_dump(mode="json"), origin, overrides) if overrides else spec


def check_spec(values: Any, origin: str) -> Spec:
    """The specification of plain ``values``. Raises ``SpecError`` with the first fault."""
    try:
        return Spec.model_validate(values)
    except ValidationError as error:
        place = error.errors(include_url=False)[0]["loc"]
        key = str(place[0]) if place else _uncanonical(values)
        raise SpecError(f"{origin}: {_first_fault(error)}", key) from None


def _uncanonical(values: Any) -> str:
    """The first key whose value has no canonical form."""
    for key, value in values.items() if isinstance(values, dict) else ():
        try:
            canonical({key: value})
        except ValueError:
            return str(key)
    return ""


def _canonical(values: Any, origin: str) -> Any:
    try:
        return canonical(values)
    except ValueError as error:
        raise SpecError(f"{origin}: {error}") from None


def _override(values: dict[str, Any], override: str) -> None:
    """Put ``dotted.key=value`` (the value as YAML) into ``values``."""
    key, equals, text = override.partition("=")
    where = f"--set {quoted(override)}"
    if not equals or not key:
        raise SpecError(f"{where}: expected KEY=VALUE, as in --set budget.search_trials=2")
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise SpecError(f"{where}: {part!r} is no mapping")
    values[last] = read_yaml(text, where)


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
        known = _known_keys(fault["loc"])
        return f"unknown key {key!r} = {quoted(fault['input'])}{nearest(str(fault['loc'][-1]), known)}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] in ("missing", "value_error"):
        return f"{key}: {message}" if key else message
    return f"{key}: {message}, {found(fault['input'])}"


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

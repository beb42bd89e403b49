"""A state dict as training scripts write it, fitted to a network: wrappers, prefixes, and what is missing or too much, named.

Source: https://docs.pytorch.org/tutorials/beginner/saving_loading_models.html
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from study.errors import UserError, nearest

# keys under which training scripts wrap a state dict, the likeliest first
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights")
# torch.compile puts it before the names of what it compiles, a whole network or a part of one
_COMPILED = "_orig_mod."
_NAMED = 3


def fit_state_dict(model: nn.Module, held: Mapping[str, Any], where: str) -> list[str]:
    """Load into ``model`` the weights that ``held`` holds; returns the names that belong to other parts of the file.

    They may be wrapped (``WRAPPERS``), also twice, and their names may have a prefix: ``module.`` (DataParallel), ``model.``
    (Lightning), ``_orig_mod.`` (torch.compile), any other that fits whole, and several of them. Names under another prefix are
    other parts. Raises ``UserError``, beginning with ``where``, that names at most three missing and unexpected keys each.
    """
    expected = model.state_dict()
    found = _without_prefix(_unwrapped(held, where), expected, where)
    inside = {name: value for name, value in found.items() if not name.startswith("/")}
    missing = [name for name in expected if name not in inside]
    unexpected = [name for name in inside if name not in expected]
    shapes = [
        f"{name} {_shape(inside[name])} for {_shape(value)}"
        for name, value in expected.items()
        if name in inside and _shape(inside[name]) != _shape(value)
    ]
    faults = [
        f"{what} {few(names)}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]
    if faults:
        hint = nearest(missing[0], unexpected) if missing and unexpected else ""
        raise UserError(f"{where}: {'; '.join(faults)}{hint}")
    model.load_state_dict(inside)
    return [name[1:] for name in found if name.startswith("/")]


def _unwrapped(held: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The innermost dictionary of tensors."""
    inner = {key: value for key, value in held.items() if isinstance(value, Mapping) and _contains(value)}
    key = next((key for key in WRAPPERS if key in inner), None)
    if key is None and _is_state_dict(held):
        return dict(held)
    key = key or (next(iter(inner)) if len(inner) == 1 else None)
    if key is None:
        among = f" (several could be: {few(list(inner))})" if inner else ""
        raise UserError(f"{where}: no state dict in it{among}; its keys: {few([str(key) for key in held])}")
    return _unwrapped(inner[key], where)


def _is_state_dict(held: Mapping[str, Any]) -> bool:
    return all(isinstance(key, str) for key in held) and any(isinstance(value, Tensor) for value in held.values())


def _contains(held: Mapping[str, Any]) -> bool:
    return _is_state_dict(held) or any(isinstance(value, Mapping) and _contains(value) for value in held.values())


def _without_prefix(found: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``found`` by the network's own names; what stands under another prefix begins with a slash."""
    if not any(_COMPILED in name for name in expected):
        found = {name.replace(_COMPILED, ""): value for name, value in found.items()}
    if not expected or set(expected) & set(found):
        return dict(found)
    prefixes = dict.fromkeys(
        name.removesuffix(own)
        for name in found
        for own in expected
        if name.endswith(f".{own}") and len(name) > len(own)
    )
    fits = {prefix: sum(f"{prefix}{name}" in found for name in expected) for prefix in prefixes}
    best = [prefix for prefix, num in fits.items() if num == max(fits.values())]
    if len(best) > 1:
        raise UserError(f"{where}: the weights of several networks fit, under {few(best)}: save one of them")
    if not best:
        return dict(found)
    (prefix,) = best
    return {
        name.removeprefix(prefix) if name.startswith(prefix) else f"/{name}": value for name, value in found.items()
    }


def _shape(value: Any) -> tuple[int, ...] | str:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def few(names: Sequence[str]) -> str:
    """The first three of ``names``, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(repr(name) if " " not in name else name for name in names[:_NAMED]) + more

"""YAML as people write it: safely, of bounded size, and with one line about what could be read in two ways.

Beside PyYAML's safe loader: ``1e-4`` is a number; ``no``, ``off``, ``yes`` and ``on`` are words, as in YAML 1.2 (a key that
takes a boolean takes them as one); a number with a leading zero (octal) or a colon (base 60) and a date are refused, with
the hint to quote them; no key stands twice in a mapping.

Source: https://yaml.org/spec/1.2.2/#103-core-schema
"""

import re
import stat
from pathlib import Path
from typing import Any

import yaml

from search_spaces.strict import MOST_DEPTH, quoted

MOST_BYTES = 1_000_000
# mappings that one mapping may take in by ``<<``
_MOST_MERGED = 50
_TAG = "tag:yaml.org,2002:"


class DocumentError(ValueError):
    """A text that cannot be read; one line."""


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth += 1
        if self._depth > 2 * MOST_DEPTH:
            raise yaml.composer.ComposerError(
                None, None, f"lies more than {2 * MOST_DEPTH} levels deep", self.get_mark()
            )
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping in which no key stands twice (YAML would let the last one win in silence)."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != f"{_TAG}merge":
                if (key.tag, key.value) in seen:
                    message = f"key {quoted(key.value)} stands twice"
                    raise yaml.composer.ComposerError(None, None, message, key.start_mark)
                seen.add((key.tag, key.value))
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Take in what ``<<`` names, each key once: a few lines of merged merges would be gigabytes otherwise."""
        merged = [value for key, value in node.value if key.tag == f"{_TAG}merge"]
        if sum(len(value.value) if isinstance(value, yaml.SequenceNode) else 1 for value in merged) > _MOST_MERGED:
            raise yaml.constructor.ConstructorError(
                None, None, f"<< takes in more than {_MOST_MERGED} mappings", node.start_mark
            )
        super().flatten_mapping(node)
        if merged:
            node.value = list({(key.tag, str(key.value)): (key, value) for key, value in node.value}.values())

    def number(self, node: yaml.ScalarNode) -> Any:
        """An integer or a real number that can be read in one way only."""
        text = str(node.value)
        if re.match(r"[-+]?0[0-9_]", text) or ":" in text:
            how = "in base 60" if ":" in text else "as octal"
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"{quoted(text)} may be read {how}; put text in quotes, write numbers plainly",
                node.start_mark,
            )
        return self.construct_yaml_int(node) if node.tag == f"{_TAG}int" else self.construct_yaml_float(node)

    def date(self, node: yaml.ScalarNode) -> Any:
        """Refused; the safe loader's own complaint about an impossible one comes first."""
        self.construct_yaml_timestamp(node)
        raise yaml.constructor.ConstructorError(
            None, None, f"{quoted(node.value)} is read as a date; put it in quotes", node.start_mark
        )


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag != f"{_TAG}bool"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(f"{_TAG}bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


class _Dumper(yaml.SafeDumper):
    """Quotes what either kind of YAML would not read as text."""


for kind in (_Loader, _Dumper):
    kind.add_implicit_resolver(
        f"{_TAG}float",
        re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"),
        list("-+.0123456789"),
    )
_Loader.add_constructor(f"{_TAG}int", _Loader.number)
_Loader.add_constructor(f"{_TAG}float", _Loader.number)
_Loader.add_constructor(f"{_TAG}timestamp", _Loader.date)


def read_text(path: Path) -> str:
    """The text of a regular file of at most ``MOST_BYTES``. Raises ``DocumentError``."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DocumentError(f"cannot read {quoted(str(path))}: {_what(path)}")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise DocumentError(f"cannot read {quoted(str(path))}: it has more than {MOST_BYTES:,} bytes")
        return data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        if isinstance(error, DocumentError):
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DocumentError(f"cannot read {quoted(str(path))}: {reason}") from None


def _what(path: Path) -> str:
    return "Is a directory" if path.is_dir() else "it is no regular file"


def read_yaml(text: str, origin: str) -> Any:
    """The value of YAML ``text``; ``origin`` names it. Raises ``DocumentError``: where, and what is wrong."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None)
        problem = str(problem) if problem else f"not valid YAML ({' '.join(str(error).split())[:200]})"
        raise DocumentError(f"{origin}{where}: {problem[:400]}") from None


def write_yaml(values: Any, *, allow_unicode: bool = True) -> str:
    """YAML text that ``read_yaml`` gives back as ``values``, keys in their order."""
    return str(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=allow_unicode))

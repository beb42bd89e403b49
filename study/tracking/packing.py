"""Bytes of any length in the tags of an MLflow run, exactly: zlib, base64, in parts as long as a tag may be.

A tag holds 8,000 characters at most and is cut in silence beyond them. MLflow's own pages do not show names with the prefix
``mlflow.``. Tags rather than artifacts: a search returns them with its runs, a thousand per request, and they need no file
store that the reader can reach.
"""

import base64
import zlib
from collections.abc import Mapping

_TAG = "mlflow.fmm_study.{:03d}"
# a multiple of four: each part is base64 by itself
_PART_CHARS = 7600


def pack(data: bytes) -> dict[str, str]:
    """Tags that hold ``data``."""
    text = base64.b64encode(zlib.compress(data)).decode()
    parts = [text[i : i + _PART_CHARS] for i in range(0, len(text), _PART_CHARS)]
    return {_TAG.format(i): part for i, part in enumerate(parts)}


def unpack(tags: Mapping[str, str]) -> bytes | None:
    """What ``pack`` was given; ``None`` if parts are missing or, by zlib's checksum, do not belong together.

    Further parts, left from longer data, are not read.
    """
    stream, data = zlib.decompressobj(), b""
    try:
        for i in range(len(tags)):
            if stream.eof:
                break
            data += stream.decompress(base64.b64decode(tags[_TAG.format(i)], validate=True))
    except (KeyError, ValueError, zlib.error):
        return None
    return data if stream.eof else None

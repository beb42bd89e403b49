"""Bytes of any length in the tags of an MLflow run, exactly: zlib, base64, in parts as long as a tag may be.
https://mlflow.org/docs/latest/api_reference/rest-api.html#log-batch

A tag holds 8,000 characters at most and is cut in silence beyond them. Names with the prefix ``mlflow.`` are not shown by
MLflow's own pages. Tags rather than artifacts: they come with the runs that a search returns, a thousand a request, and need
no file store that the reader can reach.
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
    """What ``pack`` was given; ``None`` where there is nothing, or not all of it. Parts of an earlier, longer one are left.

    zlib's own checksum tells whether parts belong together.
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

"""Merge operators: how a block merges its shortcut x and its residual branch F."""

from study.models.merges.base import Merge
from study.models.merges.inside import register_inside
from study.models.merges.matched import register_matched
from study.models.merges.nam import register_nam
from study.models.merges.rows import register_rows
from study.registry import discover

discover(__name__)
register_rows()
register_inside()
register_nam()
register_matched()

__all__ = ["Merge"]

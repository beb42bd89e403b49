"""The package in Python, under a name that nothing else has: ``import fmm_study`` (docs/notebook.md)."""

from study import interface
from study.interface import *  # noqa: F403

__all__ = interface.__all__

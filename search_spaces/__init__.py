"""What may vary: the specification of a study and the presets. Imports nothing of ours and no torch."""

from search_spaces.load import SpecError, load_spec, parse_spec, presets
from search_spaces.resources import Resources
from search_spaces.spec import Budget, Choice, Claim, Contrast, FloatRange, Nuisance, Outcome, Spec
from search_spaces.strict import Levels

__all__ = [
    "Budget",
    "Choice",
    "Claim",
    "Contrast",
    "FloatRange",
    "Levels",
    "Nuisance",
    "Outcome",
    "Resources",
    "Spec",
    "SpecError",
    "load_spec",
    "parse_spec",
    "presets",
]

"""What may vary: the specification of a study and the presets. Imports nothing of ours and no torch."""

from search_spaces.claims import Claim, Contrast, Dose, LevelClaim, Outcome, Published
from search_spaces.document import write_yaml
from search_spaces.load import (
    SpecError,
    UnknownPreset,
    check_spec,
    folders,
    load_spec,
    parse_spec,
    presets,
    spec_from,
    with_changes,
)
from search_spaces.spec import Spec
from search_spaces.strict import Level, Levels
from search_spaces.trials import Budget, Choice, FloatRange, Nuisance, Resources

__all__ = [
    "Budget",
    "Choice",
    "Claim",
    "Contrast",
    "Dose",
    "FloatRange",
    "Level",
    "LevelClaim",
    "Levels",
    "Nuisance",
    "Outcome",
    "Published",
    "Resources",
    "Spec",
    "SpecError",
    "UnknownPreset",
    "check_spec",
    "folders",
    "load_spec",
    "parse_spec",
    "presets",
    "spec_from",
    "with_changes",
    "write_yaml",
]

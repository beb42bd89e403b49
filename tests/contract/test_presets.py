"""Every preset is a study that can be planned without its data, and its first lines say how large it is."""

import re
from importlib import resources

import pytest

from analysis.claims.power_words import undecidable
from search_spaces import load_spec, presets
from study.planning.plan import make_plan
from study.smoothness.statistic import estimate_names, parse_settings

WITHOUT_CLAIMS = {"joint"}
# others' recipes to the letter hold nothing beside them


@pytest.mark.parametrize("name", presets())
def test_a_preset_can_be_planned_and_its_comment_tells_its_size(name: str) -> None:
    plan = make_plan(load_spec(name), needs_data=False)
    assert plan.spec.name == name and plan.cells
    text = (resources.files("search_spaces") / f"{name}.yaml").read_text(encoding="utf-8")
    comment = " ".join(line[2:] for line in text.splitlines() if line.startswith("# "))
    told = [
        int(number.replace(",", "")) for number in re.findall(r"([\d,]+) (?:search trials|confirmed|cells)", comment)
    ]
    if told:
        assert told == [len(plan.cells), *[n for n in (plan.num_search,) if n], plan.num_confirm]
    assert told or plan.spec.demonstration, (
        "the first lines of a preset tell cells, search trials, confirmed replicates"
    )


@pytest.mark.parametrize("name", sorted(set(presets()) - WITHOUT_CLAIMS))
def test_a_preset_has_the_control_and_enough_blocks_for_a_verdict(name: str) -> None:
    spec = load_spec(name)
    assert spec.control is not None
    assert spec.demonstration or spec.blocks >= 10
    assert spec.assay is not None
    assert undecidable(spec) == ""
    accuracy = [o.margin for claim in spec.claims.values() for o in claim.outcomes if "accuracy" in o.name]
    assert accuracy and set(accuracy) == {0.01 if spec.demonstration else 0.005}


@pytest.mark.parametrize("name", sorted(set(presets()) - WITHOUT_CLAIMS))
def test_outcomes_that_claims_name_are_measured(name: str) -> None:
    """A preset cannot claim what no statistic of it gives."""
    spec = load_spec(name)
    named = {outcome.name for claim in spec.claims.values() for outcome in claim.outcomes}
    for level in spec.level_claims.values():
        named |= {level.outcome, *((level.control.higher, level.control.lower) if level.control else ())}
    given = set()
    for statistic, settings in spec.measure.statistics.items():
        given |= set(estimate_names(statistic, parse_settings(statistic, settings)))
    assert {outcome for outcome in named if "/" not in outcome} <= given

"""What claims, controls, contrasts, doses and published results name is a level of a cell, or an outcome that is had."""

import re
from pathlib import Path

import pytest
from command_line import fmm_study

from search_spaces import load_spec
from study.commands.claimed import checked_plan
from study.errors import UserError

PRESETS = [path.stem for path in Path("search_spaces").glob("*.yaml")]
FAMILY = "[{merge: mul}, {merge: authors_9}]"
# what is changed in the preset digits, and what is told
WRONG = {
    "control={arm: {merge: add_alais}, reference: {merge: add}}": (
        "control: no cell of this study has merge 'add_alais' (did you mean 'add_alias'?)"
    ),
    "control={arm: {merge: add_alias}, reference: {merge: ad}}": (
        "control: no cell of this study has merge 'ad' (did you mean 'add'?)"
    ),
    "assay={arm: {depth: 9, shortened: 1}, reference: {depth: 9, shortened: 0.25}}": (
        "assay: no cell of this study has depth 9 (known: 14, 8)"
    ),
    f"claims.C4.arms={FAMILY}": "C4: no cell of this study has merge 'authors_9' (did you mean 'authors_8'?)",
    "claims.C2.references=[{attention_form: statik}]": (
        "C2: no cell of this study has attention_form 'statik' (did you mean 'static'?)"
    ),
    "claims.C2.outcomes=[{name: test/acuracy, margin: 0.01}]": (
        "claims.C2: outcome 'test/acuracy' is no metric and no estimate of a measured statistic "
        "(did you mean 'test/accuracy'?)"
    ),
    "claims.C2.outcomes=[{name: noise_65_accuracy, margin: 0.01}]": (
        "claims.C2: outcome 'noise_65_accuracy' is no metric and no estimate of a measured statistic "
        "(did you mean 'noise_64_accuracy'?)"
    ),
    "claims.C2.outcomes=[{name: hessian_trace, margin: 0.01}]": (
        "claims.C2: outcome 'hessian_trace' is given by the statistic 'hessian', which is not measured; add it under "
        "measure.statistics"
    ),
    "level_claims.C1.each=[{attention_form: native}, {attention_form: mull}]": (
        "C1: no cell of this study has attention_form 'mull' (did you mean 'mul'?)"
    ),
    "level_claims.C1.outcome=attention_importance_ratio": (
        "level_claims.C1: outcome 'attention_importance_ratio' is no metric and no estimate of a measured statistic "
        "(did you mean 'attention_importance_ratio_zero'?)"
    ),
    "level_claims.C1.control.lower=attention_importance_spearman_zer": (
        "level_claims.C1.control.lower: outcome 'attention_importance_spearman_zer' is no metric and no estimate of a "
        "measured statistic (did you mean 'attention_importance_spearman_zero'?)"
    ),
    "contrasts=[{arm: {merge: mul}, reference: {merge: square}}]": (
        "contrasts[0]: no cell of this study has merge 'square' (known: add, add_alias, authors_14,"
    ),
    "contrasts=[{arm: {merge: mul, depth: 14}, reference: {merge: authors_8, depth: 14}}]": (
        "contrasts[0]: no cell of this study has merge authors_8 depth 14 together"
    ),
    "contrasts=[{arm: {attention_form: mul}, reference: {attention_form: none}}]": (
        "contrasts[0]: no cell with attention_form mul has its like with attention_form none: all other factors must "
        "agree, and attention cannot"
    ),
    "published=[{levels: {merge: mull}, outcome: test/accuracy, value: 0.9, source: x}]": (
        "published[0]: no cell of this study has merge 'mull' (did you mean 'mul'?)"
    ),
    "published=[{levels: {merge: mul}, outcome: test/acc, value: 0.9, source: x}]": (
        "published[0]: outcome 'test/acc' is no metric and no estimate of a measured statistic (did you mean"
    ),
}


@pytest.mark.parametrize(("change", "told"), WRONG.items())
def test_a_name_that_nothing_has_is_refused(change, told):
    with pytest.raises(UserError, match=re.escape(told)):
        checked_plan(load_spec("digits", [change]))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_name_what_is_there(preset):
    checked_plan(load_spec(preset, []))


def test_others_may_have_published_what_a_study_leaves_out():
    change = "published=[{levels: {merge: authors_9, depth: 8}, outcome: val/accuracy_highest, value: 0.9, source: x}]"
    checked_plan(load_spec("digits", [change]))


def test_plan_and_a_first_run_refuse_it(tmp_path):
    change = next(iter(WRONG))
    for command in (("plan", "digits"), ("run", "digits", "--storage", str(tmp_path))):
        done = fmm_study(*command, "--set", change)
        assert done.returncode == 2 and WRONG[change] in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("ledger"))

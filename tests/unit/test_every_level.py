"""Every level against the control's reference: which comparisons, their numbers, and that no claim changes by them."""

import pytest
from book import JACOBIAN, synthetic_spec
from synthetic import accuracy_claim, inputs_of, planted_study, smoothness_claim

from analysis.effects.every_level import level_contrasts
from analysis.report.summary import summary
from analysis.tables.build import build_table

CONTROL = {"arm": {"merge": "add_alias"}, "reference": {"merge": "add"}}
GATES = [
    {"merge": ["add", "add_alias", "mul"], "attention": ["none"], "attention_form": ["none"], "depth": [8, 14]},
    {"merge": ["add"], "attention": ["se"], "attention_form": ["mul", "static"], "depth": [8]},
]
SE_MUL = {"attention": "se", "attention_form": "mul"}
NO_GATE = {"attention": "none", "attention_form": "none"}


def contrast(arm, reference):
    return {"arm": arm, "reference": reference}


def contrasts_of(factors, claims=(), contrasts=(), control=CONTROL, fixed=None):
    fixed = {"dataset": "digits", "epochs": 6} if fixed is None else fixed
    names = {name for grid in factors for name in grid}
    spec = synthetic_spec(
        factors=factors,
        claims=dict(claims),
        contrasts=list(contrasts),
        control=control,
        fixed={name: value for name, value in fixed.items() if name not in names},
    )
    return [(contrast.arm, contrast.reference) for contrast in level_contrasts(spec)]


@pytest.mark.parametrize(
    ("told", "given", "expected"),
    [
        (
            "a gate comes with its form, against none; the claimed operator is not repeated",
            {"factors": GATES, "claims": {"C4": accuracy_claim()}},
            [({"depth": 14}, {"depth": 8}), (SE_MUL, NO_GATE), (SE_MUL | {"attention_form": "static"}, NO_GATE)],
        ),
        (
            "what a contrast declares is not repeated, in either direction",
            {"factors": GATES, "contrasts": [contrast(NO_GATE, SE_MUL), contrast({"depth": 14}, {"depth": 8})]},
            [({"merge": "mul"}, {"merge": "add"}), (SE_MUL | {"attention_form": "static"}, NO_GATE)],
        ),
        (
            "the control's reference counts, wherever it stands in the list",
            {"factors": [{"merge": ["mul", "star", "add", "add_alias"]}]},
            [({"merge": "mul"}, {"merge": "add"}), ({"merge": "star"}, {"merge": "add"})],
        ),
        (
            "without a control the first level counts",
            {"factors": [{"kernel": [3, 5, 7]}], "control": None, "fixed": {"network": "my:net", "dataset": "digits"}},
            [({"kernel": 5}, {"kernel": 3}), ({"kernel": 7}, {"kernel": 3})],
        ),
        (
            "crossed factors: each by itself, the other equal",
            {"factors": [{"merge": ["add", "add_alias", "mul"], "width": [4, 8]}]},
            [({"width": 8}, {"width": 4}), ({"merge": "mul"}, {"merge": "add"})],
        ),
        (
            "data sets are not compared; a level that another grid leaves out is the default",
            {
                "factors": [
                    {"merge": ["add", "add_alias"], "dataset": ["digits", "fake"]},
                    {"merge": ["add"], "dataset": ["fake"], "label_smoothing": [0.1]},
                ]
            },
            [({"label_smoothing": 0.1}, {"label_smoothing": 0})],
        ),
    ],
)  # fmt: skip
def test_which_levels_are_compared(told, given, expected):
    assert contrasts_of(**given) == expected, told


def study():
    return planted_study(
        {("mul", 8): 0.03, ("star", 8): -0.02}, merges=("add", "add_alias", "mul", "star"), smooth={"star": 0.4}
    )


FACTORS = [{"merge": ["add", "add_alias", "mul", "star"], "depth": [8]}]


def test_numbers_are_those_of_the_same_contrast_declared():
    claims = {"C4": accuracy_claim(), "C3": smoothness_claim()}
    declared = {"contrasts": [{"arm": {"merge": "star"}, "reference": {"merge": "add"}}]}
    found = build_table(inputs_of(study(), factors=FACTORS, claims=claims), "level_effects")
    effects = build_table(inputs_of(study(), factors=FACTORS, claims=claims, **declared), "effects")
    wanted = [
        {name: row[name] for name in found.column_names}
        for row in effects.to_pylist()
        if row["arm"] == "merge=star" and row["outcome"] in ("test/accuracy", JACOBIAN)
    ]
    assert found.to_pylist() == wanted
    assert {row["outcome"]: row["n_pairs"] for row in wanted} == {"test/accuracy": 10, JACOBIAN: 10}
    assert build_table(inputs_of(study(), factors=FACTORS, claims=claims, **declared), "level_effects").num_rows == 0


@pytest.mark.parametrize("table", ["claims", "claim_parts", "effects", "differences"])
def test_claims_and_effects_are_those_of_a_study_without_the_level(table):
    claims, book = {"C4": accuracy_claim(), "C3": smoothness_claim()}, study()
    fewer = [{"merge": ["add", "add_alias", "mul"], "depth": [8]}]
    with_it, without = (inputs_of(book, factors=factors, claims=claims) for factors in (FACTORS, fewer))
    assert (with_it.level_effects.num_rows, without.level_effects.num_rows) == (4, 0)
    assert build_table(with_it, table).equals(build_table(without, table))


def test_the_summary_tells_difference_interval_pairs_and_an_exploratory_p():
    found = summary(inputs_of(study(), factors=FACTORS))
    lines = [" ".join(line.split()) for line in found.levels.lines()]
    assert lines[:2] == ["Outcome Pairs Difference [95%] p (exploratory)", "merge: star - add"]
    assert len(lines) == 3
    assert lines[2].startswith("test accuracy 10 -2.") and lines[2].endswith("] 0.002")
    assert all("star" not in line for line in found.effects.lines())


def test_without_claims_the_first_statistics_are_read_too():
    found = inputs_of(study(), factors=FACTORS, claims={}).level_effects.to_pylist()
    assert {(row["arm"], row["outcome"]) for row in found} == {
        (f"merge={merge}", outcome) for merge in ("mul", "star") for outcome in ("test/accuracy", JACOBIAN)
    }

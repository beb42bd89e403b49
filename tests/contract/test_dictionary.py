"""Every column of every table is described, once, where it is declared; so is every outcome that a claim may name."""

import csv
import dataclasses
import json
from pathlib import Path

import pyarrow.parquet
import pytest
from book import planted, synthetic_spec
from command_line import fmm_study

from analysis.inputs import Inputs
from analysis.tables.build import build_table, build_tables, table_names
from analysis.trials.columns import of_estimate
from search_spaces import load_spec
from study.commands.claimed import checked_plan
from study.errors import UserError
from study.printing.outcomes import measured_quantities, of_plugins, outcomes
from study.registry import STATISTICS
from study.smoothness import Quantity, estimate_names, parse_settings, quantities

NUMBERS = ("int64", "double")
DESCRIPTION, UNIT = b"description", b"unit"


@pytest.fixture(scope="module")
def inputs():
    return Inputs(
        spec=synthetic_spec(), contents=planted().contents, chance={"digits": 0.1}, quantities_of=measured_quantities
    )


@pytest.mark.parametrize("name", table_names())
def test_every_column_of_every_table_is_described(name, inputs):
    for field in build_table(inputs, name).schema:
        told = field.metadata or {}
        assert told.get(DESCRIPTION), f"{name}.{field.name} has no meaning: say it where the column is declared"
        assert str(field.type) not in NUMBERS or told.get(UNIT), f"{name}.{field.name} is a number without a unit"


def test_the_dictionary_holds_every_column_as_parquet_tells_it(inputs, tmp_path):
    build_tables(inputs, tmp_path, formats=["parquet", "csv"])
    with (tmp_path / "dictionary.csv").open(newline="") as file:
        rows = {(row["table"], row["column"]): row for row in csv.DictReader(file)}
    files = {path.stem: pyarrow.parquet.read_schema(path) for path in tmp_path.glob("*.parquet")}
    assert set(files) == set(table_names())
    assert set(rows) == {(name, column) for name, schema in files.items() for column in schema.names}
    for (name, column), row in rows.items():
        told = files[name].field(column).metadata
        assert row["meaning"] == told[DESCRIPTION].decode()
        assert (row["unit"], row["statistic"]) == tuple(told.get(key, b"").decode() for key in (UNIT, b"statistic"))


def test_an_estimate_its_error_and_its_convergence_tell_the_statistic(inputs):
    schema = build_table(inputs, "trials").schema
    name = "jacobian_unit_logits_mean_log"
    told = {suffix: schema.field(f"{name}{suffix}").metadata for suffix in ("", "_stderr", "_converged")}
    assert {found[b"statistic"] for found in told.values()} == {b"input_jacobian"}
    assert told[""][UNIT] == told["_stderr"][UNIT] == b"natural logarithm"
    assert told["_stderr"][DESCRIPTION] == f"standard error of {name}".encode()
    assert b"logits centred and of unit length" in told[""][DESCRIPTION]


@pytest.mark.parametrize("name", STATISTICS.names())
def test_what_a_statistic_estimates_is_described_once(name):
    found = quantities(name, parse_settings(name, {}))
    assert len({quantity.name for quantity in found}) == len(found)
    # no meaning leans on another one, which a table may not have
    assert len({quantity.meaning for quantity in found}) == len(found)
    for quantity in found:
        assert quantity.meaning and quantity.unit and quantity.statistic == name, quantity
        assert quantity.better in ("higher", "lower", "none")
        assert not quantity.meaning.startswith(("the same", "its ")), quantity
    assert estimate_names(name, parse_settings(name, {})) == [q.name for q in found if "{" not in q.name]


LISTS = [
    (name, field.name, field.default)
    for name in STATISTICS.names()
    for field in dataclasses.fields(STATISTICS[name].traits["settings"])
    if field.type in (tuple[float, ...], tuple[int, ...])
]


@pytest.mark.parametrize(("name", "setting", "values"), LISTS)
def test_two_estimates_of_one_name_are_refused(name, setting, values):
    with pytest.raises(UserError, match=f"{setting!r} holds a value twice"):
        parse_settings(name, {setting: [*values, values[0]]})


def test_an_estimate_of_a_layer_is_told_by_its_number():
    known = quantities("attention_importance", parse_settings("attention_importance", {}))
    found = of_estimate("attention_importance_layer12_kendall_null_taylor", "attention_importance", known)
    assert (found.name, found.unit) == ("attention_importance_layer12_kendall_null_taylor", "correlation")
    assert found.meaning.startswith("Kendall's tau-b over units of gate and importance, units shuffled")
    assert found.meaning.endswith("attention layer 12 from the input")


def test_a_statistic_that_is_not_here_is_named_all_the_same():
    found = of_estimate("darkness_log", "darkness", ())
    assert found == Quantity(
        name="darkness_log",
        meaning="an estimate of the statistic darkness",
        unit="natural logarithm",
        statistic="darkness",
    )


NOTED = {"confidence": [{"name": "confidence", "meaning": "how sure", "unit": "probability", "better": "none"}]}


@pytest.fixture
def confident():
    """A study with a statistic of a plug-in, which is not imported here."""
    return load_spec("digits", ["measure.statistics={confidence: {}, path: {}}", "claims={}", "level_claims={}"])


def test_a_plug_ins_statistic_is_told_by_what_its_study_noted(confident):
    sessions = [{"outcomes": NOTED}, {"packages": {}}]
    assert measured_quantities(confident, sessions)["confidence"] == [Quantity(**NOTED["confidence"][0])]
    assert outcomes(confident, sessions)["confidence"].meaning == "how sure"
    assert measured_quantities(confident)["confidence"] == []
    with pytest.raises(UserError, match="unknown statistic 'confidence'"):
        outcomes(confident)


def test_a_study_notes_the_estimates_of_plug_ins_alone(confident):
    def confidence(settings, context):
        return {}

    described = Quantity(**NOTED["confidence"][0])
    STATISTICS.register(
        "confidence",
        formula="max p",
        source="",
        settings=type(parse_settings("path", {})),
        outcomes=lambda _: [described],
    )(confidence)
    assert of_plugins(confident) == {"confidence": [{**NOTED["confidence"][0], "statistic": "confidence"}]}


def test_claims_may_name_what_is_listed_and_nothing_else():
    spec = load_spec("digits", [])
    listed = outcomes(spec)
    assert {"test/accuracy", "val/accuracy_highest", "noise_64_accuracy", "path_same_loss_bump"} <= set(listed)
    assert "hessian_trace" not in listed and "hessian_trace" in outcomes()
    checked_plan(naming(listed))
    with pytest.raises(UserError, match="is given by the statistic 'hessian', which is not measured"):
        checked_plan(naming(["hessian_trace"]))
    with pytest.raises(UserError, match=r"did you mean 'noise_64_accuracy'\?"):
        checked_plan(naming(["noise_65_accuracy"]))


def naming(names):
    """The demonstration, with a published result in each of these outcomes."""
    results = [f"{{levels: {{merge: mul}}, outcome: {name}, value: 0.9, source: x}}" for name in names]
    return load_spec("digits", [f"published=[{', '.join(results)}]"])


def test_the_command_lists_the_outcomes_of_all_or_of_one_study():
    every, of_digits = (
        json.loads(fmm_study("levels", "outcome", *given, "--json").stdout) for given in ((), ("digits",))
    )
    assert {row["name"] for row in of_digits} == set(outcomes(load_spec("digits", [])))
    assert {row["name"] for row in every} == set(outcomes())
    (row,) = [row for row in of_digits if row["name"] == "noise_64_accuracy"]
    assert row == {
        "kind": "outcome",
        "name": "noise_64_accuracy",
        "meaning": "accuracy under Gaussian noise of deviation 64/255 a pixel",
        "unit": "fraction of images",
        "better": "higher",
        "statistic": "noise_accuracy",
    }
    shown = fmm_study("levels", "outcome", "digits").stdout
    assert "noise_64_accuracy" in shown and "hessian_trace" not in shown


def test_a_study_is_found_by_its_name_under_a_storage_and_by_its_folder():
    storage = Path(__file__).parents[2] / "published"
    by_name = fmm_study("levels", "outcome", "digits_24", "--storage", str(storage), "--json").stdout
    assert json.loads(by_name) == json.loads(
        fmm_study("levels", "outcome", str(storage / "digits_24"), "--json").stdout
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("outcom",), "unknown kind 'outcom' (did you mean 'outcome'?)"),
        (("merge", "digits"), "only outcomes are listed for a study: fmm-study levels outcome digits"),
        (("outcome", "digitz"), "unknown preset 'digitz' (did you mean 'digits'?)"),
    ],
)
def test_what_cannot_be_listed_is_refused_in_a_line(given, told):
    done = fmm_study("levels", *given)
    assert done.returncode == 2 and told in done.stderr and done.stderr.count("\n") == 1

"""Every registered table: its LaTeX is well formed, its numbers have units, its means say how many and how spread."""

import re

import pyarrow as pa
import pytest
from book import planted, synthetic_spec

from analysis.inputs import Inputs
from analysis.tables.build import build_table, table_columns
from analysis.words.export import render
from study.registry import TABLES, discover

discover("analysis.tables")
HOSTILE = r"50% of $x_1$ & #2 ~ ^{a} \textbf{b} <c> | é ±"


def inputs():
    claims = synthetic_spec().model_dump()["claims"]
    for claim in claims.values():
        claim["text"] = HOSTILE
    return Inputs(
        spec=synthetic_spec(title=HOSTILE, claims=claims), contents=planted().contents, chance={"digits": 0.1}
    )


@pytest.mark.parametrize("name", TABLES.names())
def test_latex_is_well_formed(name):
    held = inputs()
    text = render(build_table(held, name), "tex", table_columns(name)).decode()
    body, _, after = text.partition("\\end{tabular}")
    begin = re.fullmatch(r"\\begin\{tabular\}\{([lr]+)\}", body.splitlines()[0])
    assert begin and text.count("\\begin{") == text.count("\\end{") == 1
    assert [body.count(rule) for rule in ("\\toprule", "\\midrule", "\\bottomrule")] == [1, 1, 1]
    rows = [line for line in body.splitlines() if line.endswith("\\\\")]
    assert rows
    for row in [*rows, after]:
        assert len(re.findall(r"(?<!\\)&", row)) == (0 if row is after else len(begin[1]) - 1)
        assert not re.search(r"(?<!\\)[%#$_]", row), row
        assert not re.search("[\x00-\x08]", row)
        assert row.count("{") - row.count("\\{") == row.count("}") - row.count("\\}")


def is_number(field):
    return pa.types.is_integer(field.type) or pa.types.is_floating(field.type)


def test_every_number_of_every_table_has_a_unit():
    held = inputs()
    lacking = {
        name: [field.name for field in build_table(held, name).schema if is_number(field) and not field.metadata]
        for name in TABLES.names()
    }
    assert {name: columns for name, columns in lacking.items() if columns} == {}


def means(name):
    return any(column.kind in ("level", "effect") or column.spread for column in table_columns(name))


# verdicts hold their comparisons' numbers; a joint search's networks stand alone
SINGLE = {"claims", "budget_verdicts", "pareto"}
COUNTS = {"n", "Pairs", "Replicates", "Networks", "Blocks", "Completed"}
STATES = {"Failures", "Failed", "Diverged", "Collapsed", "Arm collapsed", "Left out", "Missing"}


@pytest.mark.parametrize("name", sorted(filter(means, set(TABLES.names()) - SINGLE)))
def test_every_table_of_means_says_how_many_how_spread_and_what_failed(name):
    columns = table_columns(name)
    headings = {column.heading for column in columns}
    assert headings & COUNTS
    assert "Spread" in headings or any(column.spread for column in columns)
    assert headings & STATES or name == "pooled"  # of its datasets, each with its own row in effects

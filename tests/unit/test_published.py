"""Published results stand beside ours at the same levels; a study that names none is not bothered with them."""

import pytest
from book import Book, synthetic_spec

from analysis.inputs import Inputs
from analysis.report.page import render_report
from analysis.tables.build import build_table
from search_spaces import SpecError
from search_spaces.load import parse_spec

KNOWN = {"outcome": "test/accuracy", "value": 0.8762, "source": "https://arxiv.org/abs/2106.15067", "note": "one run"}


def inputs(**changes) -> Inputs:
    book = Book()
    for block, accuracy in enumerate((0.86, 0.88, 0.90)):
        book.confirm("add", 14, block, accuracy)
        book.confirm("add", 8, block, 0.5)
        book.confirm("mul", 14, block, 0.4 + block / 10, state="collapsed")
    book.confirm("mul", 14, 3, None, state="diverged")
    book.replicate("add", 14, 0, phase="search", metrics={"test/accuracy": 0.0})
    return Inputs(spec=synthetic_spec(**changes), contents=book.contents)


def test_mean_spread_and_range_of_the_cells_at_the_published_levels():
    known = [KNOWN | {"levels": {"merge": "add", "depth": 14}}, KNOWN | {"levels": {"merge": "mul"}, "value": 0.7713}]
    add, mul = build_table(inputs(published=known), "published").to_pylist()
    assert (add["cell"], add["n"], add["published"], add["note"]) == ("merge=add,depth=14", 3, 0.8762, "one run")
    assert add["found"] == pytest.approx(0.88) and add["found_sd"] == pytest.approx(0.02)
    assert (add["found_least"], add["found_most"]) == (0.86, 0.90)
    # collapsed networks have an accuracy, the diverged one has none
    assert (mul["n"], mul["found"]) == (3, pytest.approx(0.5))


def test_levels_without_a_result_yet_still_stand_there():
    row = build_table(inputs(published=[KNOWN | {"levels": {"merge": "add_alias"}}]), "published").to_pylist()[0]
    assert (row["cell"], row["n"], row["found"], row["published"]) == ("", 0, None, 0.8762)


def test_the_report_has_the_section_only_where_something_is_published():
    with_them = render_report(inputs(published=[KNOWN | {"levels": {"merge": "add", "depth": 14}}]), {}, {})
    assert "Published results" in with_them and "0.8762" in with_them
    assert "Published results" not in render_report(inputs(), {}, {})


def test_a_published_level_must_be_one_of_the_study():
    text = """
name: x
factors: {merge: [add, mul]}
fixed: {dataset: fake, depth: 8}
blocks: 2
budget: {search_trials: 0, startup_trials: 0}
published: [{levels: {mrege: mul}, outcome: test/accuracy, value: 0.5, source: nowhere}]
"""
    with pytest.raises(SpecError, match=r"published names 'mrege', which is no factor of this study \(merge\)"):
        parse_spec(text, "test")

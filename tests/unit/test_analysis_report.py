"""The report: one file that loads nothing, parses, says every claim, escapes what it is given, and works half done."""

import base64
import hashlib
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from book import PROVENANCE, Book, collapsed, full, inputs_of, planted, synthetic_spec

from analysis.report.found import MOST, found
from analysis.report.headline import answer, facts, spent
from analysis.report.page import _arranged, build_report, render_report
from analysis.report.strips import WIDTH, strips
from analysis.tables.build import build_table
from analysis.words.columns import count, integer, number, p_value, text
from analysis.words.export import ReadableCell
from analysis.words.wording import effect_text

VOID = {"meta", "img", "br", "link", "hr", "input"}
HOSTILE = '</title><script>alert("x")</script> & <b>5</b>'
PICTURES = {"effects": b"<svg xmlns='http://www.w3.org/2000/svg'/>"}


class Reader(HTMLParser):
    """Checks that tags nest, and collects text, tags and what would be loaded."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.loaded, self.text, self.ids = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        named = dict(attrs)
        self.loaded += [value for name, value in attrs if name in ("src", "srcset", "poster", "data", "background")]
        if tag == "link":
            self.loaded.append(named.get("href"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes {self.open[-1:]}"

    def handle_data(self, data):
        self.text.append(data)


def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader, " ".join(" ".join(reader.text).split())


def test_one_file_that_loads_nothing(tmp_path):
    path = build_report(inputs_of(full()), tmp_path, PROVENANCE)
    assert path == tmp_path / "report.html"
    html = path.read_text()
    reader, text = read(html)
    assert html.startswith("<!DOCTYPE html>")
    assert not {"link", "iframe", "object"} & set(reader.tags)
    # its own script and no other: a browser runs nothing whose digest is not named, and loads nothing
    assert reader.tags.count("script") == 1 and "<script src" not in html
    script = html.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in html
    assert reader.loaded and all(value.startswith("data:image/svg+xml;base64,") for value in reader.loaded)
    assert not re.search(r"url\(|@import", html)
    pictures = [base64.b64decode(value.partition(",")[2]) for value in reader.loaded]
    drawn = ("effects", "interactions", "smoothness", "outcomes", "curves", "hyperparameters")
    assert pictures == [(tmp_path / "figures" / f"{name}.svg").read_bytes() for name in drawn]
    for wanted in ("Main effects", "Cells", "Provenance", "How to reproduce", "fmm-study run synthetic.yaml", "2.15"):
        assert wanted in text


@pytest.mark.parametrize("make", [planted, full, collapsed, Book])
def test_every_claim_is_said_with_reason_and_change(make):
    inputs = inputs_of(make(), demonstration=True)
    _, text = read(render_report(inputs, PICTURES, PROVENANCE))
    rows = build_table(inputs, "claims").to_pylist()
    assert len(rows) == 2
    for row in rows:
        for wanted in (
            row["sentence"],
            row["estimand"],
            row["reason"],
            row["change"],
            f"{row['claim']}: {row['text']}",
        ):
            assert " ".join(wanted.split()) in text
        assert row["qualifier"] == "demonstration"
    for fact in facts(inputs):
        assert " ".join(fact.text.split()) in text


def test_chapters_contents_and_long_tables():
    html = render_report(inputs_of(full()), PICTURES, PROVENANCE)
    reader, _ = read(html)
    links = re.findall(r'href="#([^"]+)"', html)
    ids = re.findall(r' id="([^"]+)"', html)
    assert set(links) == set(ids) - {"main"} and len(ids) == len(set(ids))
    order = [html.index(f'id="{name}"') for name in ("table-claim_parts", "figure-effects", "table-cells", "reproduce")]
    assert order == sorted(order)
    assert reader.tags.count("details") == html.count("<details id=") + html.count('<details class="numbers"')
    assert '<details id="table-accuracy" open>' in html and "<b>94.85 ± 2.69%</b>" in html


def test_how_the_claims_ended_is_one_sentence():
    # of C4 the effect is below zero at depth 14, which bars support
    inputs = inputs_of(planted())
    assert answer(inputs.findings) == "Of 2 claims 1 is supported (C3) and 1 is undecided (C4)."
    c3, c4 = inputs.findings
    ended = [
        replace(c3, verdict="no verdict"),
        replace(c4, verdict="refuted"),
        replace(c4, name="C5", verdict="refuted"),
    ]
    assert answer(ended) == "Of 3 claims 2 are refuted (C4, C5) and 1 has no verdict (C3)."
    assert answer([c3]) == "The one claim is supported (C3)."
    assert answer([c3, replace(c3, dataset="mnist")]) == (
        "All 2 claims and datasets are supported (C3 on digits, C3 on mnist)."
    )
    assert answer([]) == ""


def test_what_was_found_comes_first_in_plain_sentences():
    """A decided claim, then what no claim foresaw, marked, then what is open; at most three."""
    decided = found(inputs_of(planted()))
    assert [item.mark for item in decided] == ["C3 supported", "exploratory", "C4 undecided"]
    assert decided[0].text.startswith("“smoother” holds: the sensitivity near samples (input Jacobian) is ")
    told = found(inputs_of(full()))
    assert [item.mark for item in told] == ["exploratory", "C3 undecided", "C4 undecided"]
    assert told[0].text == "mul fails in 2 of 16 trainings; all other arms together in 0 of 32."
    assert len(told) <= MOST and not any("level" in item.text for item in [*decided, *told])
    html = render_report(inputs_of(full()), PICTURES, PROVENANCE)
    assert html.index("What was found") < html.index(told[0].text) < html.index('<ol class="claims">')


def test_an_effect_that_nobody_claimed_is_found_and_marked():
    """Of all comparisons without a claim, the one with the smallest p, if it holds by Holm over them."""
    inputs = inputs_of(planted(), claims={}, contrasts=[{"arm": {"merge": "mul"}, "reference": {"merge": "add"}}])
    (told,) = found(inputs)
    row = next(
        row for row in inputs.level_effects.to_pylist() + inputs.effects.to_pylist() if row["role"] == "exploratory"
    )
    assert told.mark == "exploratory" and "comparisons)" in told.text and row["arm"]
    assert found(inputs_of(Book(), claims={})) == []


def test_comparisons_stand_beside_their_claim_as_a_forest_plot():
    inputs = inputs_of(planted())
    c3, c4 = inputs.judgements
    (strip,) = strips(c4)
    part = c4.parts[0]
    middle, margin = WIDTH / 2, strip.margin
    # places are linear in margins: none in the middle, the claim's margin to the right of it
    assert margin > middle and strip.effect == pytest.approx(
        middle + (margin - middle) * part.effect / part.margin, abs=0.2
    )
    assert strip.numbers == effect_text(part.outcome, "difference", part.effect, part.low, part.high)
    # what lies beyond the drawing says so, and stays within it
    (far,) = strips(c3)
    assert far.after and not far.before and far.high <= WIDTH
    html = render_report(inputs, PICTURES, PROVENANCE)
    assert html.count('class="margin" d=') == 2 and strip.numbers in html


@pytest.mark.parametrize("rows", [1, 3])
def test_a_wide_table_shows_a_name_its_estimate_and_p_first(rows):
    columns = [
        text("claim", "Claim"), integer("depth", "layers", "Depth"), text("always", "Always"), text("never", "Never"),
        count("n_pairs", "Pairs"), *(number(f"x{i}", "s", f"X{i}") for i in range(6)), p_value("p_symmetry", "p (symmetry)"),
        p_value("p_sign_flip", "p"), number("effect", "s", "Effect", "effect"),
    ]  # fmt: skip
    cells = {"Claim": "C{}", "Depth": "{}", "Always": "same", "Never": "", "Effect": "0.{}"}
    table = [[ReadableCell(cells.get(c.heading, "1.{}").format(i)) for c in columns] for i in range(rows)]
    kept, same = _arranged(columns, table)
    shown = [columns[i].heading for i in kept]
    first = ["Claim", "Depth"] if rows > 1 else ["Claim", "Depth", "Always"]
    assert shown[: len(first) + 2] == [*first, "Effect", "p"]
    assert "Never" not in shown and same == ({"Always": "same"} if rows > 1 else {})


def test_columns_beyond_the_eighth_wait_for_a_toggle_that_needs_no_script():
    html = render_report(inputs_of(full()), PICTURES, PROVENANCE)
    table = html.partition('<details id="table-claim_parts"')[2].partition("</details>")[0]
    headings = re.findall(r'<th scope="col" class="([^"]*)"', table)
    assert [" more" in name for name in headings] == [i >= 8 for i in range(len(headings))] and len(headings) > 8
    assert f'<label class="all"><input type="checkbox"> all {len(headings)} columns</label>' in table
    assert ".all:has(:checked) + .scroll .more { display: table-cell; }" in html


def test_what_is_given_is_escaped():
    claims = synthetic_spec().model_dump()["claims"]
    claims["C4"]["text"] = HOSTILE
    inputs = inputs_of(planted(), title=HOSTILE, claims=claims)
    html = render_report(inputs, PICTURES, PROVENANCE | {"host": HOSTILE, "notes": {HOSTILE: HOSTILE}})
    reader, text = read(html)
    assert reader.tags.count("script") == html.count("<script") == 1
    assert text.count("alert(") >= 5
    assert "name: synthetic # <a>" in text and "abc<1>" in text


def test_without_claims_and_before_the_first_result():
    empty = inputs_of(Book(), claims={}, control=None)
    _, text = read(render_report(empty, {}, {}))
    assert "This study states no claims" in text
    assert "Nothing confirmed yet" in text and "0 of 6" not in text
    assert "0 of 48 confirmed replicates are done" in text
    half = inputs_of(planted(blocks=5))
    _, text = read(render_report(half, {}, {}))
    assert "30 of 48 confirmed replicates are done" in text and "3 of 8 pairs have not run yet" in text


def test_the_first_screen_has_what_decides_trust():
    named = {fact.name: fact for fact in facts(inputs_of(full()))}
    assert list(named) == ["A/A control", "Assay sensitivity", "Baseline", "Failures by arm", "Boundary flags", "Cost"]
    assert named["Baseline"].text == (
        "merge add on digits: 90.4% test accuracy, n = 8; depth 8 90.4%; depth 14 90.4%."
    )  # fmt: skip
    assert (named["Failures by arm"].text, named["Failures by arm"].warns) == (
        "mul 2 of 16; none in 2 other arms (32 trainings).", True,
    )  # fmt: skip
    assert named["Boundary flags"].text == "Winners in the outer tenth of a range: lr 6 of 48."
    assert not named["Boundary flags"].warns and not named["A/A control"].warns
    assert named["Cost"].text.startswith(
        "1.4 min of worker time: search 0.0 min (0 trials), confirm 1.2 min (48 trainings)"
    )
    assert (spent(7200), spent(90)) == ("2.0 h", "1.5 min")


def test_a_failed_control_warns_on_the_first_screen():
    book = planted(skip=[("add_alias", depth, b) for depth in (8, 14) for b in range(8)])
    for block in range(8):
        for depth in (8, 14):
            book.confirm("add_alias", depth, block, 0.95 + block / 1000)
    inputs = inputs_of(book)
    control = next(fact for fact in facts(inputs) if fact.name == "A/A control")
    assert control.warns and "differs: test accuracy differs by 5.00 pp" in control.text
    html = render_report(inputs, {}, {})
    assert "A/A control differs" in read(html)[1]


def test_the_template_is_part_of_the_package():
    code = "from importlib import resources; f = resources.files('analysis.report'); "
    code += "print(all((f / name).is_file() for name in ('report.html.j2', 'report.js')))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "True"

"""Files and text: frozen renderings, whole files or none, every registered table, the summary, and what is imported."""

import csv
import io
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from book import inputs_of, planted, synthetic_spec

from analysis.inputs import Inputs
from analysis.report.summary import DEMONSTRATION, summary
from analysis.tables.build import build_table, build_tables, table_columns
from analysis.words.export import FORMATS, MAX_ROWS, Column, markdown_text, readable_rows, render, write_table
from analysis.words.wording import interval_text, number_text, p_text
from study.errors import UserError
from study.registry import TABLES
from study.results.ledger import Contents

SMALL = pa.table(
    {
        "arm": ["merge=mul_bn", "a|b & 2%", None],
        "n": [8, 20000, None],
        "mean": [-0.0123, 1.5, None],
        "low": [-0.0342, -math.inf, None],
        "high": [0.0101, math.inf, None],
        "p": [0.00051, 0.0213, 0.5],
    }
)
COLUMNS = (
    Column(heading="Arm", name="arm"),
    Column(heading="Pairs", name="n", kind="number"),
    Column(heading="Difference", name="mean", kind="interval", low="low", high="high"),
    Column(heading="p", name="p", kind="p"),
)
MARKDOWN = r"""| Arm          |   Pairs |             Difference |      p |
|:-------------|--------:|-----------------------:|-------:|
| merge=mul_bn |       8 | -0.012 [-0.034, 0.010] | <0.001 |
| a\|b & 2%    |   20000 |       1.50 [-inf, inf] |  0.021 |
|              |         |                        |   0.50 |
"""
LATEX = r"""\begin{tabular}{lrrr}
\toprule
 Arm          &   Pairs &             Difference &      p \\
\midrule
 merge=mul\_bn &       8 & -0.012 [-0.034, 0.010] & \ensuremath{<}0.001 \\
 a|b \& 2\%     &   20000 &       1.50 [-inf, inf] &  0.021 \\
              &         &                        &   0.50 \\
\bottomrule
\end{tabular}
"""
CSV = """"arm","n","mean","low","high","p"
"merge=mul_bn",8,-0.0123,-0.0342,0.0101,0.00051
"a|b & 2%",20000,1.5,-inf,inf,0.0213
,,,,,0.5
"""


@pytest.mark.parametrize(("form", "text"), [("md", MARKDOWN), ("tex", LATEX), ("csv", CSV)])
def test_frozen_text(form, text):
    assert render(SMALL, form, COLUMNS).decode() == text


def test_numbers_as_people_read_them():
    assert interval_text(0.912345, 0.85, 0.97) == "0.912 [0.850, 0.970]"
    assert interval_text(-12.3, -34.5, 10.1) == "-12 [-34, 10]"
    assert interval_text(-0.45, -0.45 - 1e-16, -0.45) == "-0.450 [-0.450, -0.450]"
    assert interval_text(-0.0001, -0.02, 0.02) == "0.000 [-0.020, 0.020]"
    assert interval_text(0.0, 0.0, 0.0) == "0.000 [0.000, 0.000]"
    assert (interval_text(None, None, None), interval_text(0.5, None, None)) == ("", "0.5")
    assert (p_text(1.0), p_text(0.0078125), p_text(None), number_text(0.123456)) == ("1.00", "0.008", "", "0.1235")


def test_parquet_keeps_values_types_and_units():
    trials = Inputs(spec=synthetic_spec(), contents=planted().contents).trials
    read = pyarrow.parquet.read_table(pa.BufferReader(render(trials, "parquet")))
    assert read.equals(trials, check_metadata=True)
    assert read.schema.field("test/accuracy").metadata == {
        b"unit": b"fraction of images",
        b"description": b"accuracy on test images at the last epoch",
    }


def test_a_long_table_says_what_it_leaves_out():
    table = pa.table({"x": list(range(MAX_ROWS + 1234))})
    lines = render(table, "md").decode().splitlines()
    assert lines[-1] == "1,234 more rows are in the parquet and csv files."
    assert lines[-3] == f"| {MAX_ROWS - 1} |"
    assert len(render(table, "csv").splitlines()) == MAX_ROWS + 1235


@pytest.mark.parametrize("form", ["md", "tex"])
def test_an_empty_table_is_well_formed(form):
    text = render(SMALL.slice(0, 0), form, COLUMNS).decode()
    assert text.splitlines()[0].count("|" if form == "md" else "r") >= 3
    assert "Difference" in text


def test_files_are_whole_or_not_there(tmp_path, monkeypatch):
    paths = write_table(SMALL, tmp_path / "new" / "tables", "small", COLUMNS)
    assert [path.name for path in paths] == [f"small.{form}" for form in FORMATS]
    before = {path: path.read_bytes() for path in paths}
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match=r"small\.parquet: No space left"):
        write_table(SMALL.slice(0, 1), tmp_path / "new" / "tables", "small", COLUMNS)
    assert {path: path.read_bytes() for path in (tmp_path / "new" / "tables").iterdir()} == before


def test_what_a_killed_writer_left_goes_with_the_next_writing(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    host = socket.gethostname()
    gone, alive, other = (
        f".small.md.{host}.{dead.pid}",
        f".small.md.{host}.{os.getppid()}",
        f".other.md.{host}.{dead.pid}",
    )
    for name in (gone, alive, other):
        (tmp_path / name).write_text("half a fi")
    write_table(SMALL, tmp_path, "small", COLUMNS, ["md"])
    # a living writer's and another table's stay
    assert {path.name for path in tmp_path.iterdir()} == {"small.md", alive, other}


def test_faults_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"unknown table format 'markdown' \("):
        render(SMALL, "markdown")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_table(SMALL, tmp_path / "file", "small")
    inputs = Inputs(spec=synthetic_spec(), contents=Contents())
    with pytest.raises(UserError, match="did you mean 'effects'"):
        build_table(inputs, "efects")


@pytest.mark.parametrize("contents", [Contents(), planted().contents], ids=["empty", "full"])
def test_every_registered_table_builds_and_writes(tmp_path, contents):
    inputs = Inputs(spec=synthetic_spec(), contents=contents, chance={"digits": 0.1})
    written = build_tables(inputs, tmp_path)
    assert {"trials", "effects", "curves"} <= set(written) == set(TABLES.names())
    for name, paths in written.items():
        assert TABLES[name].formula
        assert {column.name for column in table_columns(name)} <= set(build_table(inputs, name).column_names)
        assert pyarrow.parquet.read_table(tmp_path / f"{name}.parquet").equals(build_table(inputs, name))
        assert all(path.stat().st_size for path in paths)
    again = build_tables(inputs, tmp_path / "again")
    assert all(a.read_bytes() == b.read_bytes() for n in written for a, b in zip(written[n], again[n], strict=True))


def test_one_table_in_chosen_formats(tmp_path):
    book = planted()
    book.replicate("mul", 8, 0, phase="search", curves={"val/loss": [1.0, 0.5]})
    inputs = Inputs(spec=synthetic_spec(), contents=book.contents)
    build_tables(inputs, tmp_path, ["curves"], ["csv", "md"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.csv", "curves.md"]
    assert pyarrow.csv.read_csv(tmp_path / "curves.csv")["value"].to_pylist() == [1.0, 0.5]


SUMMARY = """\
  Where     Claim  Outcome              Pairs  Difference [95%]                p
merge: add_alias - add
  all              test accuracy            8  0.00 pp [-0.10, 0.10]        1.00
  depth 8          test accuracy            8  0.00 pp [-0.10, 0.10]        1.00
  depth 14         test accuracy            8  0.00 pp [-0.10, 0.10]        1.00
merge: mul - add
  all       C4     test accuracy            8  1.75 pp [0.67, 2.83]        0.016
  depth 8   C4     test accuracy            8  4.50 pp [2.33, 6.67]        0.008
  depth 14  C4     test accuracy            8  -1.00 pp [-1.00, -1.00]     0.008
  all       C3     near (log Jacobian)      8  -0.450 log [-0.450, -0.450]  0.008
  depth 8   C3     near (log Jacobian)      8  -0.500 log [-0.500, -0.500]  0.008
  depth 14  C3     near (log Jacobian)      8  -0.400 log [-0.400, -0.400]  0.008
"""


def test_summary_shows_accuracy_and_co_primaries_pooled_and_by_depth():
    result = summary(inputs_of(planted(), demonstration=True))
    squeezed = [" ".join(line.split()) for line in result.effects.lines()]
    assert squeezed == [" ".join(line.split()) for line in SUMMARY.splitlines()]
    assert len({len(line) for line in result.effects.lines()[2:5]}) == 1
    assert max(map(len, result.effects.lines())) <= 100
    assert sum(len(rows) for _, rows in result.effects.contrasts) == 9
    assert result.notes[:2] == [
        "A/A control merge add_alias minus merge add on digits: inside: test accuracy differs by 0.00 pp [-0.10, 0.10] over 8 "
        "pairs (margin 2 pp).",
        "A/A control merge add_alias minus merge add on digits: inside: near (log Jacobian) differs by 0.000 log [0.000, "
        "0.000] over 8 pairs (margin 0.1 log).",
    ]
    assert DEMONSTRATION in result.notes
    # of add_alias .92, of mul (.006 and .001 by block, the difference .005) 1 - 25 / 37
    gain = "Pairing gain in test accuracy, 1 - Var(difference) / (Var arm + Var reference): median 62%."
    assert gain in result.notes


def test_summary_counts_failures_in_the_heading_and_says_each_note_once():
    book = planted(skip=[("mul", 14, 0)])
    book.confirm("mul", 14, 0, 0.3, state="collapsed")
    result = summary(inputs_of(book))
    assert "merge: mul - add (merge mul fails in 1 of 16 trainings, merge add in 0 of 16)" in result.effects.lines()
    notes = [note for note in result.notes if "collapsed" in note]
    assert notes == [
        "merge: mul - add (test accuracy): 1 of 16 arm runs collapsed.",
        "merge: mul - add (near (log Jacobian)): no mean-difference verdict: 1 of 8 pairs ineligible, more than 10%; 1 of 16 "
        "arm runs collapsed.",
    ]


def test_readable_rows_are_single_lines():
    table = pa.table({"reason": ["two\nlines\twith  gaps"]})
    assert readable_rows(table, [Column(heading="Reason", name="reason")]) == [[("two lines with gaps", False)]]


def test_analysis_needs_no_training_stack():
    code = "import sys, analysis.tables.build, analysis.report.summary, analysis.stats.power; "
    code += "analysis.tables.build.discover('analysis.tables'); "
    code += "print(sorted({'torch', 'ray', 'optuna', 'mlflow', 'matplotlib'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("=1+1", "'=1+1"), ("@x", "'@x"), ("-x", "'-x"), ("+x", "'+x"), ("\t=1", "'\t=1"), ("\r=1", "'\r=1"), ("- a", "'- a"),
        ("-0.5", "-0.5"), ("+1e-3", "+1e-3"), ("-.5", "-.5"), ("a=1", "a=1"), ("", ""),
    ],
)  # fmt: skip
def test_no_text_is_a_formula_in_a_spreadsheet_and_numbers_stay_numbers(text, written):
    table = pa.table({"name": [text], "code": pa.array([text]).dictionary_encode(), "value": [-1.5]})
    rows = list(csv.reader(io.StringIO(render(table, "csv").decode(), newline="")))
    assert rows == [["name", "code", "value"], [written, written, "-1.5"]]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("<img src=x>", "&lt;img src=x>"), ("</td>", "&lt;/td>"), ("<0.001", "<0.001"), ("&lt;", "&amp;lt;"),
        ("[a](javascript:x)", r"[a\](javascript:x)"), ("[0.1, 0.2]", "[0.1, 0.2]"), ("`a`", r"\`a\`"), ("*a*", r"\*a\*"),
        ("_a_ sig_bn", r"\_a\_ sig_bn"), ("a|b", r"a\|b"), ("a\\", "a\\\\"),
    ],
)  # fmt: skip
def test_markdown_shows_a_text_as_it_is(text, written):
    line = render(pa.table({"name": [text]}), "md").decode().splitlines()[2]
    assert line.strip("| ") == written.strip("| ") and markdown_text(text) == written


def test_no_latex_row_begins_with_an_argument():
    """``\\\\`` and ``\\midrule`` would take the bracket of the next row for theirs."""
    lines = render(pa.table({"a": ["[x] $1_{2}$", "*", "y"], "n": [1, 2, 3]}), "tex").decode().splitlines()
    assert [line.split("&")[0].strip() for line in lines[4:7]] == [r"{}[x] \$1\_\{2\}\$", "{}*", "y"]

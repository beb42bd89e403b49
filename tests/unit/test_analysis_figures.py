"""Every registered figure: its data are the numbers of the tables, it draws whatever there is, and its files are whole."""

import io
import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib as mpl
import matplotlib.image
import pyarrow.csv
import pytest
from book import JACOBIAN, Book, collapsed, full, inputs_of, planted, synthetic_spec

from analysis.figures.build import FORMATS, build_figures, draw, figure_data, figure_names
from analysis.figures.missing import missing
from analysis.figures.style import COLOURS, series_styles
from analysis.figures.subjects import arm_styles, line_styles
from analysis.tables.build import build_table
from analysis.trials.arms import arm_name, context_name
from study.errors import UserError
from study.registry import FIGURES, TABLES


def single():
    book = Book()
    book.confirm("add", 8, 0, 1.0, estimates={JACOBIAN: 1.0}, curves={"val/accuracy": [0.5]})
    return book


BOOKS = {"full": full, "empty": Book, "collapsed": collapsed, "single cell": single}


@pytest.mark.parametrize("name", figure_names())
@pytest.mark.parametrize("make", BOOKS.values(), ids=BOOKS)
def test_every_figure_draws_whatever_there_is(make, name):
    files = draw(inputs_of(make()), name)
    assert b"$" not in files["svg"], "the source of a formula is shown"
    assert ET.fromstring(files["svg"]).tag == "{http://www.w3.org/2000/svg}svg"
    picture = matplotlib.image.imread(io.BytesIO(files["png"]))
    assert picture.shape[0] > 100 and picture.shape[1] > 500
    assert picture[..., :3].std() > 0.01  # something is drawn


def test_every_figure_is_described_and_their_order_is_fixed():
    assert figure_names() == [
        *("effects", "interactions", "smoothness", "matched", "dose", "importance"),
        *("slice_lines", "slice_squares", "paths", "planes"),
        *("outcomes", "curves", "hyperparameters", "best_of_n", "sensitivity"),
    ]
    for entry in FIGURES:
        assert entry.formula and entry.traits["title"] and callable(entry.traits["data"])
    with pytest.raises(UserError, match="did you mean 'effects'"):
        figure_data(inputs_of(Book()), "efects")
    with pytest.raises(UserError, match="unknown figure format"):
        draw(inputs_of(Book()), "effects", ["pdf"])


def test_files_and_data_stand_beside_each_other_and_repeat(tmp_path):
    written = build_figures(inputs_of(full()), tmp_path / "a", ["effects"])
    assert [path.name for path in written["effects"]] == ["effects.svg", "effects.png", "effects.csv"]
    again = build_figures(inputs_of(full()), tmp_path / "b", ["effects"])
    for first, second in zip(written["effects"], again["effects"], strict=True):
        assert first.read_bytes() == second.read_bytes()
    data = figure_data(inputs_of(full()), "effects")
    assert pyarrow.csv.read_csv(tmp_path / "a" / "effects.csv").num_rows == data.num_rows


def test_a_new_figure_is_one_decorated_function(tmp_path):
    from analysis.figures.style import message

    inputs = inputs_of(full())
    FIGURES.register("probe", formula="a test", source="", title="Probe", data=lambda inputs: inputs.trials)(
        lambda data, spec: message(f"{data.num_rows} rows of {spec.name}")
    )
    assert "probe" in build_figures(inputs, tmp_path)
    assert (tmp_path / "probe.svg").exists() and (tmp_path / "probe.csv").exists()
    assert "probe" not in TABLES


def test_every_replicate_is_a_dot_and_means_are_those_of_the_effects():
    inputs = inputs_of(full())
    data = figure_data(inputs, "effects").to_pylist()
    mine = [
        r
        for r in data
        if (r["contrast"], r["outcome"], r["stratum"]) == ("merge: mul - add", "test/accuracy", "depth 8")
    ]
    assert [r["kind"] for r in mine] == ["mean"] + ["replicate"] * 8
    assert [r["value"] for r in mine[1:]] == pytest.approx([0.01 * (block + 1) for block in range(8)])
    assert [r["block"] for r in mine[1:]] == list(range(8))
    assert mine[0]["n_pairs"] == 8
    assert mine[0]["value"] == pytest.approx(sum(r["value"] for r in mine[1:]) / 8)
    pooled = [r for r in data if r["kind"] == "mean" and r["stratum"] == "all" and r["contrast"] == "merge: mul - add"]
    assert {r["outcome"]: r["margin"] for r in pooled} == {"test/accuracy": 0.02, JACOBIAN: -0.1}
    assert pooled[0]["failures"] == "2 of 16 failed against 0 of 16"
    for row in data:
        if row["kind"] == "mean":
            dots = [r for r in data if r["kind"] == "replicate" and _same(r, row)]
            assert len(dots) == row["n_pairs"]


def _same(a, b):
    return all(a[name] == b[name] for name in ("contrast", "outcome", "stratum", "dataset"))


def test_smoothness_points_are_the_trials():
    inputs = inputs_of(full())
    data = figure_data(inputs, "smoothness").to_pylist()
    trials = [
        row for row in inputs.trials.to_pylist() if row[JACOBIAN] is not None and row["test/accuracy"] is not None
    ]
    assert [(r["value"], r["test_accuracy"], r["state"], r["block"]) for r in data] == [
        (row[JACOBIAN], row["test/accuracy"], row["state"], row["search_block"]) for row in trials
    ]
    assert {r["statistic"] for r in data} == {JACOBIAN}
    assert sum(r["state"] == "collapsed" for r in data) == 1


@pytest.mark.parametrize("name", ["smoothness", "matched"])
def test_an_axis_in_percent_shows_percent(name):
    """Accuracy under noise is a fraction in tables, and its axis says percent."""
    noise, book = "noise_64_accuracy", Book()
    for block in range(4):
        for share in ("confirm", "short"):
            made = {"phase": share, "config": {"epochs": 6 if share == "confirm" else 3}}
            made |= {"epochs": made["config"]["epochs"], "state": "completed"}
            metrics = {"test/accuracy": 0.9 + block / 100, "val/accuracy": 0.9, "train/loss": 1.0}
            book.measure(
                book.replicate("add", 8, block, metrics=metrics, **made), "noise_accuracy", {noise: 0.8 + block / 100}
            )
    claim = {"text": "x", "arm": {"merge": "mul"}, "references": [{"merge": "add"}]}
    claims = {"C6": claim | {"outcomes": [{"name": noise, "margin": 0.01}]}}
    budget = {"search_trials": 2, "startup_trials": 1, "shortened": [0.5]}
    inputs = inputs_of(book, claims=claims, budget=budget)
    figure = FIGURES[name].build(figure_data(inputs, name), inputs.spec)
    axis = figure.axes[0]
    label, values = {
        "smoothness": (axis.get_xlabel(), axis.lines[0].get_xdata()),
        "matched": (axis.get_ylabel(), axis.lines[0].get_ydata()),
    }[name]
    assert label.replace("\n", " ") == "noise 64 accuracy (%)"
    assert min(values) >= 80 and max(values) <= 83


def test_curves_and_hyperparameters_are_the_records():
    inputs = inputs_of(full())
    curves = figure_data(inputs, "curves").to_pylist()
    assert len(curves) == 48 * 3
    last = [r["val_accuracy"] for r in curves if (r["arm"], r["context"], r["epoch"]) == ("add", "depth 8", 3)]
    assert last == pytest.approx([0.9 + block / 100 for block in range(8)])
    chosen = figure_data(inputs, "hyperparameters").to_pylist()
    assert len(chosen) == 48 * 2
    rates = [r for r in chosen if r["hyperparameter"] == "lr"]
    assert {r["value"] for r in rates} == {0.1} and {r["choice"] for r in rates} == {None}
    assert sum(r["at_boundary"] for r in rates) == 6
    assert {r["choice"] for r in chosen if r["hyperparameter"] == "optimiser"} == {"sgd"}


def test_choices_of_numbers_are_shown_as_they_are_written_and_ranges_of_cells_in_one_axis():
    """A column of 0 and 0.5 holds 0.0; an axis that cells of other ranges share spans them all, with nothing shaded."""
    nuisance = {"lr": {"low": 0.01, "high": 1.0, "log": True, "default": 0.1}, "width": {"choices": [8, 0.5]}}
    other = {"lr": {"low": 0.0001, "high": 0.01, "log": True, "default": 0.001}}
    inputs = inputs_of(full(), nuisance=nuisance, ranges=[{"where": {"merge": "mul"}, "nuisance": other}])
    data = figure_data(inputs, "hyperparameters")
    assert {row["choice"] for row in data.to_pylist() if row["hyperparameter"] == "width"} == {"8"}
    rates, _ = FIGURES["hyperparameters"].build(data, inputs.spec).axes
    low, high = rates.get_xlim()
    assert rates.get_xscale() == "log" and low < 1e-4 and high > 1 and not rates.patches
    plain = inputs_of(full(), nuisance=nuisance)
    alone, _ = FIGURES["hyperparameters"].build(figure_data(plain, "hyperparameters"), plain.spec).axes
    assert len(alone.patches) == 2


def test_arms_keep_their_names_and_styles():
    factors = [
        {
            "merge": ["add"],
            "attention": ["none", "se"],
            "attention_form": ["none", "static"],
            "gain": [1.5],
            "depth": [8],
        }
    ]
    spec = synthetic_spec(factors=factors, claims={}, control=None)
    row = {"merge": "add", "attention": "se", "attention_form": "static", "gain": 1.5, "depth": 8, "dataset": "digits"}
    assert arm_name(spec, row | {"cell": "c"}) == "add/se.static/gain=1.5"
    assert arm_name(spec, row | {"attention": "none", "attention_form": "none", "cell": "c"}) == "add/gain=1.5"
    depths = synthetic_spec(factors=[{"depth": [8, 14]}], claims={}, control=None)
    assert arm_name(depths, {"depth": 8, "cell": "digits/d8"}) == "digits/d8"
    assert (context_name(row), context_name(row, dataset=True)) == ("depth 8", "digits, depth 8")
    assert context_name({"depth": None, "dataset": "digits"}) == ""
    many = series_styles(f"arm {i}" for i in range(63))
    assert len({(style.colour, style.marker) for style in many.values()}) == 63
    assert len(set(COLOURS)) == len(COLOURS) and set(FORMATS) == {"svg", "png"}


def test_lines_over_another_factor_count_failures_in_accuracy():
    inputs = inputs_of(full())
    data = figure_data(inputs, "interactions").to_pylist()
    assert {row["factor"] for row in data} == {"depth"} and {row["line"] for row in data} == {"add", "add_alias", "mul"}
    assert {row["outcome"] for row in data} == {"test/accuracy", JACOBIAN}
    mine = {(row["line"], row["level"]): row for row in data if row["outcome"] == "test/accuracy"}
    effects = {row["stratum"]: row for row in inputs.effects.to_pylist()
               if (row["arm"], row["outcome"]) == ("merge=mul", "test/accuracy")}  # fmt: skip
    row = mine["mul", "8"]
    assert row["mean"] == pytest.approx(effects["depth=8"]["mean_arm"]) and row["n"] == 8
    assert row["low"] < row["mean"] < row["high"]
    # one collapsed and one diverged network are part of a mean of accuracy, and of none of smoothness
    assert mine["mul", "14"]["n"] == 8 and mine["mul", "14"]["place"] == 1
    smooth = {(row["line"], row["level"]): row["n"] for row in data if row["outcome"] == JACOBIAN}
    assert smooth["mul", "14"] == 6
    few = figure_data(inputs_of(planted(blocks=5)), "interactions").to_pylist()
    assert {row["low"] for row in few} == {None}
    assert figure_data(inputs_of(single()), "interactions").num_rows == 0


def test_budget_and_outcome_of_every_planned_cell():
    book = full()
    data = figure_data(inputs_of(book), "outcomes").to_pylist()
    value = {(row["cell"], row["quantity"], row["part"]): row["value"] for row in data}
    cell = "merge=mul,depth=14"
    ended = [value[cell, "networks", part] for part in ("completed", "collapsed", "diverged", "failed", "not trained")]
    assert ended == [6, 1, 1, 0, 0]
    assert value[cell, "epochs", "confirm"] == 8 * 6 and value[cell, "seconds", "confirm"] == 8 * 1.5
    seconds = sum(row["value"] for row in data if row["quantity"] == "seconds" and row["part"] == "measure")
    assert seconds == pytest.approx(sum(r["measure_seconds"] for r in book.contents.measures.values()))
    waiting = {
        r["cell"]: r["value"]
        for r in figure_data(inputs_of(single()), "outcomes").to_pylist()
        if r["part"] == "not trained"
    }
    assert sorted(waiting.values()) == [7, 8, 8, 8, 8, 8]


def test_doses_and_good_regions_are_the_tables():
    doses = {"share": {"steps": [{"dose": 0, "levels": {"merge": "add"}}, {"dose": 0.5, "levels": {"merge": "add_alias"}},
                                 {"dose": 1, "levels": {"merge": "mul"}}]}}  # fmt: skip
    inputs = inputs_of(planted(), doses=doses)
    data = figure_data(inputs, "dose").to_pylist()
    table = [
        row for row in build_table(inputs, "dose_response").to_pylist() if row["outcome"] in ("test/accuracy", JACOBIAN)
    ]
    assert [row["mean"] for row in data] == [row["mean"] for row in table] and len(data) == 2 * 3 * 3
    assert draw(inputs, "dose", ["svg"])["svg"]
    book = planted()
    for block in range(8):
        for number, accuracy in enumerate((0.9, 0.9 - 0.01 * block)):
            book.replicate("add", 8, block, phase="search", number=number, metrics={"val/accuracy": accuracy})
    inputs = inputs_of(book)
    (row,) = build_table(inputs, "sensitivity").to_pylist()
    shown = {r["kind"]: (r["share"], r["low"], r["high"]) for r in figure_data(inputs, "sensitivity").to_pylist()}
    assert shown["all trials"] == (row["share"], row["share_low"], row["share_high"]) and 0.5 < row["share"] < 1
    assert draw(inputs, "sensitivity", ["svg"])["svg"]


HOSTILE = """
text.usetex: True
font.family: no such font
figure.dpi: 7
savefig.dpi: 7
savefig.bbox: tight
savefig.transparent: True
axes.prop_cycle: cycler(color=['white'])
axes.grid: True
lines.linewidth: 40
axes.formatter.limits: 0, 0
svg.fonttype: none
path.sketch: 1, 100, 2
image.cmap: gray
"""


@pytest.mark.parametrize("name", ["effects", "curves", "slice_squares"])
def test_no_users_matplotlibrc_reaches_a_figure(name, tmp_path):
    plain = draw(inputs_of(full()), name)
    (tmp_path / "matplotlibrc").write_text(HOSTILE)
    with mpl.rc_context():
        mpl.rcParams.update(mpl.rc_params_from_file(tmp_path / "matplotlibrc"))
        assert draw(inputs_of(full()), name) == plain
        assert mpl.rcParams["text.usetex"], "what the user has set stays set"


def test_a_name_with_dollars_is_drawn_as_it_is(tmp_path):
    """Read as a formula it would end the report with matplotlib's error."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from analysis.figures.style import RC

    with mpl.rc_context(RC):
        figure = Figure()
        figure.subplots().set_title(r"$\frac$")
        figure.savefig(tmp_path / "a.svg")
    assert r"$\frac$" in (tmp_path / "a.svg").read_text()


def test_an_arm_has_one_style_whoever_else_is_drawn():
    """By its place in the study; what is no arm is grey."""
    spec = synthetic_spec()
    alone, together = arm_styles(spec, ["mul"]), arm_styles(spec, ["add_alias", "mul"])
    assert alone["mul"] == together["mul"] == series_styles(["add", "add_alias", "mul"])["mul"]
    mixed = line_styles(spec, ["mul", "depth 8"])
    assert mixed["mul"] == alone["mul"] and mixed["depth 8"].colour not in COLOURS


def test_who_is_missing_from_a_figure_is_named():
    inputs = inputs_of(full())
    assert (
        missing(inputs, figure_data(inputs, "smoothness")) == "Missing: mul at depth 14 (1 of 8 networks: 1 diverged)."
    )
    assert missing(inputs, figure_data(inputs, "curves")) == missing(inputs, figure_data(inputs, "effects")) == ""
    book = planted()
    for key in [key for key in book.contents.measures if "add_alias" in key or "mul,depth=8" in key]:
        del book.contents.measures[key]
    del book.contents.replicates["merge=add,depth=8/confirm/0/1"]
    inputs = inputs_of(book)
    assert missing(inputs, figure_data(inputs, "smoothness")) == (
        "Missing: add_alias, mul at depth 8 (nothing to show)."
    )
    none = inputs_of(single())
    assert "not trained yet" in missing(none, figure_data(none, "smoothness"))
    assert missing(none, figure_data(none, "effects")) == "Without a pair: merge: add_alias - add, merge: mul - add."


def test_a_process_that_draws_ends_with_the_one_that_is_killed(tmp_path):
    script = (
        "import multiprocessing, os, sys\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from analysis.figures.build import _end_with_parent\n"
        "if __name__ == '__main__':\n"
        "    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn'), initializer=_end_with_parent)\n"
        "    print(pool.submit(os.getpid).result(), flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    (tmp_path / "draws.py").write_text(script)
    # the pipe is at its end once no process holds it: the one that draws too is gone
    done = subprocess.run(
        [sys.executable, tmp_path / "draws.py"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == -9 and int(done.stdout)

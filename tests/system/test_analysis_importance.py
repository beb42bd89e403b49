"""Attention against importance in tables and figures: means over networks, layer by layer, and nothing where nothing is."""

import matplotlib as mpl
import pytest
from book import Book, planted, synthetic_spec

from analysis.figures.build import build_figures, draw, figure_data
from analysis.figures.style import MARKERS, RC
from analysis.inputs import Inputs
from analysis.tables.build import build_table
from study.registry import FIGURES


def planted_values(layer: int) -> dict[str, float]:
    return {"spearman": 0.1 * layer, "ceiling": 0.8, "activation": 0.3, "kendall": 0.2, "top10_ceiling": 0.5}


def inputs() -> Inputs:
    book = Book()
    for block in range(3):
        state = "collapsed" if block == 2 else "completed"
        key = book.confirm("mul", 8, block, 0.9, state=state, config={"attention": "se", "attention_form": "mul"})
        values = {
            f"attention_importance_layer{layer}_{measure}_{kind}": value + 0.1 * block
            for layer in (1, 2)
            for kind in ("zero", "taylor")
            for measure, value in planted_values(layer).items()
        }
        book.measure(key, "attention_importance", values, converged=True)
    book.confirm("add", 8, 0, 0.9)
    return Inputs(spec=synthetic_spec(), contents=book.contents)


def test_a_row_is_a_cell_a_layer_and_an_importance() -> None:
    rows = build_table(inputs(), "importance").to_pylist()
    assert [(r["layer"], r["importance"]) for r in rows] == [(1, "taylor"), (1, "zero"), (2, "taylor"), (2, "zero")]
    row = rows[-1]
    # collapsed networks are left out
    assert (row["n"], row["attention"], row["attention_form"]) == (2, "se", "mul")
    assert row["spearman"] == pytest.approx(0.25) and row["spearman_sd"] == pytest.approx(0.1 / 2**0.5)
    assert row["ceiling"] == pytest.approx(0.85) and row["activation"] == pytest.approx(0.35)
    assert row["kendall"] == pytest.approx(0.25) and row["top10_ceiling"] == pytest.approx(0.55)
    assert row["top10"] is None  # not measured


def test_the_figure_holds_every_network_and_is_drawn_only_where_there_is_one(tmp_path) -> None:
    data = figure_data(inputs(), "importance").to_pylist()
    assert len(data) == 4 and {(row["attention"], row["attention_form"]) for row in data} == {("se", "mul")}
    assert draw(inputs(), "importance", ["svg"])["svg"].startswith(b"<?xml")
    assert "importance" in build_figures(inputs(), tmp_path, formats=["svg"])
    without = Inputs(spec=synthetic_spec(), contents=planted().contents)
    assert "importance" not in build_figures(without, tmp_path / "none", formats=["svg"])
    assert build_table(without, "importance").num_rows == 0


def test_many_types_in_two_depths_have_a_panel_each() -> None:
    book = Book()
    for block, attention in enumerate(("se", "eca", "cbam", "bam", "ge", "sk", "srm", "nam")):
        for depth, layers in ((8, 3), (20, 9)):
            config = {"attention": attention, "attention_form": "mul"}
            key = book.replicate("mul", depth, block, trial_key=f"{attention}{depth}", config=config)
            names = [f"attention_importance_layer{layer + 1}_spearman_zero" for layer in range(layers)]
            book.measure(key, "attention_importance", dict.fromkeys(names, 0.5))
    data = figure_data(Inputs(spec=synthetic_spec(), contents=book.contents), "importance")
    with mpl.rc_context(RC):
        figure = FIGURES["importance"].build(data, synthetic_spec())
    assert len(figure.axes) == 16 and [axis.get_title("left") for axis in figure.axes[:2]] == ["depth 8", "depth 20"]
    assert {axis.get_ylabel() for axis in figure.axes[::2]} == {row["attention"] for row in data.to_pylist()}
    # every mark is inside its panel, one a layer
    for axis, layers in zip(figure.axes[:2], (3, 9), strict=True):
        marks = [x for line in axis.lines if line.get_marker() in MARKERS for x in line.get_xdata()]
        assert len(marks) == layers and axis.get_xlim()[0] < min(marks) and max(marks) < axis.get_xlim()[1]

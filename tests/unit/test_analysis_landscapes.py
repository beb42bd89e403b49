"""Landscapes in tables and figures: agreement against planted grids, and pictures of what statistics really keep."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from book import Book, planted, synthetic_spec
from toys import conv_context, conv_net, images, run

from analysis.figures.build import draw, figure_data
from analysis.inputs import Inputs
from analysis.tables.build import build_table, table_columns
from analysis.tables.kept import kept_tables, pictured, pictured_contrasts
from analysis.words.export import render
from search_spaces import Contrast
from study.results.files import kept_path
from study.results.kept_tables import write_kept

FIGURES = ["slice_lines", "slice_squares", "paths", "planes"]
POINTS = np.arange(200)


def measure(book: Book, folder: Path, key: str, statistic: str, tables: dict) -> None:
    """A measurement of network ``key`` that kept ``tables``."""
    name = f"{key}/{statistic}"
    book.measure(key, statistic, {}, measure_key=name)
    columns = {table: pa.table({c: np.asarray(v) for c, v in given.items()}) for table, given in tables.items()}
    book.contents.measures[name]["kept"] = write_kept(folder, key, name, columns)


def regions(book: Book, folder: Path, merge, block, labels, corners=(0, 1, 2), **given) -> str:
    """A network whose grid has ``labels``."""
    key = book.confirm(merge, 8, block, 0.9, **given)
    tables = {"labels": {"plane": POINTS // 50, "label": labels}, "corners": {"label": corners}}
    measure(book, folder, key, "decision_regions", tables)
    return key


def study(folder: Path) -> Inputs:
    """``add``: 0.9, 0.8 and 0.7 of the points alike between replicates; ``mul`` differs from ``add`` in a tenth or a fifth."""
    book = Book()
    a = POINTS * 0
    b = np.where(POINTS < 20, 1, a)  # a tenth other than a
    c = np.where(POINTS >= 160, 2, a)  # a fifth other than a, at other points
    for block, labels in enumerate((a, b, c)):
        regions(book, folder, "add", block, labels)
    regions(book, folder, "mul", 0, np.where(POINTS >= 180, 3, a))
    regions(book, folder, "mul", 1, np.where(POINTS < 40, 1, a))
    regions(book, folder, "mul", 2, a, state="collapsed")
    regions(book, folder, "mul", 3, a, corners=(5, 6, 7))  # other planes cannot be compared
    book.confirm("mul", 8, 4, 0.9)
    return Inputs(spec=synthetic_spec(), contents=book.contents, folder=folder)


def rows_of(inputs: Inputs) -> dict[tuple[str, str, str], dict]:
    rows = build_table(inputs, "decision_agreement").to_pylist()
    short = lambda cell: cell.split(",")[0].removeprefix("merge=")  # noqa: E731
    found = {(short(row["cell"]), short(row["other"]), row["replicates"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def test_agreement_is_the_share_of_points_with_one_label(tmp_path) -> None:
    rows = rows_of(study(tmp_path))
    assert set(rows) == {
        ("add", "add", "different"), ("mul", "mul", "different"), ("mul", "add", "different"), ("mul", "add", "same"),
    }  # fmt: skip
    within = rows["add", "add", "different"]
    assert (within["n_networks"], within["n_pairs"], within["n_failed"], within["n_missing"]) == (3, 3, 0, 0)
    assert within["agreement"] == pytest.approx(0.8)
    assert within["agreement_sd"] == pytest.approx(0.1) and within["agreement_low"] == pytest.approx(0.7)
    mul = rows["mul", "mul", "different"]
    assert (mul["n_pairs"], mul["n_failed"], mul["n_missing"]) == (1, 1, 2)
    assert mul["agreement"] == pytest.approx(0.7) and mul["agreement_sd"] is None
    same = rows["mul", "add", "same"]  # 20 points of 200 in both replicates
    assert (same["n_pairs"], same["agreement"]) == (2, pytest.approx(0.9))
    # by plane of 50 points: all but 20 of the last, and all but 20 of the first
    planes = np.array([(1 + 0.6) / 2, 1, 1, (1 + 0.6) / 2])
    assert (same["n_planes"], same["agreement_stderr"]) == (4, pytest.approx(planes.std(ddof=1) / 2))
    different = rows["mul", "add", "different"]  # mul 0 with add 1 and 2, mul 1 with add 0 and 2
    assert (different["n_pairs"], different["agreement"]) == (4, pytest.approx((0.8 + 0.8 + 0.8 + 0.6) / 4))
    text = render(
        build_table(study(tmp_path), "decision_agreement"), "md", table_columns("decision_agreement")
    ).decode()
    assert "80.0%" in text


def test_without_kept_tables_there_is_no_row_and_no_picture(tmp_path) -> None:
    contents = planted().contents
    for folder in (None, tmp_path):
        inputs = Inputs(spec=synthetic_spec(), contents=contents, folder=folder)
        assert not list(kept_tables(inputs, "decision_regions", "labels"))
        assert build_table(inputs, "decision_agreement").num_rows == 0
        assert not any(figure_data(inputs, name).num_rows for name in FIGURES)


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Inputs:
    """Small networks under the names of a study's: depth 8 whole, at depth 14 one collapsed, one diverged."""
    folder, book = tmp_path_factory.mktemp("study"), Book()
    settings = {
        "loss_slices": {"split": "test", "num_directions": 2, "num_points": 5, "num_square": 5},
        "path_picture": {"num_pairs": 2, "num_steps": 4},
        "decision_regions": {"num_planes": 3, "num_points": 6},
    }
    for i, (merge, depth, block) in enumerate([("add", 8, 0), ("mul", 8, 0), ("mul", 14, 0), ("add", 8, 1)]):
        state = "collapsed" if depth == 14 else "completed"
        key = book.confirm(merge, depth, block, 0.9, state=state)
        net = conv_net()
        with torch.no_grad():
            net[-1].weight.mul_(i + 1)
        for name, given in settings.items():
            context = conv_context(net, images())
            run(name, context, **given)
            measure(book, folder, key, name, dict(context.kept))
    book.replicate("add", 14, 0, state="diverged")
    return Inputs(spec=synthetic_spec(), contents=book.contents, folder=folder)


def test_pictures_show_reference_then_arm_of_the_first_replicate(measured) -> None:
    shown = [(p.context, p.arm, p.note, p.row and p.row["replicate"]) for p in pictured(measured)]
    assert shown == [
        ("depth 8", "add", "", 0), ("depth 8", "mul", "", 0), ("depth 14", "add", "diverged", 0),
        ("depth 14", "mul", "collapsed", 0),
    ]  # fmt: skip


def test_what_is_pictured_is_the_claims_on_merge_or_the_first_contrast() -> None:
    spec = synthetic_spec()
    wanted = [Contrast(arm={"merge": "mul"}, reference={"merge": "add"})]
    assert pictured_contrasts(spec)[:1] == wanted
    depth = Contrast(arm={"depth": 14}, reference={"depth": 8})
    assert pictured_contrasts(spec.model_copy(update={"claims": {}, "contrasts": [depth]})) == [depth]
    assert pictured_contrasts(spec.model_copy(update={"claims": {}})) == [spec.control]
    assert pictured_contrasts(spec.model_copy(update={"claims": {}, "control": None})) == []


@pytest.mark.parametrize("name", FIGURES)
def test_figures_draw_what_statistics_keep_and_leave_a_gap_where_there_is_nothing(measured, name) -> None:
    data = figure_data(measured, name).to_pylist()
    value = {"slice_lines": "loss", "slice_squares": "loss", "paths": "p_end", "planes": "label"}[name]
    points = [row for row in data if row[value] is not None and row.get("kind") != "sample"]
    each = {"slice_lines": 10, "slice_squares": 25, "paths": 10, "planes": 72}[name]  # two planes are drawn
    assert [row["note"] for row in data if row[value] is None] == ["diverged, not measured"]
    counts = {
        (c, a): sum((r["context"], r["arm"]) == (c, a) for r in points)
        for c, a in [("depth 8", "add"), ("depth 14", "mul")]
    }
    assert set(counts.values()) == {each} and len(points) == 3 * each
    for key in {row["trial_key"] for row in points}:
        mine = [row[value] for row in points if row["trial_key"] == key]
        statistic, table = SOURCES[name]
        kept = pyarrow.parquet.read_table(kept_path(measured.folder, key, f"{key}/{statistic}", table))
        assert mine == kept[value].to_pylist()[: len(mine)]
    drawn = draw(measured, name, ["svg"])["svg"]
    assert drawn.startswith(b"<?xml") and b"$" not in drawn


SOURCES = {
    "slice_lines": ("loss_slices", "line"), "slice_squares": ("loss_slices", "square"), "paths": ("path_picture", "curves"),
    "planes": ("decision_regions", "labels"),
}  # fmt: skip


def test_samples_stand_where_the_statistic_put_them(measured) -> None:
    data = [row for row in figure_data(measured, "planes").to_pylist() if row["kind"]]
    for key in {row["trial_key"] for row in data}:
        for plane in (0, 1):
            mine = [row for row in data if (row["trial_key"], row["plane"]) == (key, plane)]
            points = np.array([[row["x"], row["y"]] for row in mine if row["kind"] == "point"])
            samples = np.array([[row["x"], row["y"]] for row in mine if row["kind"] == "sample"])
            assert len(samples) == 3 and tuple(samples[0]) == (0, 0) and samples[1, 1] == 0
            extent = np.ptp(samples, axis=0)
            assert points.min(0) == pytest.approx(samples.min(0) - 0.1 * extent)
            assert points.max(0) == pytest.approx(samples.max(0) + 0.1 * extent)
            assert points[1, 1] == points[0, 1] and points[1, 0] > points[0, 0]  # the first axis runs fastest


def test_a_loss_that_is_not_finite_is_drawn_as_a_gap(measured, tmp_path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(measured.folder, folder)
    for path in folder.rglob("*.line.parquet"):
        table = pyarrow.parquet.read_table(path).to_pydict()
        table["loss"][0] = table["loss"][-1] = float("inf")
        pyarrow.parquet.write_table(pa.table(table), path)
    for path in folder.rglob("*.square.parquet"):
        table = pyarrow.parquet.read_table(path).to_pydict()
        table["loss"] = [float("inf")] * len(table["loss"])
        pyarrow.parquet.write_table(pa.table(table), path)
    inputs = dataclasses.replace(measured, folder=folder)
    assert all(draw(inputs, name, ["svg"])["svg"].startswith(b"<?xml") for name in ("slice_lines", "slice_squares"))

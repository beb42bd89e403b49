"""Attention against importance (claim C1): per cell, layer and kind of importance, how well gates rank what they weigh."""

import re

from analysis.inputs import Inputs
from analysis.stats.spread import mean, sd
from analysis.trials.table import rows_of
from analysis.words.columns import Column, count, integer, number, shared, text, texts
from analysis.words.rows import Row, Rows, grouped
from study.registry import TABLES

KINDS = ("zero", "mean", "taylor")
# of each measure of agreement: gate and importance, null, ceiling, control; Spearman's have the plain names
SPEARMAN = ("spearman", "spearman_null", "ceiling", "activation")
KENDALL = ("kendall", "kendall_null", "kendall_ceiling", "kendall_activation")
TOP = ("top10", "top10_null", "top10_ceiling", "top10_activation")
_PARTS = (
    "gate against importance",
    "gate against importance, units shuffled",
    "the most that noise leaves of it",
    "mean absolute activation against importance",
)
_WORDS = {
    "spearman": "Spearman's rank correlation over units",
    "kendall": "Kendall's tau-b over units",
    "top10": "share of the top tenth of units in common",
}
_MEASURED = (*SPEARMAN, *KENDALL, *TOP)
_LAYER = re.compile(rf"attention_importance_layer(\d+)_({'|'.join(_MEASURED)})_({'|'.join(KINDS)})")


def layer_rows(inputs: Inputs) -> Rows:
    """One row per confirmed, completed network, layer and importance, with all that was measured there."""
    columns: dict[tuple[int, str], dict[str, str]] = {}
    for name in inputs.trials.column_names:
        if found := _LAYER.fullmatch(name):
            layer, measure, kind = found.groups()
            columns.setdefault((int(layer), kind), {})[measure] = name
    head_names = ("cell", "dataset", "attention", "attention_form", "depth", "replicate")
    rows = []
    for row in rows_of(inputs.trials, phase="confirm") if columns else []:
        if row["state"] != "completed":
            continue
        for (layer, kind), names in sorted(columns.items()):
            converged = row[f"{names['spearman']}_converged"]
            if row[names["spearman"]] is not None or converged is not None:
                values = {measure: row[names[measure]] if measure in names else None for measure in _MEASURED}
                head = {name: row[name] for name in head_names}
                rows.append({**head, "layer": layer, "importance": kind, "converged": bool(converged), **values})
    return rows


def _agreement(names: tuple[str, ...], unit: str, headings: tuple[str, ...]) -> list[Column]:
    """Mean and standard deviation of each quantity of one measure of agreement."""
    columns = []
    for name, heading, part in zip(names, headings, _PARTS, strict=True):
        over = f"{_WORDS[names[0]]}, {part}"
        columns.append(number(name, unit, heading, meaning=f"{over}: mean over networks"))
        columns.append(number(f"{name}_sd", unit, "Spread", meaning=f"{over}: standard deviation over networks"))
    return columns


@TABLES.register(
    "importance",
    formula="attention against importance: by layer the agreement in rank, over units, of the mean gate with the loss that "
    "taking the unit out adds (Spearman, Kendall's tau-b, share of the top tenth in common); each with units shuffled, the "
    "noise ceiling, and the same for mean absolute activation; means over networks",
    source="https://arxiv.org/abs/2106.15067",
    title="Attention against importance, by layer",
    place=2.9,
    columns=(
        *shared("study cell dataset"),
        *texts({"attention": "the attention gate", "attention_form": "how it enters the network"}),
        *shared("depth"),
        integer("layer", "identifier", "Layer", meaning="number of the attention layer, from the input"),
        text(
            "importance",
            "Importance",
            meaning="importance of a unit: loss added by taking it to zero, to its mean, or to first order (taylor)",
        ),
        count("n", "Networks", meaning="networks that count"),
        *_agreement(SPEARMAN, "rank correlation", ("Spearman", "", "Ceiling", "Activation's")),
        *_agreement(KENDALL, "rank correlation", ("Kendall", "", "Ceiling", "Activation's")),
        *_agreement(TOP, "fraction of units", ("Top tenth", "By chance", "Ceiling", "Activation's")),
        count("n_not_converged", "Not converged", meaning="networks that did not converge, left out"),
    ),
    main="cell layer importance n spearman spearman_sd ceiling activation kendall kendall_ceiling kendall_activation top10 "
    "top10_null top10_ceiling top10_activation n_not_converged",
    row="one cell, attention layer (from the input) and importance: zero, mean or taylor; completed networks",
)
def importance_rows(inputs: Inputs) -> Rows:
    """One row per cell, layer and importance, in the order of the study; networks that did not converge are only counted."""
    return [_row(rows) for rows in grouped(layer_rows(inputs), "cell", "importance", "layer").values()]


def _row(rows: Rows) -> Row:
    kept = [row for row in rows if row["converged"]]
    numbers: Row = {"n": len(kept), "n_not_converged": len(rows) - len(kept)}
    for measure in _MEASURED:
        values = [row[measure] for row in kept if row[measure] is not None]
        numbers |= {measure: mean(values), f"{measure}_sd": sd(values)}
    head = ("cell", "dataset", "attention", "attention_form", "depth", "layer", "importance")
    return {name: rows[0][name] for name in head} | numbers

"""Effects as a forest plot: every replicate a dot, means with their intervals, the margin of each claim."""

import math
from collections import Counter
from typing import Any

import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.effects.compare import failure_counts
from analysis.effects.readings import POOLED
from analysis.effects.table import contrast_key, shown_strata
from analysis.figures.style import COLOURS, INK, MUTED, mark, message, panel_grid, say_thinned, thinned
from analysis.figures.subjects import main_outcomes
from analysis.inputs import Inputs
from analysis.words.columns import OF_OUTCOME, counts, floats, shared, texts
from analysis.words.rows import Row, Rows, distinct, grouped
from analysis.words.wording import contrast_text, outcome_text, unit_of
from search_spaces.spec import Spec
from study.registry import FIGURES

# a line of more is a blot, and the picture too large for a page
_MOST_DOTS = 150
_BLANK: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
_KEY = ("arm", "reference", "dataset", "stratum", "outcome")
_MARGIN: dict[str, Any] = {"color": COLOURS[1], "linewidth": 1.6, "linestyle": (0, (2, 1))}


def effects_data(inputs: Inputs) -> Rows:
    """Rows of kind ``mean`` (with interval at 1 - alpha and number of pairs) and ``replicate``, arm minus reference.

    Values are in the outcome's own unit; ``margin`` is a claim's, signed by its direction, where the row is its own.
    """
    spec, wanted = inputs.spec, main_outcomes(inputs.spec, None)
    effects = [row for row in inputs.effects.to_pylist() if row["outcome"] in wanted]
    strata = shown_strata(effects)
    means: dict[tuple[str, ...], Row] = {}
    for row in effects:
        if row["stratum"] not in strata[contrast_key(row)]:
            continue
        head = {name: row[name] for name in ("outcome", "scale", "dataset", "n_pairs")}
        head |= {"contrast": contrast_text(row["arm"], row["reference"]), "kind": "mean"}
        head |= {"stratum": strata[contrast_key(row)][row["stratum"]], "failures": _failures(row)}
        head |= {"value": row["mean_difference"], "low": row["ci_low"], "high": row["ci_high"]}
        mean = means.setdefault(tuple(row[name] for name in _KEY), head)
        if row["role"] == "primary":
            outcome = next(o for o in spec.claims[row["claim"]].outcomes if o.name == row["outcome"])
            mean["margin"] = outcome.margin if outcome.better == "higher" else -outcome.margin
    dots = grouped(inputs.differences.to_pylist(), *_KEY)
    rows = []
    for key, mean in means.items():
        shared = {name: mean[name] for name in ("outcome", "scale", "dataset", "contrast", "stratum")}
        rows.append(mean)
        for row in dots.get(key, []):
            which = {"kind": "replicate", "block": row["block"], "replicate": row["replicate"]}
            rows.append({**shared, **which, "value": row["difference"]})
    return rows


@FIGURES.register(
    "effects",
    title="Effects, replicate by replicate",
    place=1.3,
    always=True,
    formula="Arm minus reference. Dots: replicates (averaged over depths in the row 'all'). Bars: mean and interval by "
    "inverting the sign-flip test. Dashes: the margin of a claim, on the side the claim says. "
    "Of more than 150 replicates a line draws every k-th.",
    source="https://doi.org/10.1080/01621459.1969.10501057",
    data=effects_data,
    columns=(
        *texts("outcome scale dataset contrast stratum kind"),
        *shared("block replicate"),
        *floats("value low high margin", OF_OUTCOME),
        *counts("n_pairs"),
        *texts("failures"),
    ),
)
def draw_effects(data: pa.Table, spec: Spec) -> Figure:
    """One panel per outcome, one line per contrast and stratum."""
    rows = data.to_pylist()
    if not any(row["value"] is not None for row in rows):
        return message("No pair of replicates to compare yet.")
    by_outcome = grouped(rows, "outcome")
    lines, labels = _lines(rows)
    figure, axes = panel_grid(1, len(by_outcome), (2.75, 0.235 * len(labels)), (2.2, 1.3), sharey=True)
    drawn = sum(_panel(axis, mine, lines) for axis, mine in zip(axes[0], by_outcome.values(), strict=True))
    axis = axes[0][0]
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.set_yticks(range(len(labels)), [text for text, _ in labels])
    for tick, (_, heading) in zip(axis.get_yticklabels(), labels, strict=True):
        tick.set_fontweight("bold" if heading else "normal")
    handles = [
        mark(marker="o", linestyle="none", color=MUTED, alpha=0.55, markersize=4, label="a replicate"),
        mark(marker="D", color=INK, markersize=5, linewidth=2.4, label=f"mean, {1 - spec.alpha:.0%} interval"),
        mark(**_MARGIN, label="margin of a claim"),
    ]
    figure.legend(handles=handles, loc="outside lower right", ncols=3)
    say_thinned(figure, drawn, sum(row["kind"] == "replicate" for row in rows), "replicates")
    return figure


def _panel(axis: Axes, rows: Rows, lines: dict[tuple[str, ...], int]) -> int:
    """One outcome; how many replicates it draws."""
    unit = unit_of(rows[0]["outcome"], rows[0]["scale"])
    factor = unit.factor
    axis.axvline(0, color=MUTED, linewidth=0.9, zorder=1)
    axis.grid(visible=True, axis="x")
    dots: dict[int, list[float]] = {}
    for row in rows:
        y = lines[row["dataset"], row["contrast"], row["stratum"]]
        if row["kind"] == "replicate":
            dots.setdefault(y, []).append(row["value"])
            continue
        note = f"n = {row['n_pairs']}"
        axis.annotate(note, (1.0, y), xycoords=("axes fraction", "data"), va="center", fontsize=7.5, color=MUTED)
        if row["value"] is None:
            text, place = row["failures"] or "no pairs", axis.get_yaxis_transform()
            axis.text(0.02, y, text, transform=place, va="center", fontsize=7.5, color=MUTED, bbox=_BLANK)
            continue
        if row["margin"] is not None:
            axis.plot([factor * row["margin"]] * 2, [y - 0.45, y + 0.45], **_MARGIN)
        weight = 2.4 if row["stratum"] == POOLED else 1.4
        if math.isfinite(row["low"]) and math.isfinite(row["high"]):
            limits = [factor * row["low"], factor * row["high"]]
            axis.plot(limits, [y - 0.12] * 2, color=INK, linewidth=weight, solid_capstyle="butt")
        axis.plot(factor * row["value"], y - 0.12, "D" if row["stratum"] == POOLED else "|", color=INK, markersize=5)
    places = [place for y, values in dots.items() for place in _stacked(y, thinned(values, _MOST_DOTS))]
    x, heights = [factor * value for value, _ in places], [height for _, height in places]
    axis.plot(x, heights, "o", color=MUTED, markersize=3.4, alpha=0.6, mew=0, zorder=2)
    axis.set_title(outcome_text(rows[0]["outcome"]))
    units = {"pp": "percentage points", "log": "natural logarithm"}
    axis.set_xlabel(f"difference ({units.get(unit.difference, unit.difference or 'own unit')})")
    axis.margins(x=0.08)
    axis.tick_params(axis="y", length=0)
    return len(places)


def _stacked(y: int, values: list[float]) -> list[tuple[float, float]]:
    """Places below line ``y``; equal differences, common among accuracies, stand below one another."""
    seen: Counter[float] = Counter()
    places = []
    for value in values:
        places.append((value, y + 0.16 + 0.09 * min(seen[round(value, 9)], 3)))
        seen[round(value, 9)] += 1
    return places


def _lines(rows: Rows) -> tuple[dict[tuple[str, ...], int], list[tuple[str, bool]]]:
    """(dataset, contrast, stratum) -> its line, and all lines' labels, True for a heading."""
    several = len(distinct(rows, "dataset")) > 1
    lines: dict[tuple[str, ...], int] = {}
    labels: list[tuple[str, bool]] = []
    for (dataset, contrast), mine in grouped(rows, "dataset", "contrast").items():
        labels.append((f"{contrast} ({dataset})" if several else contrast, True))
        for name in distinct(mine, "stratum"):
            lines[dataset, contrast, name] = len(labels)
            labels.append((name, False))
    return lines, labels


def _failures(row: Row) -> str:
    """``15 of 16 failed against 0 of 16``: the arm's failures, then the reference's."""
    (arm, of_arm), (reference, of_reference) = (failure_counts(row, side) for side in ("arm", "reference"))
    return f"{arm} of {of_arm} failed against {reference} of {of_reference}" if arm or reference else ""

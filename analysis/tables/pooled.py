"""Effects over datasets: t over dataset means, and a mixed model beside it as a sensitivity analysis.

Source: https://doi.org/10.1002/sim.791
"""

from collections.abc import Mapping

from analysis.effects.paired import exploratory
from analysis.effects.readings import POOLED
from analysis.inputs import Inputs
from analysis.stats.pooling import MIN_DATASETS, WALD_WARNING, mixed_model, pool
from analysis.words.columns import OF_SCALE, count, flag, floats, number, p_value, shared, text
from analysis.words.rows import Row, Rows, grouped, where
from study.registry import TABLES

_KEY = ("arm", "reference", "outcome", "scale")


@TABLES.register(
    "pooled",
    formula="effects over datasets: mean of the dataset means with its t interval, each dataset counting once; a mixed model "
    f"(random dataset) beside it ({WALD_WARNING})",
    source="https://doi.org/10.1002/sim.791",
    title="Effects over datasets",
    place=1.5,
    columns=(
        *shared("study arm reference outcome scale"),
        text("datasets", meaning="the datasets, by name"),
        count("n_datasets", "Datasets", meaning="datasets that have pairs"),
        count("n_pairs", "Pairs", meaning="pairs over all datasets"),
        count("n_below_zero", "Below zero", meaning="datasets whose own interval lies below zero"),
        count("n_above_zero", "Above zero", meaning="datasets whose own interval lies above zero"),
        number(
            "mean_difference",
            OF_SCALE,
            "Mean of datasets",
            "effect",
            low="t_low",
            high="t_high",
            meaning="mean of the dataset means, each dataset counting once",
        ),
        number("sd_datasets", OF_SCALE, "Spread", "effect", meaning="standard deviation of the dataset means"),
        *floats("t_low t_high", OF_SCALE),
        *floats({"least": "the lowest dataset mean", "most": "the highest dataset mean"}, OF_SCALE),
        p_value("p_t", "p (t)", meaning="two-sided p by t over the dataset means"),
        number(
            "mixed_estimate",
            OF_SCALE,
            "Sensitivity: mixed model",
            "effect",
            low="mixed_low",
            high="mixed_high",
            meaning="mean effect by a mixed model with a random dataset",
        ),
        *floats(
            {
                "mixed_low": "lower limit of its interval at 1 - alpha",
                "mixed_high": "upper limit of its interval at 1 - alpha",
                "mixed_sd_datasets": "standard deviation of the effect over datasets, by the mixed model",
            },
            OF_SCALE,
        ),
        p_value("mixed_p", "p (Wald)", meaning="Wald's p by the mixed model"),
        flag("mixed_converged", meaning="whether the fit of the mixed model converged"),
        *shared("label note"),
        text("mixed_note", "Fit", meaning="what to know of its fit"),
    ),
    main="arm reference outcome n_datasets n_pairs mean_difference sd_datasets p_t n_below_zero n_above_zero mixed_estimate "
    "mixed_p mixed_note label note",
    row="one contrast and outcome over the datasets that have pairs; mean, spread and t interval are of dataset means; "
    "n_below_zero counts the datasets whose own interval lies below zero",
)
def pooled_rows(inputs: Inputs) -> Rows:
    """One row per contrast and main outcome with pairs on two datasets or more, in the order of the effects table.

    Only what a claim names, on five datasets or more, is labelled ``primary``; the claims table holds its verdict.
    """
    differences = inputs.differences.select([*_KEY, "stratum", "dataset", "difference"]).to_pylist()
    pairs = grouped(where(differences, stratum=POOLED), *_KEY)
    groups: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in inputs.effects.to_pylist():
        key = tuple(row[name] for name in _KEY)
        if row["stratum"] == POOLED and row["n_pairs"] and key in pairs:
            kept = groups.setdefault(key, {}).setdefault(row["dataset"], row)
            # a contrast of several claims has a row for each
            kept["role"] = "primary" if "primary" in (kept["role"], row["role"]) else row["role"]
    return [_row(inputs, key, by, pairs[key]) for key, by in groups.items() if len(by) > 1]


def _row(inputs: Inputs, key: tuple[str, ...], by_dataset: Mapping[str, Row], pairs: Rows) -> Row:
    rows = list(by_dataset.values())
    means = [row["mean_difference"] for row in rows]
    differences, datasets = ([pair[name] for pair in pairs] for name in ("difference", "dataset"))
    pooled, mixed = pool(means), mixed_model(differences, datasets, inputs.spec.alpha)
    low, high = pooled.interval(inputs.spec.alpha)
    barred = [name for name, row in by_dataset.items() if not row["mean_verdict"]]
    primary = rows[0]["role"] == "primary"
    label = exploratory(inputs.spec)
    if len(rows) < MIN_DATASETS:
        label += f"; fewer than {MIN_DATASETS} datasets"
    elif primary:
        label = label.replace("exploratory", "primary", 1)
    return {
        **dict(zip(_KEY, key, strict=True)),
        "datasets": ", ".join(by_dataset),
        "n_datasets": len(rows),
        "n_pairs": sum(row["n_pairs"] for row in rows),
        "n_below_zero": sum(row["ci_high"] < 0 for row in rows),
        "n_above_zero": sum(row["ci_low"] > 0 for row in rows),
        "mean_difference": pooled.mean,
        "sd_datasets": pooled.sd,
        "t_low": low,
        "t_high": high,
        "least": min(means),
        "most": max(means),
        "p_t": pooled.p,
        "mixed_estimate": mixed.estimate,
        "mixed_low": mixed.low,
        "mixed_high": mixed.high,
        "mixed_sd_datasets": mixed.sd_datasets,
        "mixed_p": mixed.p,
        "mixed_converged": mixed.converged,
        "label": label,
        "note": f"no verdict may rest on the mean on {', '.join(barred)}" if barred else "",
        "mixed_note": mixed.note,
    }

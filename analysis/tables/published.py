"""What others have reported for a cell, and what this study found there."""

from analysis.inputs import Inputs
from analysis.stats.spread import mean, one_run, sd
from analysis.trials.grid import label
from analysis.trials.table import rows_of
from analysis.words.columns import OF_OUTCOME, count, number, shared, text
from analysis.words.rows import Row, Rows, grouped
from search_spaces import Published
from study.registry import TABLES

# a run of one network falls outside the limits one time in twenty
_LUCK = 0.05


@TABLES.register(
    "published",
    formula="published results beside those of this study at the same levels: mean and range over replicates; collapsed "
    "networks count, diverged ones have no accuracy. One run: where one more run of the network falls, 19 times in "
    "20; a published run beyond it is another result. Two runs: by how much two runs of one network differ, 19 times in 20",
    source="",
    title="Published results",
    place=1.95,
    columns=(
        text("study", meaning="the study's name"),
        text("levels", "Levels", meaning="levels that the published result is on"),
        text("cell", meaning="the cell of this study at these levels"),
        *shared("outcome"),
        number("published", OF_OUTCOME, "Published", meaning="what was reported"),
        number("found", OF_OUTCOME, "Found here", meaning="mean over the networks of this study"),
        number("found_sd", OF_OUTCOME, "Spread", meaning="standard deviation over these networks"),
        number("found_least", OF_OUTCOME, "Least", meaning="the lowest of these networks"),
        number("found_most", OF_OUTCOME, "Most", meaning="the highest of these networks"),
        number(
            "one_run_low", OF_OUTCOME, "One run from", meaning="lower end of where one more run falls, 19 times in 20"
        ),
        number(
            "one_run_high", OF_OUTCOME, "One run to", meaning="upper end of where one more run falls, 19 times in 20"
        ),
        number(
            "two_runs",
            OF_OUTCOME,
            "Two runs differ by",
            meaning="by how much two runs of one network differ at most, 19 times in 20",
        ),
        count("n", "Networks", meaning="networks of this study that count"),
        *shared("note"),
        text("source", "Source", meaning="where it was reported"),
    ),
    main="levels outcome published found found_sd one_run_low one_run_high two_runs n note source",
    row="one published result and one cell at its levels; completed and collapsed networks alike",
)
def published_rows(inputs: Inputs) -> Rows:
    """One row per published result and cell that holds it, in the order of the spec; none where nothing is published."""
    confirmed = rows_of(inputs.trials, phase="confirm") if inputs.spec.published else []
    found = []
    for known in inputs.spec.published:
        at_levels = [row for row in confirmed if all(row.get(name) == level for name, level in known.levels.items())]
        found += [_row(known, cell, rows) for cell, rows in (grouped(at_levels, "cell") or {"": []}).items()]
    return found


def _row(known: Published, cell: str, rows: Rows) -> Row:
    held = [row[known.outcome] for row in rows if row.get(known.outcome) is not None]
    low, high, apart = one_run(held, _LUCK)
    return {
        "levels": label(known.levels),
        "cell": cell,
        "outcome": known.outcome,
        "published": known.value,
        "found": mean(held),
        "found_sd": sd(held),
        "found_least": min(held, default=None),
        "found_most": max(held, default=None),
        "one_run_low": low,
        "one_run_high": high,
        "two_runs": apart,
        "n": len(held),
        "note": known.note,
        "source": known.source,
    }

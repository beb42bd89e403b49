"""A synthetic study whose winners are trained for shares of the epochs too."""

from book import synthetic_spec

from analysis.inputs import Inputs
from analysis.tables.build import build_table

BUDGET = {"search_trials": 2, "startup_trials": 1, "shortened": [0.25, 0.5]}
FIXED = {"dataset": "digits", "epochs": 12}
FACTORS = [{"merge": ["add", "add_alias", "mul"], "depth": [8]}]


def inputs_of(book, **changes):
    given = {"factors": FACTORS, "blocks": 10, "budget": BUDGET, "fixed": FIXED} | changes
    return Inputs(spec=synthetic_spec(**given), contents=book.contents, chance={"digits": 0.1})


def table(book, name, **changes):
    return build_table(inputs_of(book, **changes), name)


def train(book, merge, block, share, accuracy, statistics, loss=1.0, depth=8, state="completed", **given):
    """One training at a share of 12 epochs: confirmed at 1, else shortened."""
    epochs = round(12 * share)
    phase = "confirm" if share == 1 else "short"
    key = book.replicate(
        merge, depth, block, phase=phase, state=state, epochs=epochs, config={"epochs": epochs},
        trial_key=f"{merge}/{depth}/{block}/{share}",
        metrics={"test/accuracy": accuracy, "val/accuracy": accuracy, "train/loss": loss}, **given,
    )  # fmt: skip
    if statistics:
        book.measure(key, "input_jacobian", statistics)
    return key

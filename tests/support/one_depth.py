"""A synthetic study of one depth with two claims: what a test of verdicts plants, and the claims table."""

from book import JACOBIAN, Book, synthetic_spec

from analysis.inputs import Inputs
from analysis.tables.build import build_table

PROBABILITIES = "jacobian_probabilities_mean_log"
SPREAD = [0.004, -0.004, 0.002, -0.002, 0.001, -0.001, 0.003, -0.003, 0.0, 0.0]


def study(accuracy=0.0, jacobian=0.0, alias=0.0, probabilities=None, blocks=10, fail=(), spread=SPREAD):
    """One depth; ``mul`` and ``add_alias`` off ``add`` by these on average; ``fail`` lists what collapses."""
    book = Book()
    for block in range(blocks):
        shift = spread[block % len(spread)]
        for merge, by, log in (("add", 0.0, 0.0), ("add_alias", alias, 0.0), ("mul", accuracy, jacobian)):
            noise = 0.0 if merge == "add" else shift
            values = {JACOBIAN: 1.0 + log + 10 * noise}
            if probabilities is not None:
                values[PROBABILITIES] = 2.0 + (probabilities if merge == "mul" else 0.0)
            state = "collapsed" if (merge, block) in fail else "completed"
            reached = 0.2 if state == "collapsed" else 0.95 + by + noise
            book.confirm(merge, 8, block, reached, state=state, estimates=values)
    return book


def inputs_of(book, **changes):
    factors = [{"merge": ["add", "add_alias", "mul"], "depth": [8]}]
    spec = synthetic_spec(**({"factors": factors, "blocks": 10} | changes))
    return Inputs(spec=spec, contents=book.contents, chance={"digits": 0.1})


def claims_of(book, **changes):
    return {row["claim"]: row for row in build_table(inputs_of(book, **changes), "claims").to_pylist()}

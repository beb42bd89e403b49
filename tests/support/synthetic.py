"""Synthetic studies with planted effects, shared by tests of the analysis: arms, depths and blocks as a test needs them."""

from collections.abc import Collection, Mapping

import numpy as np
from book import JACOBIAN, Book, synthetic_spec

from analysis.inputs import Inputs
from analysis.tables.build import build_table

MERGES = ("add", "add_alias", "mul")
CONTROL = {"arm": {"merge": "add_alias"}, "reference": {"merge": "add"}}


def accuracy_claim(arm="mul", margin=0.02, **changes):
    claim = {"text": "better", "arm": {"merge": arm}, "references": [{"merge": "add"}]}
    return claim | {"outcomes": [{"name": "test/accuracy", "margin": margin}]} | changes


def smoothness_claim(arm="mul", margin=0.1):
    outcome = {"name": JACOBIAN, "margin": margin, "better": "lower"}
    return {"text": "smoother", "arm": {"merge": arm}, "references": [{"merge": "add"}], "outcomes": [outcome]}


def planted_study(
    effects: Mapping[tuple[str, int], float],
    *,
    blocks: int | Mapping[str, int] = 10,
    merges: Collection[str] = MERGES,
    depths: Collection[int] = (8,),
    spread: float = 0.004,
    spreads: Mapping[str, float] | None = None,
    missing: Collection[tuple[str, int, int]] = (),
    diverged: Collection[tuple[str, int, int]] = (),
    smooth: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Book:
    """``effects`` maps (merge, depth) to its mean shift in accuracy off ``add``; normal noise of ``spread`` in every arm.

    ``spreads`` overrules the spread of an arm, ``missing`` and ``diverged`` list (merge, depth, block); ``smooth`` shifts the
    log Jacobian of an arm; ``blocks`` may differ between arms.
    """
    book, noise = Book(), np.random.default_rng(seed)
    most = blocks if isinstance(blocks, int) else max(blocks.values())
    draws = noise.normal(0, 1, (most, len(depths), len(merges), 2))
    for block in range(most):
        for i, depth in enumerate(depths):
            for j, merge in enumerate(merges):
                asked = blocks if isinstance(blocks, int) else blocks.get(merge, most)
                if block >= asked or (merge, depth, block) in missing:
                    continue
                sd = (spreads or {}).get(merge, spread)
                reached = 0.9 + effects.get((merge, depth), 0.0) + sd * draws[block, i, j, 0]
                log = 1.0 + (smooth or {}).get(merge, 0.0) + 0.05 * draws[block, i, j, 1]
                if (merge, depth, block) in diverged:
                    book.replicate(merge, depth, block, state="diverged", metrics={})
                else:
                    book.confirm(merge, depth, block, reached, estimates={JACOBIAN: log})
    return book


def inputs_of(book, registration=None, **changes):
    """What tables of ``book`` are made from; by default one claim on accuracy, depth 8, ten blocks."""
    values = {"factors": [{"merge": list(MERGES), "depth": [8]}], "blocks": 10, "claims": {"C4": accuracy_claim()}}
    spec = synthetic_spec(**(values | changes))
    return Inputs(spec=spec, contents=book.contents, chance={"digits": 0.1}, registration=registration)


def claims_of(book, registration=None, **changes):
    """Claim -> its row of the claims table."""
    rows = build_table(inputs_of(book, registration, **changes), "claims").to_pylist()
    return {row["claim"]: row for row in rows}

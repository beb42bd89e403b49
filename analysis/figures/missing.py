"""Who is missing from a figure, by name and with the reason, for its caption."""

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa

from analysis.figures.subjects import networks
from analysis.inputs import Inputs
from analysis.trials.arms import context_name, planned_cells
from analysis.words.rows import Row, Rows, distinct, grouped

# where a whole cell is missing that was trained
_NOTHING, _NOT_PICTURED, _UNTRAINED = "nothing to show", "not pictured", "not trained yet"
_NO_VALUE = {"completed": "without a value"}


def missing(inputs: Inputs, data: pa.Table) -> str:
    """``Missing: mul at depth 14 (7 of 24 networks: 7 diverged); add, add_alias (nothing to show).``; empty for nobody.

    ``data`` is what a figure draws. It tells cells by ``cell``, ``trial_key`` or arm and context, and networks by
    ``replicate``; a contrast without a pair is named too.
    """
    if "contrast" in data.column_names:
        without = _without_pairs(data.select(["contrast", "kind", "value"]).to_pylist())
        return f"Without a pair: {', '.join(without)}." if without else ""
    heads = _heads(inputs)
    of_key = {row["trial_key"]: row["cell"] for _, row in networks(inputs, ["trial_key"])}
    names = [
        name for name in ("cell", "trial_key", "arm", "context", "block", "replicate") if name in data.column_names
    ]
    if not {"cell", "trial_key"} & set(names) and not {"arm", "context"} <= set(names):
        return ""
    rows = data.select(names).group_by(names).aggregate([]).to_pylist()
    shown: dict[str, set[tuple[int, int]]] = {}
    by_name = {(head["arm"], head["context"]): cell for cell, head in heads.items()}
    for row in rows:
        cell = row.get("cell") or of_key.get(row.get("trial_key")) or by_name.get((row.get("arm"), row.get("context")))
        if cell is not None:
            shown.setdefault(cell, set()).add((row.get("block"), row.get("replicate")))
    # pictures are of some networks alone
    texts = list(_whole(inputs, heads, shown, _NOT_PICTURED if "note" in data.column_names else _NOTHING))
    if "replicate" in names:
        texts = [*_some(inputs, heads, shown, by_block="block" in names), *texts]
    return f"Missing: {'; '.join(texts)}." if texts else ""


def _heads(inputs: Inputs) -> dict[str, Row]:
    """Cell -> its head, of planned cells too, with its context."""
    planned = planned_cells(inputs.spec, inputs.trials)
    several = len(distinct(planned, "dataset")) > 1
    return {head["cell"]: {**head, "context": context_name(head, dataset=several)} for head in planned}


def _whole(inputs: Inputs, heads: dict[str, Row], shown: Iterable[str], why: str) -> Iterable[str]:
    """Cells of which nothing is shown; an arm that is missing at all depths is named once."""
    trained = {row["cell"] for _, row in networks(inputs)}
    absent = [
        {**head, "why": why if cell in trained else _UNTRAINED}
        for cell, head in heads.items()
        if cell not in set(shown)
    ]
    num = Counter(head["arm"] for head in heads.values())
    for reason, held in grouped(absent, "why").items():
        named = []
        for arm, same in grouped(held, "arm").items():
            contexts = [head["context"] for head in same if head["context"]]
            named.append(arm if len(same) == num[arm] or not contexts else f"{arm} at {', '.join(contexts)}")
        yield f"{', '.join(named)} ({reason})"


def _some(
    inputs: Inputs, heads: dict[str, Row], shown: dict[str, set[tuple[int, int]]], *, by_block: bool
) -> list[str]:
    """Cells of which some networks are shown and others are not, with what became of these."""
    texts = []
    trained = grouped([{**head, **row} for head, row in networks(inputs)], "cell")
    for cell, held in trained.items():
        pairs = shown.get(cell, set())
        absent = [row for row in held if (row["block"] if by_block else None, row["replicate"]) not in pairs]
        if absent and pairs and cell in heads:
            states = Counter(_NO_VALUE.get(row["state"], row["state"]) for row in absent)
            why = ", ".join(f"{count} {state}" for state, count in states.items())
            context = heads[cell]["context"]
            where = f"{heads[cell]['arm']} at {context}" if context else heads[cell]["arm"]
            texts.append(f"{where} ({len(absent)} of {len(held)} networks: {why})")
    return texts


def _without_pairs(rows: Rows) -> list[str]:
    means = [row for row in rows if row["kind"] == "mean"]
    there = {row["contrast"] for row in means if row["value"] is not None}
    return [name for name in distinct(means, "contrast") if name not in there]

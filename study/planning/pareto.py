"""https://doi.org/10.1109/4235.996017 (Deb et al. 2002): which trials of a joint search no other trial beats.

Only completed trials count: a collapsed network may be cheap, and is of no use. Pure functions of the ledger's records.
"""

import math
from collections.abc import Sequence

from search_spaces import Spec
from study.schema import ReplicateRecord

Point = tuple[float, ...]


def objectives(spec: Spec, record: ReplicateRecord) -> Point | None:
    """The objectives' values in the order of ``spec.joint``, as measured; ``None`` where the trial did not complete."""
    assert spec.joint is not None
    if record["state"] != "completed":
        return None
    costs = {"params": float(record["params"]), "flops": float(record["flops"])}
    values = [(costs | record["metrics"]).get(objective.name, math.nan) for objective in spec.joint.objectives]
    return tuple(values) if all(map(math.isfinite, values)) else None


def front(spec: Spec, history: Sequence[ReplicateRecord]) -> list[ReplicateRecord]:
    """Trials that none is better than in one objective and as good in all others; of equals the first, by number."""
    points = [(record, _lower_is_better(spec, value)) for record in history if (value := objectives(spec, record))]
    return [
        record
        for i, (record, mine) in enumerate(points)
        if not any(_dominates(other, mine) or (other == mine and j < i) for j, (_, other) in enumerate(points))
    ]


def chosen(spec: Spec, history: Sequence[ReplicateRecord]) -> list[ReplicateRecord]:
    """What a block confirms: the front, of each cell the best in the first objective, thinned to ``joint.confirm`` trials.

    The trial with the least crowding distance is taken away until few enough are left; the ends of the front stay longest.
    """
    assert spec.joint is not None
    best: dict[str, ReplicateRecord] = {}
    for record in sorted(
        front(spec, history), key=lambda record: _lower_is_better(spec, objectives(spec, record) or ())
    ):
        best.setdefault(record["cell"], record)
    left = list(best.values())
    while len(left) > spec.joint.confirm:
        distances = crowding([_lower_is_better(spec, objectives(spec, record) or ()) for record in left])
        # of equals the last: those before it are better in the first objective
        left.pop(max(range(len(left)), key=lambda i: (-distances[i], i)))
    return sorted(left, key=lambda record: record["number"])


def crowding(points: Sequence[Point]) -> list[float]:
    """Crowding distance of each point: over the objectives, the sum of the gap between its neighbours by the whole range."""
    distances = [0.0] * len(points)
    for axis in range(len(points[0]) if points else 0):
        order = sorted(range(len(points)), key=lambda i: points[i][axis])
        width = points[order[-1]][axis] - points[order[0]][axis]
        distances[order[0]] = distances[order[-1]] = math.inf
        for before, i, after in zip(order, order[1:], order[2:], strict=False):
            distances[i] += (points[after][axis] - points[before][axis]) / width if width else 0.0
    return distances


def _lower_is_better(spec: Spec, values: Point) -> Point:
    assert spec.joint is not None
    signs = [1 if objective.direction == "minimize" else -1 for objective in spec.joint.objectives]
    return tuple(sign * value for sign, value in zip(signs, values, strict=False))


def _dominates(a: Point, b: Point) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))

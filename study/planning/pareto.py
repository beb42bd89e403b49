"""The Pareto front of a joint search, and which of its trials a block confirms. Pure functions of the ledger's records.

Only completed trials count: a collapsed network may be cheap, and is of no use.

Source: https://doi.org/10.1109/4235.996017
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
    sizes = {"params": float(record["params"]), "flops": float(record["flops"])}
    values = [(sizes | record["metrics"]).get(objective.name, math.nan) for objective in spec.joint.objectives]
    return tuple(values) if all(map(math.isfinite, values)) else None


def front(spec: Spec, history: Sequence[ReplicateRecord]) -> list[ReplicateRecord]:
    """Trials that no other trial dominates; of equals the first, by number."""
    points = [(record, costs) for record in history if (costs := _costs(spec, record))]
    return [
        record
        for i, (record, mine) in enumerate(points)
        if not any(_dominates(other, mine) or (other == mine and j < i) for j, (_, other) in enumerate(points))
    ]


def chosen(spec: Spec, history: Sequence[ReplicateRecord]) -> list[ReplicateRecord]:
    """What a block confirms: of the front, the best trial of each cell in the first objective, at most ``joint.confirm``.

    The trial of least crowding distance is left out until few enough remain, so the ends of the front stay longest.
    """
    assert spec.joint is not None
    best: dict[str, ReplicateRecord] = {}
    for record in sorted(front(spec, history), key=lambda record: _costs(spec, record)):
        best.setdefault(record["cell"], record)
    left = list(best.values())
    while len(left) > spec.joint.confirm:
        distances = crowding([_costs(spec, record) for record in left])
        # of equals the last: those before it are better in the first objective
        left.pop(max(range(len(left)), key=lambda i: (-distances[i], i)))
    return sorted(left, key=lambda record: record["number"])


def crowding(points: Sequence[Point]) -> list[float]:
    """Crowding distance of each point: the gap between its neighbours over the whole range, summed over objectives."""
    distances = [0.0] * len(points)
    for axis in range(len(points[0]) if points else 0):
        order = sorted(range(len(points)), key=lambda i: points[i][axis])
        width = points[order[-1]][axis] - points[order[0]][axis]
        distances[order[0]] = distances[order[-1]] = math.inf
        for before, i, after in zip(order, order[1:], order[2:], strict=False):
            distances[i] += (points[after][axis] - points[before][axis]) / width if width else 0.0
    return distances


def _costs(spec: Spec, record: ReplicateRecord) -> Point:
    """The objectives' values, lower being better; empty where the trial did not complete."""
    assert spec.joint is not None
    signs = [1 if objective.direction == "minimize" else -1 for objective in spec.joint.objectives]
    return tuple(sign * value for sign, value in zip(signs, objectives(spec, record) or (), strict=False))


def _dominates(a: Point, b: Point) -> bool:
    """Whether ``a`` is as good as ``b`` in every objective and better in one."""
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))

"""What stands in the way of a verdict: its kind, which a reader is told first, and the case in words."""

from typing import Literal, NamedTuple

# waiting: pairs have not run yet. refused: budgets are unequal. control: the study, or the claim's own control, cannot be
# believed. not estimable: too many pairs have no value. contradiction: what would support the claim is gainsaid elsewhere.
Kind = Literal["waiting", "refused", "control", "not estimable", "contradiction"]


class Obstacle(NamedTuple):
    """One obstacle; ``bars_support`` alone where the claim may still be refuted."""

    kind: Kind
    text: str
    bars_support: bool = False

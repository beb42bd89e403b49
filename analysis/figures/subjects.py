"""What figures are about: confirmed networks, and the outcomes that the study asks about."""

from collections.abc import Iterable, Iterator

from analysis.inputs import Inputs
from analysis.trials.outcomes import METRIC_OUTCOMES
from analysis.trials.table import rows_of
from analysis.words.rows import Row
from search_spaces import Spec

_MOST = 3


def networks(inputs: Inputs, columns: Iterable[str] = ()) -> Iterator[tuple[Row, Row]]:
    """Each confirmed network: its names (arm, context, block, replicate), and ``columns`` of its row of the trials table."""
    columns = ("cell", "search_block", "replicate", "state", *columns)
    for row in rows_of(inputs.trials, columns, phase="confirm"):
        named = {name: inputs.heads[row["cell"]][name] for name in ("arm", "context")}
        yield named | {"block": row["search_block"], "replicate": row["replicate"]}, row


def main_outcomes(spec: Spec, most: int | None = _MOST) -> list[str]:
    """Test accuracy, then what claims name."""
    return list(dict.fromkeys([METRIC_OUTCOMES[0], *spec.claimed_outcomes]))[:most]

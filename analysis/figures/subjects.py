"""What figures are about: confirmed networks, and the outcomes that the study asks about."""

from collections.abc import Iterable, Iterator

from analysis.figures.style import SeriesStyle, context_styles, series_styles
from analysis.inputs import Inputs
from analysis.trials.arms import arm_name, cells_of
from analysis.trials.outcomes import METRIC_OUTCOMES
from analysis.trials.table import rows_of, setting_column
from analysis.words.rows import Row
from search_spaces import Spec

_MOST = 3


def networks(inputs: Inputs, columns: Iterable[str] = ()) -> Iterator[tuple[Row, Row]]:
    """Each confirmed network: its names (arm, context, block, replicate), and ``columns`` of its row of the trials table."""
    columns = ("cell", "search_block", "replicate", "state", *columns)
    for row in rows_of(inputs.trials, columns, phase="confirm"):
        named = {name: inputs.heads[row["cell"]][name] for name in ("arm", "context")}
        yield named | {"block": row["search_block"], "replicate": row["replicate"]}, row


def arm_styles(spec: Spec, names: Iterable[str]) -> dict[str, SeriesStyle]:
    """A style per arm among ``names``, the same in all figures: by the arm's place in the study, whoever else is drawn."""
    known = list(names)
    planned = _planned(spec)
    styles = series_styles([*planned, *known])
    return {name: styles[name] for name in known}


def line_styles(spec: Spec, names: Iterable[str]) -> dict[str, SeriesStyle]:
    """The same for lines of which some are arms; what is no arm is grey."""
    known, planned = list(names), set(_planned(spec))
    others = context_styles(name for name in known if name not in planned)
    return {name: others.get(name) or arm_styles(spec, [name])[name] for name in known}


def _planned(spec: Spec) -> list[str]:
    """The arms of a study, in the order of its cells; of a joint search, which plans none, none."""
    cells = [] if spec.joint else cells_of(spec)
    named = ({setting_column(factor): level for factor, level in levels.items()} for levels in cells)
    return list(dict.fromkeys(arm_name(spec, {"cell": "", **values}) for values in named))


def main_outcomes(spec: Spec, most: int | None = _MOST) -> list[str]:
    """Test accuracy, then what claims name."""
    return list(dict.fromkeys([METRIC_OUTCOMES[0], *spec.claimed_outcomes]))[:most]

"""https://doi.org/10.2307/2683253 (Cox 1984, Interaction): arms' means over the levels of another factor; lines that cross or run apart."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from analysis.arms import planned_cells
from analysis.differences import main_outcomes
from analysis.figures.style import INK, LINES, looks, mark, message
from analysis.grid import confirm_grid
from analysis.outcomes import ReadOutcome
from analysis.paired import cell_values
from analysis.signflip import sign_flip_interval
from analysis.tables import Inputs
from analysis.units import OF_OUTCOME
from analysis.wording import outcome_text, unit_of
from search_spaces.spec import Spec
from study.registry import FIGURES

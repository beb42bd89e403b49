"""The pictures of single networks (slices, paths, planes), each cell's own beside those of all cells."""

import functools
from collections.abc import Callable, Collection

import pyarrow as pa
import pyarrow.compute as pc

from analysis.inputs import Inputs
from analysis.tables.kept import PICTURED
from study.registry import FIGURES


def pictures(inputs: Inputs) -> Callable[[Collection[str]], dict[str, bytes]]:
    """Draws what shows the networks of given trial keys: file name -> PNG. Data are read once, when it is first asked."""

    # imported when they are asked for: a run that has trainings before it starts without matplotlib
    @functools.cache
    def tables() -> dict[str, pa.Table]:
        from analysis.figures.build import figure_data, figure_names

        names = [name for name in figure_names() if {*PICTURED} <= {*FIGURES[name].traits.get("columns", ())}]
        return {name: figure_data(inputs, name) for name in names}

    def drawn(keys: Collection[str]) -> dict[str, bytes]:
        from analysis.figures.build import draw

        wanted = pa.array(sorted(keys), pa.string())
        found = {name: table.filter(pc.is_in(table["trial_key"], wanted)) for name, table in tables().items()}
        return {
            f"{name}.png": draw(inputs, name, ["png"], data)["png"] for name, data in found.items() if data.num_rows
        }

    return drawn

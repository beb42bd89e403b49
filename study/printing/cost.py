"""What ``cost`` prints: one cell layer by layer, the others in total."""

from collections.abc import Sequence

from rich.console import Console
from torch import nn

from study.data import dataset_facts
from study.errors import UserError, nearest
from study.models.cost import LayerCost, layer_costs
from study.planning.plan import Cell, Plan
from study.printing.console import print_table, say
from study.resources.timing import untrained

_NUMBERS = ("parameters", "FLOPs", "activations")


def print_cost(plan: Plan, name: str, console: Console) -> None:
    """Print every layer of the cell called ``name`` (of the first cell if it is empty) and the total of each other cell.

    Numbers are per image. Raises ``UserError`` for an unknown cell.
    """
    cells = {cell.name: cell for cell in plan.cells}
    name = name or plan.cells[0].name
    if name not in cells:
        raise UserError(f"--cell: unknown cell {name!r}{nearest(name, cells)}")
    model, image_shape = _network(plan, cells[name])
    layers = layer_costs(model, image_shape)
    rows = [(row.name or "(network)", row.kind, "x".join(map(str, row.shape)), *_numbers([row])) for row in layers]
    rows.append(("total", "", "", *_numbers(layers)))
    print_table(console, ("layer", "kind", "output", *_NUMBERS), rows, title=name, num_left=2)
    say(console, "one image; a multiply-add is two FLOPs, of convolutions, linear layers and matrix products alone")
    if others := [cell for cell in plan.cells if cell.name != name]:
        totals = [(cell.name, *_numbers(layer_costs(*_network(plan, cell)))) for cell in others]
        print_table(console, ("other cells", *_NUMBERS), totals)


def _network(plan: Plan, cell: Cell) -> tuple[nn.Module, tuple[int, int, int]]:
    """The cell's network and the shape of its images."""
    config = plan.default_config(cell)
    known = dataset_facts(config.dataset)
    return untrained(config, known), known.image_shape


def _numbers(layers: Sequence[LayerCost]) -> tuple[str, ...]:
    """The sums over ``layers``, one for each of ``_NUMBERS``."""
    costs = [(layer.params, layer.flops, layer.activations) for layer in layers]
    return tuple(f"{sum(column):,}" for column in zip(*costs, strict=True))

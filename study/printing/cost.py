"""https://arxiv.org/abs/1512.03385, table 1: what ``fmm-study cost`` prints, one cell layer by layer, the others in total."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from torch import nn

from study.data import dataset_facts
from study.errors import UserError, nearest
from study.models.cost import LayerCost, layer_costs
from study.planning.plan import Cell, Plan
from study.printing.console import say
from study.resources.timing import untrained

_NUMBERS = ("parameters", "FLOPs", "activations")


def print_cost(plan: Plan, name: str, console: Console) -> None:
    """Every layer of the cell called ``name`` (the first where it is empty), and the total of each other cell.

    Numbers are of one image. Raises ``UserError`` for an unknown cell.
    """
    cells = {cell.name: cell for cell in plan.cells}
    name = name or plan.cells[0].name
    if name not in cells:
        raise UserError(f"--cell: unknown cell {name!r}{nearest(name, cells)}")
    model, image_shape = _network(plan, cells[name])
    rows = layer_costs(model, image_shape)
    table = Table("layer", "kind", Column("output", justify="right"), *_right(_NUMBERS), box=None)
    for row in rows:
        shape = "x".join(map(str, row.shape))
        table.add_row(row.name or "(network)", row.kind, shape, *_cost(row.params, row.flops, row.activations))
    table.add_section()
    table.add_row("total", "", "", *_total(rows))
    console.print(f"[bold]{escape(name)}[/bold]")
    console.print(table)
    say(console, "one image; a multiply-add is two FLOPs, of convolutions, linear layers and matrix products alone")
    if others := [cell for cell in plan.cells if cell.name != name]:
        totals = Table("other cells", *_right(_NUMBERS), box=None)
        for cell in others:
            totals.add_row(cell.name, *_total(layer_costs(*_network(plan, cell))))
        console.print(totals)


def _network(plan: Plan, cell: Cell) -> tuple[nn.Module, tuple[int, int, int]]:
    """The cell's network and the shape of its images."""
    config = plan.default_config(cell)
    known = dataset_facts(config.dataset)
    return untrained(config, known), known.image_shape


def _total(rows: Sequence[LayerCost]) -> tuple[str, str, str]:
    params, flops = sum(row.params for row in rows), sum(row.flops for row in rows)
    return _cost(params, flops, sum(row.activations for row in rows))


def _cost(params: int, flops: int, activations: int) -> tuple[str, str, str]:
    return f"{params:,}", f"{flops:,}", f"{activations:,}"


def _right(headings: Sequence[str]) -> list[Column]:
    return [Column(heading, justify="right") for heading in headings]

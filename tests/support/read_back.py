"""A study of every kind of record, written to be read back, and its records as texts that can be compared."""

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
from book import planted, synthetic_spec

from study.results.kept_tables import write_kept
from study.results.ledger import Contents, Ledger
from study.results.provenance import note_session
from study.results.workspace import Workspace


def written(root: Path, name: str) -> tuple[Any, Workspace]:
    """A study of every kind of record, in a real ledger: superseded, retried, measured again, not finite, unmeasured."""
    book = planted(blocks=2)
    key = book.confirm(
        "mul", 14, 0, 0.1 + 0.2, number=7, trial_key="superseding", curves={"val/loss": [1 / 3, math.nan]}
    )
    book.replicate("add", 8, 1, phase="search", number=1, state="failed", reason="its worker\nwas lost")
    for settings in ("few pairs", "many pairs"):
        values = {"kept_apart": 1e-323 if settings == "few pairs" else math.inf, "unknown": math.nan}
        book.measure(
            key, "path", values, converged=settings == "few pairs", seconds=0.1, measure_key=f"{key} {settings}"
        )
    book.measure(key, "noise", {}, error="no such thing")
    workspace = Workspace(root / name)
    for number, trained in enumerate(list(book.contents.replicates.values())):
        if trained["phase"] == "confirm":
            keep_regions(book, workspace.root, trained["trial_key"], number)
    with Ledger(workspace.ledger) as ledger:
        for record in [*book.contents.replicates.values(), *book.contents.measures.values()]:
            ledger.append(record)
        again = dict(ledger.contents.replicates["merge=add,depth=8/search/1/1"])
        ledger.append(again | {"state": "completed", "reason": "", "metrics": {"val/loss": 2 / 3}})
    note_session(workspace.root, ["fake"])
    spec = synthetic_spec(name=name)
    workspace.freeze(spec)
    return spec, workspace


def keep_regions(book: Any, root: Path, key: str, number: int) -> None:
    """What ``decision_regions`` keeps of a network, two planes of four points."""
    book.measure(key, "decision_regions", {"components": 2.0}, measure_key=f"regions{number}")
    grid = {"plane": [0] * 4 + [1] * 4, "row": [0, 0, 1, 1] * 2, "column": [0, 1, 0, 1] * 2}
    corners = {"plane": [0, 0, 0, 1, 1, 1], "corner": [0, 1, 2] * 2, "label": [0, 1, 2] * 2, "x": [0.0, 1.0, 0.5] * 2}
    corners |= {"y": [0.0, 0.0, 1.0] * 2, **{name: [-0.1] * 6 for name in ("x_low", "y_low")}}
    tables = {
        "labels": pa.table({**grid, "label": [0, 1, 1, number % 2] * 2}),
        "corners": pa.table({**corners, **{name: [1.1] * 6 for name in ("x_high", "y_high")}}),
    }
    kept = write_kept(root, key, f"regions{number}", tables)
    book.contents.measures[f"regions{number}"]["kept"] = kept


def texts(contents: Contents) -> list[dict[str, str]]:
    """By repr, which tells floats apart to the last bit and finds NaN equal to itself."""
    return [{key: repr(r) for key, r in held.items()} for held in (contents.replicates, contents.measures)]

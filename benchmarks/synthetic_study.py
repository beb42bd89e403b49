"""A finished study of any size that was never trained: the preset ``digits`` with as many blocks as it takes.

Keys, seeds, suggestions and winners are the plan's, so that the audit finds nothing; numbers are drawn around planted effects.
The ledger is written by its own encoder, without a wait for the disk after each record.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces import Spec, load_spec
from search_spaces.trials import Measure
from study.planning import search
from study.planning.layout import Plan
from study.planning.plan import make_plan
from study.results.ledger import SEGMENT_RECORDS, encode
from study.schema import EstimateRecord, MeasureRecord, Record, ReplicateRecord, State
from study.smoothness import statistic_key

_ESTIMATES = {
    "input_jacobian": ("jacobian_unit_logits_mean_log", "jacobian_unit_logits_mean", "jacobian_probabilities_mean_log"),
    "noise_stability": tuple(f"noise_{sigma}_{kind}" for sigma in (4, 16, 64) for kind in ("l1", "l1_tempered", "flips")),
    "path": tuple(
        f"path_{pairs}_{name}"
        for pairs in ("different", "same")
        for name in ("excess_variation_log", "excess_variation_probabilities", "second_difference", "length_ratio")
    ),
    "attention_importance": ("attention_importance_ratio_zero", "attention_importance_spearman_zero"),
}  # fmt: skip
_SHIFT = {"mul": -0.02, "sig_bn": -0.01}
_REPLICATE_SECONDS, _MEASURE_SECONDS = 2.0, 0.5


def make_study(rows: int) -> Spec:
    """The specification with about ``rows`` replicates; every search trial is a Sobol point, so that it is quickly made."""
    cells, trials = 14, 4
    blocks = max(2, round(rows / (cells * (trials + 1))))
    changes = [f"blocks={blocks}", f"budget.startup_trials={trials}", "budget.shortened=[]", "checkpoints=none"]
    spec = load_spec("digits", changes)
    # what needs a network's own tables is left out
    kept = {name: settings for name, settings in spec.measure.statistics.items() if name in _ESTIMATES}
    return spec.model_copy(update={"measure": Measure(statistics=kept)})


def write_study(spec: Spec, root: Path) -> None:
    """Write ``spec``'s folder with a ledger as a finished run leaves it."""
    plan = make_plan(spec)
    root.mkdir(parents=True)
    (root / "study.json").write_text(spec.model_dump_json())
    ledger = root / "ledger"
    ledger.mkdir()
    lines: list[bytes] = []
    segment = 0
    for record in _records(plan):
        lines.append(encode(record))
        if len(lines) == SEGMENT_RECORDS:
            segment += 1
            (ledger / f"{segment:06d}.jsonl").write_bytes(b"".join(lines))
            lines = []
    (ledger / f"{segment + 1:06d}.jsonl").write_bytes(b"".join(lines))


def _records(plan: Plan) -> Iterator[Record]:
    spec, draw = plan.spec, np.random.default_rng(0)
    for block in range(spec.blocks):
        common = draw.normal(0, 0.01)
        for cell in plan.cells:
            history: list[ReplicateRecord] = []
            quality = common + _SHIFT.get(str(cell.settings["merge"]), 0.0)
            for number in range(spec.budget.search_trials):
                suggested = search.suggest(spec, {cell.name: cell.settings}, block, history)
                assert suggested is not None
                config = plan.search_config(cell, block, suggested[1], ())
                history.append(_replicate(config, cell.name, "search", block, number, quality, draw))
                yield history[-1]
            values, defaulted = search.winner(spec, history)
            config = plan.confirm_config(cell, block, block, values)
            last = _replicate(config, cell.name, "confirm", block, len(history), quality, draw)
            last |= {"boundary": list(search.at_boundary(spec, values)), "defaulted": defaulted}
            yield last
            for statistic, settings in spec.measure.statistics.items():
                yield _measure(last["trial_key"], statistic, dict(settings), quality, draw)


def _replicate(
    config: Any, cell: str, phase: Any, block: int, number: int, quality: float, draw: np.random.Generator
) -> ReplicateRecord:
    epochs = config.epochs
    loss = np.exp(-np.linspace(0.2, 2.5, epochs) - quality + draw.normal(0, 0.05, epochs)).tolist()
    accuracy = np.clip(1 - 0.2 * np.asarray(loss), 0, 1).tolist()
    final = {"accuracy": accuracy[-1], "loss": loss[-1]}
    splits = ("train", "val", "test") if phase == "confirm" else ("train", "val")
    metrics = {
        f"{split}/{name}{suffix}": value
        for split in splits
        for name, value in final.items()
        for suffix in ("", "_best")
    }
    state: State = "completed" if phase == "search" or draw.random() > 0.001 else "collapsed"
    return {
        "kind": "replicate", "trial_key": config.trial_key, "cell": cell, "phase": phase, "block": block, "replicate": block,
        "number": number, "config": config.as_dict(), "state": state, "reason": "", "boundary": [], "defaulted": False,
        "metrics": metrics, "curves": {"train/loss": loss, "val/loss": loss, "val/accuracy": accuracy}, "epochs": epochs,
        "params": 20_000, "flops": 1_000_000, "train_seconds": _REPLICATE_SECONDS, "resumed_from": 0,
    }  # fmt: skip


def _measure(
    trial_key: str, statistic: str, settings: dict[str, Any], quality: float, draw: np.random.Generator
) -> MeasureRecord:
    estimates: dict[str, EstimateRecord] = {
        name: {
            "value": math.exp(draw.normal(quality, 0.1)),
            "stderr": 0.01,
            "num_samples": 256,
            "converged": bool(draw.random() > 0.01),
        }
        for name in _ESTIMATES[statistic]
    }
    return {
        "kind": "measure",
        "trial_key": trial_key,
        "measure_key": statistic_key(trial_key, statistic, settings),
        "statistic": statistic,
        "estimates": estimates,
        "measure_seconds": _MEASURE_SECONDS,
        "error": "",
    }

"""A study as MLflow shows it as a whole: a run for each cell, whose numbers are those of its completed networks."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.inputs import Inputs
from study.results.ledger import Contents
from study.tracking.runs import DIGEST, run_key
from study.tracking.summaries import cell_runs, summarise

CLAIM = {
    "text": "mul is better",
    "arm": {"merge": "mul"},
    "references": [{"merge": "add"}],
    "outcomes": [{"name": "test/accuracy", "margin": 0.01, "better": "higher"}],
}
NUISANCE = {"lr": {"low": 0.01, "high": 1.0, "log": True, "default": 0.1}, "momentum": {"choices": [0.9, 0.0]}}
ACCURACIES = (0.75, 0.8, 0.95)


@pytest.fixture
def inputs_of(spec_of, config_of, record_of, measured_of):
    """Two cells of four networks: three completed, one collapsed; one estimate did not converge. ``changes``: of all."""

    def make(**changes):
        contents, spec = Contents(), spec_of(title="A small study", claims={"C4": CLAIM}, blocks=4, nuisance=NUISANCE)
        for merge in ("add", "mul"):
            for block in range(4):
                completed = block < len(ACCURACIES)
                config = config_of(
                    merge=merge,
                    lr=(0.1, 0.4, 0.2, 0.8)[block],
                    momentum=0.9 * (block > 0),
                    seed=block,
                    split_seed=10 + block,
                )
                curves = {"val/loss": [3.0 + block, math.inf if block == 1 else 1.0 + block]}
                record = record_of(
                    config, cell=f"fake/d8/{merge}", phase="confirm", block=block, replicate=block, curves=curves,
                    state="completed" if completed else "collapsed", train_seconds=2.0,
                    metrics={"test/accuracy": ACCURACIES[block] if completed else 0.1}, **changes,
                )  # fmt: skip
                contents.add(record)
                measure = measured_of(record["trial_key"], f"{merge}{block}")
                estimate = {"value": float(block), "stderr": 0.5, "num_samples": 8, "converged": block != 2}
                measure["estimates"] = {"roughness": estimate}
                contents.add(measure)
        contents.add(record_of(config_of(seed=99), cell="fake/d8/add"))
        return Inputs(spec=spec, contents=contents, chance={"fake": 0.1})

    return make


def test_means_and_intervals_of_a_cell(inputs_of):
    add, mul = cell_runs(inputs_of())
    assert (add.name, mul.name) == ("d8/add", "d8/mul") and mul.seconds == 8.0
    assert add.tags["phase"] == "summary" and mul.tags["cell"] == "fake/d8/mul"
    assert [run.tags["order"] for run in (add, mul)] == ["000", "001"]
    assert list(mul.metrics)[:3] == ["test/accuracy", "test/accuracy low", "test/accuracy high"]
    limits = stats.t.interval(0.95, 2, np.mean(ACCURACIES), stats.sem(ACCURACIES))
    assert [mul.metrics[f"test/accuracy{end}"] for end in ("", " low", " high")] == pytest.approx(
        [np.mean(ACCURACIES), *limits], abs=1e-12
    )
    # of two that converged
    assert mul.metrics["roughness"] == 0.5 and mul.metrics["roughness high"] == pytest.approx(
        stats.t.interval(0.95, 1, 0.5, stats.sem([0.0, 1.0]))[1]
    )
    counted = {name: mul.metrics[name] for name in ("num_replicates", "num_completed", "num_collapsed", "num_failed")}
    assert counted == {"num_replicates": 4, "num_completed": 3, "num_collapsed": 1, "num_failed": 0}
    # a network whose loss is not finite there counts where it is
    assert mul.curves["epoch/val_loss"] == [(1, 4.0), (2, 2.0)]


def test_what_tuning_chose(inputs_of):
    _, mul = cell_runs(inputs_of())
    assert mul.params["lr"] == "0.3 (0.1 to 0.8)" and mul.metrics["tuned/lr"] == pytest.approx(0.3)
    # of choices none lies between
    assert mul.params["momentum"] == "0.9 3, 0.0 1" and "tuned/momentum" not in mul.metrics
    assert mul.params["merge"] == "mul" and mul.params["width"] == "4"
    assert not {"seed", "split_seed"} & set(mul.params)


def test_a_digest_tells_other_results(inputs_of):
    first, again = cell_runs(inputs_of()), cell_runs(inputs_of(resumed_from=1))
    assert [run.tags[DIGEST] for run in first] == [run.tags[DIGEST] for run in again]
    inputs = inputs_of()
    next(iter(inputs.contents.replicates.values()))["metrics"]["test/accuracy"] = 0.76
    changed = cell_runs(inputs)
    assert changed[0].tags[DIGEST] != first[0].tags[DIGEST] and changed[1].tags[DIGEST] == first[1].tags[DIGEST]
    assert {run_key(run.tags) for run in first} == {"summary of fake/d8/add", "summary of fake/d8/mul"}


def test_the_description_says_the_verdicts(inputs_of):
    inputs = inputs_of()
    found = summarise(inputs)
    (finding,) = inputs.findings
    first, empty, line = found.description.split("\n")
    assert first == f"A small study: C4 {finding.verdict}" and not empty
    assert line == f"- **C4, {finding.verdict}: mul is better.** {finding.sentence}"
    assert "effect/C4 mul-add test accuracy" in found.headlines
    bare = Inputs(spec=inputs.spec.model_copy(update={"claims": {}}), contents=inputs.contents, chance=inputs.chance)
    assert summarise(bare).description == "A small study"

"""A small synthetic study for tests of the analysis: a specification and records with planted numbers."""

from analysis.effects.table import effects_table
from analysis.inputs import Inputs
from analysis.trials.grid import confirm_grid
from analysis.trials.table import trials_table
from search_spaces.load import parse_spec
from study.results.ledger import Contents

JACOBIAN = "jacobian_unit_logits_mean_log"
EXCESS = "path_different_excess_variation"
PROVENANCE = {"git commit": "abc<1>", "versions": {"torch": "2.15"}, "specification": "name: synthetic # <a>\n"}


SPEC = f"""
name: synthetic
factors:
  merge: [add, add_alias, mul]
  depth: [8, 14]
fixed: {{dataset: digits, epochs: 6}}
nuisance:
  lr: {{low: 0.01, high: 1.0, log: true, default: 0.1}}
  optimiser: {{choices: [sgd, adam]}}
blocks: 8
budget: {{search_trials: 2, startup_trials: 1}}
measure: {{statistics: {{path: {{}}, input_jacobian: {{}}}}}}
control: {{arm: {{merge: add_alias}}, reference: {{merge: add}}}}
claims:
  C3:
    text: smoother
    arm: {{merge: mul}}
    references: [{{merge: add}}]
    outcomes: [{{name: {JACOBIAN}, margin: 0.1, better: lower}}]
  C4:
    text: better
    arm: {{merge: mul}}
    references: [{{merge: add}}]
    outcomes: [{{name: test/accuracy, margin: 0.02}}]
"""


def synthetic_spec(**changes):
    """The spec above with keys of the top level replaced."""
    spec = parse_spec(SPEC, "test")
    return spec.model_validate(spec.model_dump() | changes)


class Book:
    """Writes records of the synthetic study into ``contents``, one cell, phase and replicate at a time."""

    def __init__(self):
        self.contents = Contents()

    def replicate(self, merge="add", depth=8, block=0, **given):
        phase = given.get("phase", "confirm")
        number = given.get("number", 1 if phase == "confirm" else 0)
        cell = f"merge={merge},depth={depth}"
        key = given.get("trial_key", f"{cell}/{phase}/{block}/{number}")
        config = {"dataset": "digits", "depth": depth, "merge": merge, "seed": 1000 + block, "network": "cifar_resnet"}
        config |= {"width": 8, "merge_site": "skip", "attention": "none", "attention_form": "none", "epochs": 6}
        config |= {"lr": 0.1, "optimiser": "sgd"} | given.get("config", {})
        record = {
            "kind": "replicate", "trial_key": key, "cell": cell, "phase": phase, "block": block, "replicate": block,
            "number": number, "config": config, "state": given.get("state", "completed"), "reason": given.get("reason", ""),
            "boundary": given.get("boundary", []), "defaulted": False, "metrics": given.get("metrics", {}),
            "curves": given.get("curves", {}), "epochs": given.get("epochs", 6), "params": 100, "flops": 1000,
            "train_seconds": 1.5, "resumed_from": 0,
        }  # fmt: skip
        self.contents.add(record)
        return key

    def confirm(self, merge, depth, block, accuracy, state="completed", estimates=(), **given):
        key = self.replicate(merge, depth, block, state=state, metrics={"test/accuracy": accuracy}, **given)
        if estimates:
            self.measure(key, "input_jacobian", dict(estimates))
        return key

    def measure(self, key, statistic, values, converged=True, seconds=0.25, error="", measure_key=None):
        estimates = {
            name: {"value": value, "stderr": 0.01, "num_samples": 256, "converged": converged}
            for name, value in values.items()
        }
        record = {"kind": "measure", "trial_key": key, "measure_key": measure_key or f"{key}/{statistic}"}
        record |= {"statistic": statistic, "estimates": estimates, "measure_seconds": seconds, "error": error}
        self.contents.add(record)


def planted(blocks=8, skip=()):
    """``add`` at .90 + block/1000 everywhere, ``add_alias`` alike but for +-.001, ``mul`` +.01 r at 8 and -.01 at 14."""
    book = Book()
    for block in range(blocks):
        base = 0.90 + block / 1000
        for depth in (8, 14):
            shift = 0.01 * (block + 1) if depth == 8 else -0.01
            for merge, accuracy, jacobian in (
                ("add", base, 1.0 + block / 10),
                ("add_alias", base + (0.001 if block % 2 else -0.001), 1.0 + block / 10),
                ("mul", base + shift, 0.5 + block / 10 + (0.1 if depth == 14 else 0.0)),
            ):
                if (merge, depth, block) not in skip:
                    book.confirm(merge, depth, block, accuracy, estimates={JACOBIAN: jacobian, EXCESS: jacobian})
    return book


def full(blocks=8):
    """The planted study with learning curves, one collapsed network and one that diverged."""
    book = planted(blocks, skip=[("mul", 14, 0), ("mul", 14, 1)])
    book.confirm("mul", 14, 0, 0.3, state="collapsed", estimates={JACOBIAN: -5.0})
    book.replicate("mul", 14, 1, state="diverged")
    for record in book.contents.replicates.values():
        record["curves"] = {"val/accuracy": [0.5, 0.7, 0.9 + record["block"] / 100], "val/loss": [3.0, 2.0, 1.0]}
        record["boundary"] = ["lr"] if record["block"] == 0 else []
    return book


def collapsed():
    book = Book()
    for merge in ("add", "add_alias", "mul"):
        for block in range(8):
            book.confirm(merge, 8, block, 0.1, state="collapsed", estimates={JACOBIAN: 0.0})
    return book


def inputs_of(book, **changes):
    return Inputs(spec=synthetic_spec(**changes), contents=book.contents, chance={"digits": 0.1})


def effects_of(book, spec=None, chance=None):
    spec = spec or synthetic_spec()
    return effects_table(confirm_grid(spec, trials_table(spec, book.contents), chance))


def find(effects, **wanted):
    """The only row with these values."""
    rows = [row for row in effects.to_pylist() if all(row[name] == value for name, value in wanted.items())]
    assert len(rows) == 1, f"{len(rows)} rows for {wanted}"
    return rows[0]


def mul(effects, stratum="all", outcome="test/accuracy"):
    return find(effects, arm="merge=mul", stratum=stratum, outcome=outcome)

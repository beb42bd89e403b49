"""What is measured of a replicate beside its estimates: tables, single values, in mid-training, shortened, image by image."""

import base64
import dataclasses
import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from analysis.inputs import Inputs
from analysis.tables.kept import kept_tables
from search_spaces import SpecError, parse_spec
from study.checks.audit import audit
from study.config import TrialConfig, measure_key
from study.data import load_dataset, split
from study.errors import UserError
from study.models import build_network
from study.planning.agenda import Agenda
from study.planning.plan import make_plan
from study.registry import MERGES, STATISTICS, revised_parts
from study.results.files import kept_path
from study.results.ledger import Contents
from study.results.revisions import num_outdated, up_to_date
from study.results.workspace import Workspace
from study.schema import TRAINED
from study.smoothness import MeasureContext, measure, parse_settings, reestimated_batchnorm, statistic_key
from study.training import Progress, load_checkpoint
from study.worker.group import discard_outcome, run_group

CHOSEN = {"input_jacobian": {"num_samples": 8}, "path": {"num_pairs": 6, "num_steps": 4}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureSettings:
    num_points: int = 3


@pytest.fixture(scope="module", autouse=True)
def picture():
    """A statistic that keeps a table beside its estimate."""

    @STATISTICS.register("a_picture", formula="", source="", settings=PictureSettings, names=lambda s: ["a_picture"])
    def a_picture(settings, context):
        grid = torch.linspace(0, 1, settings.num_points)
        context.keep("grid", {"x": grid, "label": torch.arange(settings.num_points, dtype=torch.uint8)})
        return {}


@pytest.fixture(scope="module")
def study(spec_of, tmp_path_factory):
    """A small study run whole in this process: plan, ledger's contents, folder."""
    spec = spec_of(
        fixed={"dataset": "fake", "depth": 8, "width": 4, "epochs": 4, "batch_size": 16},
        budget={"search_trials": 1, "startup_trials": 1, "shortened": [0.25, 0.5]},
        measure={
            "statistics": CHOSEN,
            "landscapes": {"a_picture": {}},
            "keep_samples": ["path"],
            "during": {"every": 3, "statistics": {"input_jacobian": {"num_samples": 8}}},
        },
    )
    plan, contents, root = make_plan(spec), Contents(), tmp_path_factory.mktemp("measured")
    agenda = Agenda(plan, contents)
    while (group := agenda.next_group()) is not None:
        for event in run_group(group, root):
            for record in [] if isinstance(event, Progress) else json.loads(json.dumps(event)):
                contents.add(record)
        agenda.group_ended(group)
    assert agenda.done
    return plan, contents, root


def replicates(contents, phase):
    return [record for record in contents.replicates.values() if record["phase"] == phase]


def test_every_winner_is_trained_shortened_too(study):
    plan, contents, _ = study
    assert plan.num_trainings == len(contents.replicates) == 2 * 2 * (1 + 1 + 2)
    confirmed = {(r["cell"], r["block"]): r["config"] for r in replicates(contents, "confirm")}
    short = replicates(contents, "short")
    assert sorted(r["config"]["epochs"] for r in short) == [1] * 4 + [2] * 4
    for record in short:
        whole = confirmed[record["cell"], record["block"]]
        assert record["config"] == whole | {"epochs": record["config"]["epochs"]}
        assert len(record["curves"]["val/loss"]) == record["config"]["epochs"] and "test/accuracy" in record["metrics"]
        assert record["trajectory"] == []
    for record in replicates(contents, "confirm") + short:
        measured = {m["statistic"] for m in contents.measures.values() if m["trial_key"] == record["trial_key"]}
        pictured = record["phase"] == "confirm" and record["replicate"] == 0
        assert measured == set(CHOSEN) | ({"a_picture"} if pictured else set())


def test_a_measurement_in_mid_training_is_the_statistic_on_validation_images(study):
    _, contents, root = study
    record = replicates(contents, "confirm")[0]
    assert [point["epoch"] for point in record["trajectory"]] == [3, 4]
    last = record["trajectory"][-1]["estimates"]
    dataset, seed = load_dataset("fake"), record["config"]["split_seed"]
    parts = split(dataset, seed)
    config = TrialConfig.from_mapping(record["config"])
    model = build_network(config, num_classes=4, mean=dataset.mean, deviation=dataset.deviation)
    model.load_state_dict(load_checkpoint(root / "checkpoints" / record["trial_key"] / "final.pt")["model"])
    with reestimated_batchnorm(model, parts.train.pixels(), config.batch_size):
        context = MeasureContext.calibrated(
            model=model, images={"val": parts.val.pixels()}, labels={"val": parts.val.labels}, num_classes=4,
            seed=config.seed,
        )  # fmt: skip
        wanted = measure(
            "input_jacobian", parse_settings("input_jacobian", {"num_samples": 8, "split": "val"}), context
        )
    assert last == {name: dict(e.as_record()) for name, e in wanted.items()}
    assert record["trajectory"][0]["estimates"] != last


def test_test_images_are_kept_one_by_one(study):
    _, contents, _ = study
    for record in replicates(contents, "confirm"):
        bits = np.unpackbits(np.frombuffer(base64.b64decode(record["test_correct"]), np.uint8))[: record["num_test"]]
        assert len(bits) == record["num_test"] > 0 and bits.mean() == pytest.approx(record["metrics"]["test/accuracy"])
    assert all(record["num_test"] == 0 for record in replicates(contents, "search"))


def test_tables_and_single_values_are_kept_and_read_again(study):
    plan, contents, root = study
    inputs = Inputs(spec=plan.spec, contents=contents, folder=root)
    pictures = list(kept_tables(inputs, "a_picture", "grid"))
    held = [r for r in replicates(contents, "confirm") if r["replicate"] == 0 and r["state"] == "completed"]
    assert [row["cell"] for row, _ in pictures] == [record["cell"] for record in held]
    for _, table in pictures:
        assert table.to_pydict() == {"x": [0.0, 0.5, 1.0], "label": [0, 1, 2]}
    for measured in contents.measures.values():
        if measured["statistic"] != "path":
            continue
        assert measured["kept"] == ["samples"]
        table = pq.read_table(kept_path(root, measured["trial_key"], measured["measure_key"], "samples"))
        values = {}
        for row in table.to_pylist():
            values.setdefault(row["estimate"], []).append(row["value"])
        gap = measured["estimates"]["path_same_linear_gap"]
        assert len(values["path_same_linear_gap"]) == gap["num_samples"] == 6
        assert np.mean(values["path_same_linear_gap"]) == pytest.approx(gap["value"])
        log = measured["estimates"]["path_different_excess_variation_log"]
        assert math.log(np.mean(values["path_different_excess_variation_log"])) == pytest.approx(log["value"])
    assert not list(root.rglob("measurements/*/.*"))
    assert list(kept_tables(dataclasses.replace(inputs, folder=None), "a_picture", "grid")) == []


def test_an_audit_misses_a_table_that_is_gone(study, tmp_path):
    plan, contents, root = study
    for key in contents.replicates:
        discard_outcome(root, key)  # as a driver does
    assert list(audit(plan, contents, Workspace(root))) == []
    measured = next(m for m in contents.measures.values() if m["statistic"] == "a_picture")
    path = kept_path(root, measured["trial_key"], measured["measure_key"], "grid")
    aside = path.rename(tmp_path / "aside")
    assert [line for line in audit(plan, contents, Workspace(root)) if path.name in line and "missing" in line]
    aside.rename(path)


def test_a_changed_statistic_and_wanted_samples_are_measured_anew(study, monkeypatch):
    plan, contents, _ = study
    assert statistic_key("t", "input_jacobian", {}) == measure_key("t", "input_jacobian", {})
    assert statistic_key("t", "input_jacobian", {}, samples=True) != statistic_key("t", "input_jacobian", {})
    entry = STATISTICS["input_jacobian"]
    monkeypatch.setitem(
        STATISTICS._entries, "input_jacobian", dataclasses.replace(entry, traits={**entry.traits, "revision": 2})
    )
    agenda = Agenda(plan, contents)
    tasks = []
    while (group := agenda.next_group()) is not None:
        tasks += group
    assert {name for task in tasks for name in task.statistics} == {"input_jacobian"}
    assert all(task.config.trial_key in contents.replicates for task in tasks)  # nothing is trained again


def test_a_part_of_a_higher_revision_is_measured_anew_and_what_cannot_be_is_shown_nowhere(study, monkeypatch):
    """As of the additive form's first revision: ``mul`` stands for it here, ``add`` for a part that is as it was."""
    plan, contents, _ = study
    assert statistic_key("t", "path", {}, parts={"attention_form": 2}) != statistic_key("t", "path", {})
    assert revised_parts({"merge": "add", "attention": "se", "attention_form": "add"}) == {"attention_form": 2}
    before = dict(Inputs(spec=plan.spec, contents=up_to_date(contents)).trials.to_pydict())
    entry = MERGES["mul"]
    monkeypatch.setitem(MERGES._entries, "mul", dataclasses.replace(entry, traits={**entry.traits, "revision": 2}))
    tasks, agenda = [], Agenda(plan, contents)
    while (group := agenda.next_group()) is not None:
        tasks += group
    revised = [r for r in contents.replicates.values() if r["config"]["merge"] == "mul"]
    measured = [r["trial_key"] for r in revised if r["phase"] != "search" and r["state"] in TRAINED]
    assert tasks and {task.config.trial_key for task in tasks} <= set(measured)  # shortened ones follow
    after = dict(Inputs(spec=plan.spec, contents=up_to_date(contents)).trials.to_pydict())
    assert num_outdated(contents) == len(measured)
    for row, merge in enumerate(before["merge"]):
        for column, values in before.items():
            outdated = merge == "mul" and ("_bn_reestimated" in column or f"{column}_converged" in before)
            assert (
                outdated or column.endswith(("_stderr", "_converged", "seconds")) or after[column][row] == values[row]
            )
            assert not outdated or after[column][row] is None, column


def test_columns_that_are_no_table_are_refused():
    context = MeasureContext(
        model=torch.nn.Identity(),
        images={},
        labels={},
        num_classes=2,
        temperature=1.0,
        temperature_converged=True,
        seed=0,
    )
    with pytest.raises(ValueError, match="table 'grid'"):
        context.keep("grid", {"x": torch.zeros(2), "y": torch.zeros(3)})


def text(measure="{}", budget="{search_trials: 0, startup_trials: 0}"):
    return (
        "name: s\nfactors: {merge: [add]}\nfixed: {dataset: fake, depth: 8, epochs: 4}\nblocks: 2\n"
        f"budget: {budget}\nmeasure: {measure}\n"
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("{statistics: {path: {}}, landscapes: {path: {}}}", "'path' stands under both statistics and landscapes"),
        ("{statistics: {path: {}}, keep_samples: [paths]}", "keep_samples names 'paths'"),
        ("{during: {every: 0, statistics: {path: {}}}}", "measure.during.every"),
        ("{during: {every: 1, statistics: {}}}", "measure.during.statistics"),
        ("{landscape: {}}", "unknown key 'measure.landscape' = {} (did you mean 'landscapes'?)"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_key(given, told):
    with pytest.raises(SpecError) as caught:
        parse_spec(text(given), "s.yaml")
    assert told in str(caught.value)


@pytest.mark.parametrize(("shares", "epochs"), [("0.5, 0.55", [2]), ("0.95, 0.25", [1]), ("0.99", [])])
def test_shares_of_few_epochs_that_are_as_many_are_one(shares, epochs):
    plan = make_plan(
        parse_spec(text(budget=f"{{search_trials: 0, startup_trials: 0, shortened: [{shares}]}}"), "s.yaml")
    )
    assert plan.short_epochs(plan.cells[0]) == epochs and plan.num_short == 2 * len(epochs)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"measure": "{during: {every: 1, statistics: {path: {split: test}}}}"}, "split 'test' is not read while"),
        ({"measure": "{landscapes: {paht: {}}}"}, "unknown statistic 'paht' (did you mean 'path'?)"),
    ],
)
def test_what_no_plan_can_hold_is_refused(given, told):
    with pytest.raises(UserError) as caught:
        make_plan(parse_spec(text(**given), "s.yaml"))
    assert told in str(caught.value)

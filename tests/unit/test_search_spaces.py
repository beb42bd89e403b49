"""Specifications: presets, overrides, and one clear line for everything that cannot be."""

import copy

import pytest
import yaml

from search_spaces import Spec, SpecError, load_spec, parse_spec
from study.errors import UserError
from study.planning.plan import make_plan

SMALL = """
name: small
factors: {merge: [add, mul]}
fixed: {dataset: fake, depth: 8, width: 4, epochs: 2, batch_size: 16}
nuisance:
  lr: {low: 0.01, high: 1.0, log: true, default: 0.1}
  momentum: {choices: [0.9, 0.8]}
blocks: 2
budget: {search_trials: 4, startup_trials: 2}
"""


def fault(text, overrides=()) -> str:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "here", overrides)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


def changed(**changes) -> str:
    return yaml.safe_dump(yaml.safe_load(SMALL) | changes)


def test_the_small_specification_is_good():
    spec = parse_spec(SMALL, "here")
    assert isinstance(spec, Spec) and list(spec.cells()) == [{"merge": "add"}, {"merge": "mul"}]
    assert spec.nuisance["lr"].default == 0.1 and spec.nuisance["momentum"].default == 0.9
    assert (spec.seed, spec.replicates, spec.sampler.name, spec.scheduler.name) == (0, 1, "tpe", "none")


def test_the_digits_preset_is_the_study_it_says():
    spec = load_spec("digits")
    plan = make_plan(spec)
    assert (len(plan.cells), spec.blocks, plan.num_search, plan.num_confirm) == (13, 12, 468, 156)
    assert spec.demonstration and spec.name == "digits" and spec.replicates == 1
    names = [cell.name for cell in plan.cells]
    assert len(set(names)) == 13 and {"digits/d8/add", "digits/d14/mul", "digits/d8/add/se.mul"} <= set(names)
    assert {cell.settings["merge"] for cell in plan.cells} == {
        "add",
        "add_alias",
        "mul",
        "authors_8",
        "authors_14",
        "authors_46",
    }
    assert spec.control.arm == {"merge": "add_alias"} and spec.control.reference == {"merge": "add"}
    assert set(spec.all_claims) == {"C1", "C2", "C3", "C4", "C5", "C6"}
    assert all(
        cell.settings["epochs"] == spec.fixed["epochs"] and cell.settings["dataset"] == "digits" for cell in plan.cells
    )


def test_a_file_is_read_by_its_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(SMALL)
    assert load_spec(str(path)) == parse_spec(SMALL, "here")
    (tmp_path / "no_suffix").write_text(SMALL)
    assert load_spec(str(tmp_path / "no_suffix")) == parse_spec(SMALL, "here")


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    (tmp_path / "folder.yaml").mkdir()
    told = {name: f"cannot read .*{name}" for name in ("absent.yaml", "binary.yaml")}
    for name, match in {**told, "folder.yaml": r"folder.yaml' is a folder; give a preset or a path to a .yaml"}.items():
        with pytest.raises(SpecError, match=match):
            load_spec(str(tmp_path / name))


def test_an_unknown_preset_is_answered_with_the_nearest():
    with pytest.raises(SpecError, match=r"unknown preset 'digit' .did you mean 'digits'.*a path to a .yaml file"):
        load_spec("digit")
    with pytest.raises(SpecError, match=r"unknown preset 'qqqq' \(known: .*digits"):
        load_spec("qqqq")


def test_yaml_that_would_run_code_is_refused(tmp_path):
    marker = tmp_path / "ran"
    text = SMALL + f"title: !!python/object/apply:os.mkdir ['{marker}']\n"
    assert "python/object/apply:os.mkdir" in fault(text) and not marker.exists()
    yaml.load(text, Loader=yaml.UnsafeLoader)  # the check can fail: this is what would have run
    assert marker.exists()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["here", "empty", "mapping"]),
        ("# only a comment\n", ["here", "empty"]),
        ("- a\n- b\n", ["here", "mapping", "list"]),
        ("just words", ["here", "mapping", "str"]),
        ("name: [unclosed\nblocks: 2\n", ["here line 2"]),
        ("name: a\n\tblocks: 2\n", ["here line 2", "cannot start any token"]),
        ("name: {a: b\n", ["here line"]),
        ("name: *nothing\n", ["here line 1", "undefined alias"]),
        ("name: a\ntitle: 2021-13-45\n", ["here", "not valid YAML", "month"]),
        ("name: a\x00b\n", ["here"]),
        ("[" * 100_000, ["here"]),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_mapping_is_refused(text, parts):
    message = fault(text)
    assert all(part in message for part in parts), message


LR = {"low": 0.01, "high": 1.0, "log": True, "default": 0.1}
CLAIM = {
    "text": "t",
    "arm": {"merge": "mul"},
    "references": [{"merge": "add"}],
    "outcomes": [{"name": "x", "margin": 1}],
}
BAD = [
    # unknown keys, on every level
    ({"bugdet": 1}, ["unknown key 'bugdet' = 1", "did you mean 'budget'"]),
    ({"budget": {"search_trails": 1, "startup_trials": 0}}, ["'budget.search_trails' = 1", "did you mean 'search_trials'"]),
    ({"nuisance": {"lr": {"low": 0.1, "hihg": 1, "default": 0.5}}}, ["'nuisance.lr.hihg' = 1", "did you mean 'high'"]),
    ({"nuisance": {"lr": {"choises": [1]}}}, ["'nuisance.lr.choises' = [1]", "did you mean 'choices'"]),
    ({"nuisance": {"lr": {"choices": [1.0], "logg": True}}}, ["'nuisance.lr.logg' = True", "did you mean 'log'"]),
    ({"resources": {"cpu": 1}}, ["'resources.cpu' = 1", "did you mean 'cpus'"]),
    ({"measure": {"statistic": {}}}, ["'measure.statistic'", "did you mean 'statistics'"]),
    ({"sampler": {"name": "tpe", "setting": {}}}, ["'sampler.setting'", "did you mean 'settings'"]),
    ({"claims": {"C2": CLAIM | {"refs": []}}}, ["'claims.C2.refs' = []", "did you mean 'references'"]),
    ({"claims": {"C2": CLAIM | {"outcomes": [{"name": "x", "magrin": 1}]}}}, ["'claims.C2.outcomes.0.magrin'", "'margin'"]),
    # factors
    ({"factors": {"merge": []}}, ["factors", "'merge' has no levels"]),
    ({"factors": {}}, ["factors", "at least 1"]),
    ({"factors": []}, ["factors", "at least 1"]),
    ({"factors": {"merge": ["add", "add"]}}, ["'merge'", "twice", "['add', 'add']"]),
    ({"factors": {"merge": "add"}}, ["factors.0.merge", "list", "'add'"]),
    ({"factors": {"merge": ["add"], "width": [4]}}, ["'width'", "factors", "fixed"]),
    # numbers
    ({"blocks": 0}, ["blocks", "greater than or equal to 1", "got 0"]),
    ({"blocks": "many"}, ["blocks", "integer", "'many'"]),
    ({"blocks": 2.5}, ["blocks", "integer", "2.5"]),
    ({"replicates": 0}, ["replicates", "got 0"]),
    ({"replicates": 3}, ["replicates=3", "blocks=2"]),
    ({"seed": -1}, ["seed", "got -1"]),
    ({"alpha": 0.7}, ["alpha", "0.7"]),
    ({"resources": {"gpus": 1.5}}, ["resources.gpus", "1.5"]),
    ({"resources": {"gpus": 4}}, ["resources", "gpus=4 with data_parallel=1"]),
    ({"resources": {"gpus": 0.5, "data_parallel": 2}}, ["resources", "data_parallel=2 with gpus=0.5"]),
    ({"resources": {"group": 2, "data_parallel": 2}}, ["resources", "data_parallel=2 with group=2"]),
    ({"resources": {"group": 0}}, ["resources.group", "got 0"]),
    ({"resources": {"step": ["graph"]}}, ["resources", "'graph' needs a GPU"]),
    ({"resources": {"step": "quick"}}, ["resources.step", "'quick'"]),
    ({"resources": {"step": ["bf61"]}}, ["resources.step", "'bf61'"]),
    ({"nuisance": {"lr": LR | {"low": 2.0}}}, ["nuisance.lr:", "low=2, high=1"]),
    ({"nuisance": {"lr": LR | {"low": 1.0}}}, ["nuisance.lr:", "low < high"]),
    ({"nuisance": {"lr": LR | {"low": 0}}}, ["nuisance.lr:", "log range", "low=0"]),
    ({"nuisance": {"lr": LR | {"low": -1.0}}}, ["nuisance.lr:", "log range", "low=-1"]),
    ({"nuisance": {"lr": LR | {"default": 2.0}}}, ["nuisance.lr:", "default=2", "[0.01, 1]"]),
    ({"nuisance": {"lr": LR | {"high": float("inf")}}}, ["nuisance.lr:", "finite", "high=inf"]),
    ({"nuisance": {"lr": {"low": 0.1, "high": 1}}}, ["nuisance.lr.default", "required"]),
    ({"nuisance": {"lr": {"choices": []}}}, ["nuisance.lr.choices", "at least 1", "[]"]),
    ({"nuisance": {"lr": 0.1}}, ["nuisance.lr:", "got 0.1"]),
    ({"nuisance": {}}, ["search_trials=4", "nuisance is empty"]),
    ({"budget": {"search_trials": 2, "startup_trials": 3}}, ["budget:", "startup_trials=3", "search_trials=2"]),
    ({"budget": {"search_trials": -1, "startup_trials": 0}}, ["budget.search_trials", "-1"]),
    ({"budget": {"search_trials": 2}}, ["budget.startup_trials", "required"]),
    ({"budget": 3}, ["budget", "got 3"]),
    # names
    ({"name": "a/b"}, ["name", "'a/b'"]),
    ({"name": ""}, ["name", "''"]),
    ({"name": None}, ["name", "string", "None"]),
    ({"checkpoints": "all"}, ["checkpoints", "'final', 'best' or 'none'", "'all'"]),
    # comparisons
    ({"contrasts": [{"arm": {"colour": 1}, "reference": {"colour": 2}}]}, ["'colour'", "no factor", "merge"]),
    ({"control": {"arm": {"width": 1}, "reference": {"width": 2}}}, ["'width'", "no factor", "merge"]),
    ({"claims": {"C2": CLAIM | {"arm": {"depth": 8}, "references": [{"depth": 9}]}}}, ["'depth'", "no factor"]),
    ({"contrasts": [{"arm": {"merge": "mul"}, "reference": {"merge": "mul"}}]}, ["contrasts.0", "the same"]),
    ({"contrasts": [{"arm": {"merge": "mul"}, "reference": {"width": 4}}]}, ["contrasts.0", "the same factors"]),
    ({"claims": {"C2": CLAIM | {"references": []}}}, ["claims.C2.references", "at least 1"]),
    ({"claims": {"C2": CLAIM | {"outcomes": [{"name": "x", "margin": 0}]}}}, ["claims.C2.outcomes.0.margin", "got 0"]),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "parts"), BAD, ids=lambda value: str(value)[:60])
def test_a_bad_value_is_told_by_key_and_value(changes, parts):
    message = fault(changed(**changes))
    assert message.startswith("here: ") and "function-after" not in message
    assert all(part in message for part in parts), message


def test_a_missing_key_is_told():
    values = yaml.safe_load(SMALL)
    del values["blocks"]
    assert fault(yaml.safe_dump(values)) == "here: blocks: Field required"


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("blocks=5", ("blocks",), 5),
        ("budget.search_trials=9", ("budget", "search_trials"), 9),
        ("nuisance.lr.high=0.5", ("nuisance", "lr", "high"), 0.5),
        ("title=a = b", ("title",), "a = b"),
        ("factors={merge: [add]}", ("factors",), {"merge": ["add"]}),
        ("fixed.schedule=constant", ("fixed", "schedule"), "constant"),
        ("measure.statistics.path.num_pairs=8", ("measure", "statistics"), {"path": {"num_pairs": 8}}),
    ],
)
def test_an_override_is_as_if_it_were_written(override, path, value):
    values = copy.deepcopy(yaml.safe_load(SMALL))
    inner = values
    for part in path[:-1]:
        inner = inner.setdefault(part, {})
    inner[path[-1]] = value
    assert parse_spec(SMALL, "here", [override]) == Spec.model_validate(values) != parse_spec(SMALL, "here")


def test_later_overrides_win_and_earlier_ones_stay():
    spec = parse_spec(SMALL, "here", ["blocks=3", "seed=4", "blocks=6"])
    assert (spec.blocks, spec.seed) == (6, 4)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("blocks", ["--set 'blocks'", "KEY=VALUE"]),
        ("=3", ["--set '=3'", "KEY=VALUE"]),
        ("", ["--set ''", "KEY=VALUE"]),
        ("blocks.x=3", ["--set 'blocks.x=3'", "'blocks' is no mapping"]),
        ("factors=[", ["--set 'factors=['"]),
        ("bugdet.search_trials=3", ["unknown key 'bugdet'", "did you mean 'budget'"]),
        ("budget.search_trial=3", ["unknown key 'budget.search_trial' = 3", "did you mean 'search_trials'"]),
        ("blocks=", ["blocks", "None"]),
        ("blocks=x", ["blocks", "'x'"]),
    ],
)
def test_a_bad_override_is_told(override, parts):
    message = fault(SMALL, [override])
    assert all(part in message for part in parts), message


FIXED = {"dataset": "fake", "depth": 8, "width": 4, "epochs": 2}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"fixed": FIXED | {"widht": 4}}, ["fixed", "'widht'", "did you mean 'width'"]),
        ({"fixed": FIXED | {"seed": 4}}, ["fixed", "'seed'"]),
        ({"factors": {"mege": ["add"]}}, ["factors", "'mege'", "did you mean 'merge'"]),
        ({"nuisance": {"lrr": LR}}, ["nuisance", "'lrr'", "did you mean 'lr'"]),
        ({"factors": {"merge": ["add", "mull"]}}, ["unknown merge 'mull'", "did you mean 'mul'"]),
        ({"fixed": FIXED | {"attention": "sse"}}, ["unknown attention 'sse'", "did you mean 'se'"]),
        ({"fixed": FIXED | {"dataset": "digit"}}, ["unknown dataset 'digit'", "did you mean 'digits'"]),
        ({"fixed": FIXED | {"network": "resnet"}}, ["unknown network 'resnet'", "'cifar_resnet'"]),
        ({"fixed": FIXED | {"depth": 9}}, ["depth = 9", "6n + 2"]),
        ({"fixed": FIXED | {"depth": "8"}}, ["'depth' = '8'", "expected int"]),
        ({"fixed": FIXED | {"attention": "se"}}, ["attention = 'se'", "attention_form = 'none'"]),
        ({"fixed": {"depth": 8}}, ["missing setting 'dataset'"]),
        ({"resources": {"data_parallel": 3}}, ["resources.data_parallel = 3", "batches of 16 images (fake/d8/add)"]),
        # of the 48 images that are trained on
        ({"fixed": FIXED, "nuisance": {"batch_size": {"choices": [64, 9]}}, "resources": {"data_parallel": 2}}, ["of 9 "]),
        ({"fixed": FIXED | {"batch_size": 70}, "resources": {"data_parallel": 5}}, ["batches of 48 images"]),
        ({"sampler": {"name": "tp"}}, ["unknown sampler 'tp'", "did you mean 'tpe'"]),
        ({"scheduler": {"name": "medain"}}, ["unknown scheduler 'medain'", "did you mean 'median'"]),
        ({"measure": {"statistics": {"paths": {}}}}, ["unknown statistic 'paths'", "did you mean 'path'"]),
        ({"measure": {"statistics": {"path": {"num_pair": 3}}}}, ["'path'", "'num_pair'", "did you mean 'num_pairs'"]),
        ({"factors": [{"merge": ["add"]}, {"merge": ["add"], "attention_form": ["none"]}]}, ["two cells", "'fake/d8/add'"]),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_names_and_levels_are_refused_by_the_plan(changes, parts):
    with pytest.raises(UserError) as caught:
        make_plan(parse_spec(changed(**changes), "here"))
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in parts), message


PLACED = {"factors": {"merge": ["mul"], "merge_where": ["all", "first"]}}


def test_two_places_that_are_one_network_are_refused(spec_of):
    with pytest.raises(
        UserError, match=r"'fake/d8/mul/merge_where=all' and 'fake/d8/mul/merge_where=first'.*same blocks"
    ):
        make_plan(spec_of(**PLACED))
    deeper = {"dataset": "fake", "depth": 14, "width": 4, "epochs": 1}
    assert len(make_plan(spec_of(**PLACED, fixed=deeper)).cells) == 2
    # equal on purpose, and a site that no module's type tells
    assert len(make_plan(spec_of(factors={"merge": ["add", "add_alias"], "merge_where": ["all"]})).cells) == 2
    branch = {"merge": ["add"], "merge_site": ["branch"], "merge_where": ["all", "alternate"]}
    assert len(make_plan(spec_of(factors=branch)).cells) == 2

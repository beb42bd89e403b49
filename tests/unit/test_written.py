"""Specifications as people write them: one meaning or one line, the same everywhere, and nothing without a bound."""

import copy
import datetime
import json
import os
import random
import time

import pytest
import yaml

from search_spaces import Spec, SpecError, parse_spec, write_yaml
from search_spaces.document import read_yaml
from search_spaces.load import load_spec
from search_spaces.registered import changes, digest, registered
from study.errors import UserError
from study.planning.plan import make_plan
from study.results.ledger import Contents

SMALL = """
name: small
factors: {merge: [add, mul], weight_decay: [0.0, 1.0e-3]}
fixed: {dataset: fake, depth: 8, width: 4, epochs: 2, batch_size: 16, warmup_epochs: 0.5}
nuisance:
  lr: {low: 0.01, high: 1.0, log: true, default: 0.1}
  momentum: {choices: [0.9, 0.8]}
blocks: 2
budget: {search_trials: 4, startup_trials: 2, shortened: [0.5]}
sampler: {name: tpe, settings: {n_ei_candidates: 8}}
scheduler: {name: median, settings: {min_trials: 3}}
resources: {cpus: 1, gpus: 0, group: 1, threads: 1, fuse: never, step: plain}
measure: {statistics: {path: {num_pairs: 8}, noise_stability: {sigmas: [4]}}, keep_samples: [path]}
control: {arm: {merge: mul}, reference: {merge: add}}
claims:
  C: {text: t, arm: {merge: mul}, references: [{merge: add}], outcomes: [{name: test/accuracy, margin: 0.01}]}
level_claims: {L: {text: t, arm: {merge: mul}, outcome: test/accuracy, below: 0.5, above: 0.7}}
published: [{levels: {merge: mul}, outcome: test/accuracy, value: 0.9, source: here}]
alpha: 0.05
"""


def spec(text=SMALL, *overrides) -> Spec:
    return parse_spec(text, "here", overrides)


def fault(text=SMALL, *overrides) -> str:
    with pytest.raises((SpecError, UserError)) as caught:
        make_plan(spec(text, *overrides), needs_data=False)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 1_000, message
    return message


NUMBERS = {
    "1e-4": 1e-4, "1E-4": 1e-4, "1.e-4": 1e-4, "1e+2": 100, ".5": 0.5, "+1": 1, "1_000": 1000, "0x10": 16, "5.": 5, "0.0": 0,
    "-0.0": 0,
}  # fmt: skip
PLACES = {
    "nuisance.lr.default": lambda s: s.nuisance["lr"].default,
    "fixed.warmup_epochs": lambda s: s.fixed["warmup_epochs"],
    "sampler.settings.x": lambda s: s.sampler.settings["x"],
    "claims.C.outcomes": lambda s: s.claims["C"].outcomes[0].margin,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", NUMBERS)
def test_numbers_mean_what_they_say_wherever_they_stand(text, place):
    wide = ["nuisance.lr={low: -1, high: 2000, default: 0}"]
    value = f"[{{name: a, margin: {text}}}]" if place.startswith("claims") else text
    if place.startswith("claims") and NUMBERS[text] == 0:
        return
    assert PLACES[place](spec(SMALL, *wide, f"{place}={value}")) == NUMBERS[text]


@pytest.mark.parametrize(
    "place", ["nuisance.lr.low", "fixed.width", "title", "name", "factors.width", "sampler.settings.x"]
)
@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("010", "'010' may be read as octal"),
        ("1:30", "'1:30' may be read in base 60"),
        ("2021-01-05", "is read as a date; put it in quotes"),
        (".inf", "needs finite numbers"),
        ("-.inf", "needs finite numbers"),
        (".nan", "needs finite numbers"),
        ("1e999", "needs finite numbers"),
        ("1e300", "at most 1e+12"),
        ("10" * 15, "below 2^63"),
        ("'\\e[31m'".replace("'", '"'), "control characters"),
        ('"\\ud800"', "control characters"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused_with_a_hint(text, hint, place):
    assert hint in fault(SMALL, f"{place}={text}")


def test_words_are_words_and_booleans_booleans():
    for no, yes in (("no", "yes"), ("off", "on"), ("false", "true"), ("No", "YES")):
        assert (
            spec(SMALL, f"demonstration={yes}").demonstration and not spec(SMALL, f"demonstration={no}").demonstration
        )
        assert not spec(SMALL, f"nuisance.lr.log={no}").nuisance["lr"].log
    assert (
        spec(SMALL, "title=no").title == "no" and "on" in spec(SMALL.replace("claims:\n  C:", "claims:\n  on:")).claims
    )
    assert "unknown attention 'no' (did you mean 'none'?)" in fault(SMALL, "fixed.attention=no")
    assert "'attention' = False: expected str" in fault(SMALL, "fixed.attention=false")
    assert "for no attention and the like write none" in fault(SMALL, "fixed.attention=null")
    assert "'n_ei_candidates'" in fault(SMALL, "sampler.settings={multivariate: true, 'n_ei_candidates': no}").replace(
        "settings.n_ei_candidates", "'n_ei_candidates'"
    )


def test_keys_are_text():
    assert "a key is text, got 1; put it in quotes" in fault(SMALL.replace("claims:\n  C:", "claims:\n  1:"))
    assert "a key is text" in fault(SMALL + "true: 1\n")


EQUAL = [
    ("weight_decay: [0.0, 1.0e-3]", "weight_decay: [0, 1e-3]"),
    ("weight_decay: [0.0, 1.0e-3]", "weight_decay: [-0.0, 0.001]"),
    ("{merge: [add, mul], weight_decay: [0.0, 1.0e-3]}", "{weight_decay: [0.0, 1.0e-3], merge: [add, mul]}"),
    ("{dataset: fake, depth: 8, width: 4,", "{width: 4.0, depth: 8, dataset: fake,"),
    ("log: true, default: 0.1", "default: 1e-1, log: yes"),
    ("  lr: {low: 0.01, high: 1.0, log: true, default: 0.1}\n  momentum: {choices: [0.9, 0.8]}\n",
     "  momentum: {choices: [0.90, .8]}\n  lr: {low: 0.01, high: 1, log: true, default: 0.1}\n"),
    ("sigmas: [4]", "sigmas: [4.0]"),
    ("num_pairs: 8", "num_pairs: 8e0"),
    ("margin: 0.01", "margin: 1e-2"),
    ("blocks: 2\n", "blocks: 2.0\n"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_values_are_equal_everywhere(one, other):
    assert one in SMALL
    first, second = (make_plan(spec(text), needs_data=False) for text in (SMALL, SMALL.replace(one, other)))
    assert first.spec == second.spec and list(first.spec.nuisance) == list(second.spec.nuisance)
    frozen = [json.dumps(json.loads(plan.spec.model_dump_json()), sort_keys=True) for plan in (first, second)]
    assert frozen[0] == frozen[1]
    keys = [{cell.name: plan.default_config(cell).trial_key for cell in plan.cells} for plan in (first, second)]
    assert keys[0] == keys[1] and "fake/d8/add/weight_decay=0.0" in keys[0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("factors.weight_decay=[0, 0.0]", "'weight_decay' lists 0 twice"),
        ("nuisance.momentum.choices=[0.9, 9e-1]", "lists 0.9 twice"),
        ("factors.depth=[8, 8.0]", "'depth' lists 8 twice"),
    ],
)
def test_one_value_in_two_spellings_stands_twice(change, told):
    assert told in fault(SMALL, change)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("blocks=1000000", "blocks"), ("blocks=0", "blocks"), ("replicates=100000", "replicates"), ("seed=-1", "seed"),
        ("budget.search_trials=100000", "budget.search_trials"), ("budget.search_epochs=10000000", "budget.search_epochs"),
        ("resources.cpus=100000", "resources.cpus"), ("resources.gpus=100000", "resources.gpus"),
        ("resources.group=100000", "resources.group"), ("resources.threads=1000000", "resources.threads"),
        ("resources.data_parallel=100000", "resources.data_parallel"), ("alpha=1e-300", "alpha"), ("alpha=0.6", "alpha"),
        ("fixed.width=100000", "'width' = 100000: expected at most 4,096"), ("fixed.width=4096", "a network of"),
        ("fixed.depth=20000000", "'depth' = 20000000: expected at most"), ("fixed.epochs=10000000", "'epochs'"),
        ("fixed.batch_size=10000000", "'batch_size'"), ("fixed.warmup_epochs=1e9", "'warmup_epochs'"),
        ("measure.statistics.path.num_pairs=1000000000000", "'num_pairs' must be at most 100,000"),
        ("measure.statistics.noise_stability.num_draws=1000000000", "'num_draws' must be at most 100,000"),
        ("measure.statistics.noise_stability.sigmas=[1e9]", "'sigmas' must be at most 1e+06"),
        ("measure.landscapes.loss_slices.num_points=100000", "'num_points' must be at most 200"),
        ("factors={merge: [add, mul], seed: [" + ",".join(map(str, range(600))) + "]}", "1,200 cells, at most 1,000"),
        ("budget.search_trials=10000", "at most 1,000,000 make a study"),
        ("name=" + "x" * 65, "name"), ("fixed.attention=" + "x" * 101, "at most 100 characters"),
        ("title=" + "x" * 2001, "at most 2,000 characters"), ("plugins=[" + "x" * 101 + "]", "plugins"),
        ("sampler.settings.n_ei_candidates=1000000000", "n_ei_candidates = 1000000000 of 'tpe': expected at most 10,000"),
    ],
    ids=lambda value: value[:40],
)  # fmt: skip
def test_every_number_has_a_bound(change, told):
    more = ["blocks=200"] if "1,000,000" in told else []
    assert told in fault(SMALL, *more, change)


def test_nested_aliases_are_one_short_line():
    laughs = "a: &a [lol,lol,lol,lol,lol,lol,lol,lol,lol,lol]\n"
    laughs += "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    started = time.monotonic()
    assert "more than 50,000 values" in fault(laughs)
    few = "a: &a [lol,lol,lol]\n" + "".join(f"{b}: &{b} [*{a},*{a}]\n" for a, b in zip("abcde", "bcdef", strict=True))
    assert len(fault(few + SMALL)) < 400
    merged = "a: &a {k1: 1, k2: 2}\n" + "".join(
        f"{b}: &{b} {{<<: [{','.join([f'*{a}'] * 50)}]}}\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
    )
    assert "unknown key 'a'" in fault(merged + SMALL)
    assert "<< takes in more than 50 mappings" in fault("a: &a {}\nb: {<<: [" + ",".join(["*a"] * 51) + "]}\n")
    assert (
        "deep" in fault("a: &a [*a]\n")
        and "deep" in fault("[" * 41 + "]" * 41)
        and "deep" in fault("a: " + "{b: " * 50)
    )
    assert time.monotonic() - started < 5


def test_merge_keys_work_and_double_keys_are_found_in_linear_time():
    text = SMALL.replace("fixed: {", "fixed:\n  <<: &base {width: 8, schedule: constant}\n  ").replace(
        "warmup_epochs: 0.5}", "warmup_epochs: 0.5"
    )
    text = text.replace(
        "dataset: fake, depth: 8, width: 4, epochs: 2, batch_size: 16, ", "dataset: fake\n  depth: 8\n  width: 4\n  "
    )
    found = spec(text)
    assert found.fixed == {"width": 4, "schedule": "constant", "dataset": "fake", "depth": 8, "warmup_epochs": 0.5}
    assert "key 'blocks' stands twice" in fault(SMALL + "blocks: 3\n") and "line" in fault(SMALL + "blocks: 3\n")
    started = time.process_time()
    many = read_yaml("".join(f"k{i}: 1\n" for i in range(20_000)), "here")
    assert len(many) == 20_000 and time.process_time() - started < 20


def test_a_mapping_under_two_keys_is_changed_under_one():
    text = SMALL.replace("control: {arm: {merge: mul}", "control: {arm: &arm {merge: mul}").replace(
        "levels: {merge: mul}", "levels: *arm"
    )
    found = spec(text, "control.arm.merge=add", "control.reference.merge=mul")
    assert found.control.arm == {"merge": "add"} and found.published[0].levels == {"merge": "mul"}


def test_files_of_any_kind_are_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * 1_000_001)
    (tmp_path / "bom.yaml").write_text("\ufeff" + SMALL)
    for name, told in (
        ("pipe", "no regular file"),
        ("large", "more than 1,000,000 bytes"),
        ("a" * 300, "File name too long"),
    ):
        with pytest.raises(SpecError, match=told):
            load_spec(str(tmp_path / f"{name}.yaml"))
    with pytest.raises(SpecError, match="unknown preset"):
        load_spec("x" * 10_000)
    assert load_spec(str(tmp_path / "bom.yaml")) == spec()


@pytest.mark.parametrize("text", ["1e4", "no", "2021-01-05", "1:30", "010", "null", "[x]", "a: b", "\u00e9\u6f22"])
def test_text_stays_text_when_a_specification_is_written_and_read(text):
    values = json.loads(spec().model_dump_json()) | {"title": text}
    for unicode in (True, False):
        assert parse_spec(write_yaml(values, allow_unicode=unicode), "here") == Spec.model_validate(values)


NESTED: list = []
for _ in range(60):
    NESTED = [NESTED]
ODD = [
    float("inf"), float("nan"), 0, -1, 1e300, 1e-300, 10**30, 10**6, "", "x" * 10_000, [], {}, None, True, NESTED, "[bold]",
    datetime.date(2021, 1, 1), b"ab", {1: 2}, {"a": {"b": []}}, [None], [0, 0.0], {"low": 0, "high": float("inf")}, "no", 0.5,
]  # fmt: skip


def places(value, before=()):
    if before:
        yield before
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*before, key))


def test_any_value_anywhere_is_a_plan_or_one_line():
    """A sample under one seed; a longer run over every key of every preset found nothing else."""
    values, generator = yaml.safe_load(SMALL), random.Random(3)
    for place in places(values):
        for odd in generator.sample(ODD, 5):
            changed = inner = copy.deepcopy(values)
            for part in place[:-1]:
                inner = inner[part]
            inner[place[-1]] = odd
            try:
                make_plan(parse_spec(yaml.safe_dump(changed), "here"), needs_data=False)
            except (SpecError, UserError) as error:
                assert "\n" not in str(error) and len(str(error)) < 1_000


def test_a_study_goes_on_under_the_names_that_it_began_with(config_of, record_of):
    """Older versions called cells as they were spelled; seeds of suggestions hang on these names."""
    plan = make_plan(spec(), needs_data=False)
    contents = Contents()
    old = ["fake/d8/add/weight_decay=0", "fake/d8/mul/weight_decay=1e-3"]
    for i, name in enumerate(old):
        contents.add(record_of(config_of(seed=i), cell=name))
    names = [cell.name for cell in plan.continuing(contents).cells]
    assert names == [old[0], "fake/d8/add/weight_decay=0.001", "fake/d8/mul/weight_decay=0.0", old[1]]
    assert plan.continuing(Contents()) == plan
    bare = ["control=null", "claims={}", "level_claims={}", "published=[]", "fixed.weight_decay=0", "fixed.depth=10"]
    factors = "factors={schedule: [constant], dropout: [0], merge: [add]}"
    two = make_plan(spec(SMALL, factors, "fixed.network=wrn", *bare))
    assert [cell.name for cell in two.cells] == ["fake/d10/add/schedule=constant/dropout=0.0"]
    contents = Contents()
    contents.add(record_of(config_of(), cell="fake/d10/add/dropout=0/schedule=constant"))
    assert [cell.name for cell in two.continuing(contents).cells] == ["fake/d10/add/dropout=0/schedule=constant"]


def test_a_study_whose_cells_would_all_be_new_stops(config_of, record_of):
    contents = Contents()
    contents.add(record_of(config_of(), cell="fake/d8/add/weight_decay=0.1"))
    with pytest.raises(UserError, match=r"every cell would be new: .*did you mean 'fake/d8/add/weight_decay=0.1'"):
        make_plan(spec(), needs_data=False).continuing(contents)


def test_claims_are_the_same_in_another_spelling():
    one, other = (registered(spec(text)) for text in (SMALL, SMALL.replace("[0.0, 1.0e-3]", "[0, 1e-3]")))
    assert one == other and digest(one) == digest(other)
    # as an older version wrote it
    old = json.loads(
        json.dumps(one).replace("weight_decay=0 ", "weight_decay=0.0 ").replace('weight_decay=0"', 'weight_decay=0.0"')
    )
    assert old != one and changes(old, other) == []

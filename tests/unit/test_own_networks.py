"""A network of one's own: its keywords are checked, part of the key and of every name; it trains alone and together alike."""

import contextlib
import copy
import dataclasses

import pytest
import torch
from trainings import train

from analysis.trials.arms import planned_cells
from analysis.trials.table import trials_table
from search_spaces import SpecError
from search_spaces.load import parse_spec
from study.commands.claimed import check_claims
from study.config import TrialConfig
from study.data import dataset_facts, load_dataset, split
from study.data.parts import Together
from study.errors import UserError
from study.measuring.network import measure_checkpoint
from study.models import build_network
from study.planning.networks import untrained
from study.planning.plan import make_plan
from study.plugins import load_network, plugin_sources
from study.printing.describe import _warnings
from study.registry import NETWORKS
from study.resources.execution import apart
from study.results.ledger import Contents
from study.training import Member
from study.training.fused import Ended, train_together

SEEDS = {"dataset": "fake", "seed": 1, "split_seed": 2, "epochs": 2, "batch_size": 16}


@pytest.fixture(autouse=True)
def allowed(monkeypatch):
    monkeypatch.setenv("FMM_STUDY_PLUGINS", "own_nets, nowhere_at_all")


def config_of(network="own_nets:gated", **keywords):
    load_network(network)
    return TrialConfig.from_mapping({**SEEDS, "network": network, **keywords})


def spec_of(factors="{variant: [plain, gated]}", fixed="network: 'own_nets:gated'", **further):
    lines = {"nuisance": "{lr: {low: 0.01, high: 0.5, default: 0.1}}", "measure": "{}"} | further
    return parse_spec(
        f"name: own\nfactors: {factors}\nfixed: {{dataset: fake, epochs: 2, {fixed}}}\nblocks: 8\n"
        "budget: {search_trials: 2, startup_trials: 1}\n"
        + "".join(f"{key}: {value}\n" for key, value in lines.items()),
        "own.yaml",
    )


def test_a_keyword_is_part_of_the_key_and_one_that_is_absent_is_not():
    plain = config_of()
    assert plain.trial_key == "b8fe5dbbf2a4e295"
    named = [config_of(variant="plain"), config_of(variant="gated"), config_of(kernel=5), config_of(kernel=5, drop=0.5)]
    assert len({config.trial_key for config in (plain, *named)}) == 5
    # the same value, however it is written, and in whatever order
    assert config_of(drop=0.0).trial_key == config_of(drop=0).trial_key
    assert config_of(drop=0.5, kernel=5) == named[-1]


def test_a_record_holds_keywords_as_settings_and_none_of_registered_parts():
    config = config_of(variant="gated", width=6)
    held = config.as_dict()
    assert (held["variant"], held["width"], held["lr"]) == ("gated", 6, 0.1)
    assert not {"merge", "attention", "depth", "keywords"} & held.keys()
    assert TrialConfig.from_mapping(held) == config


def test_a_registered_network_has_no_keywords():
    with pytest.raises(UserError, match="unknown setting 'variant'"):
        TrialConfig.from_mapping({**SEEDS, "depth": 8, "variant": "gated"})
    with pytest.raises(UserError, match="missing setting 'depth'"):
        TrialConfig.from_mapping(SEEDS)


@pytest.mark.parametrize(
    ("fixed", "said"),
    [
        ("network: 'own_nets:gated', variannt: x", "unknown setting 'variannt'.*did you mean 'variant'"),
        ("network: 'own_nets:gated', kernel: 2.5", "'kernel' = 2.5 of network 'own_nets:gated': expected a whole number$"),
        ("network: 'own_nets:gated', kernel: true", "'kernel' = True .*expected a whole number"),
        ("network: 'own_nets:gated', residual: 1", "'residual' = 1 .*expected true or false"),
        ("network: 'own_nets:gated', drop: much", "'drop' = 'much' .*expected a number"),
        ("network: 'own_nets:gated', width: wide", "'width' = 'wide': expected int, got str"),
        ("network: 'own_nets:gated', given: 1", "'given' = 1: no level can be that parameter .*Literal"),
        ("network: 'own_nets:gated', kernel: 4", r"does not take the images of fake, \(N, 1, 8, 8\).*own_nets.py line"),
        ("network: 'own_nets:gated', merge: mul", "'merge': network 'own_nets:gated' .*so no merge operator"),
        ("network: 'own_nets:gated', attention: se", "'attention': network 'own_nets:gated' .*so no gate"),
        ("network: 'own_nets:gate'", "'own_nets' has no function 'gate' .did you mean 'gated'"),
        ("network: 'nowhere_at_all:gated'", "no module 'nowhere_at_all'"),
        ("network: 'os:gated'", "would run the code of os"),
        ("network: 'own_nets:'", "expected a registered name, module:function, or timm/name"),
        ("network: jax/resnet18", "expected a registered name, module:function, or timm/name"),
        ("network: timm/resnet19", "unknown model 'resnet19' of timm .*did you mean"),
        ("network: timm/resnet18, pretrained: true", "unknown setting 'pretrained'"),
        ("network: timm/resnet18, act_layer: relux", "network 'timm/resnet18, act_layer relux' raises"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line_before_anything_starts(fixed, said):
    with pytest.raises(UserError, match=said) as caught:
        make_plan(spec_of(factors="{momentum: [0.9]}", fixed=fixed), needs_data=False)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("too_few", r"gives outputs of shape \(2, 3\) .*fake has 4 classes, so \(2, 4\)"),
        ("raising", "needs 'depth': put it under factors, fixed or nuisance"),
        ("raising', depth: 3, augment: 'none", r"raises RuntimeError: no such depth \(own_nets.py line"),
        ("no_module", "gives a int, not a torch.nn.Module"),
        ("unseeded", "equal seeds give other values of '2.weight'"),
    ],
)
def test_a_network_that_cannot_be_used_is_told_at_plan(network, said):
    with pytest.raises(UserError, match=said):
        make_plan(spec_of(factors="{momentum: [0.9]}", fixed=f"network: 'own_nets:{network}'"), needs_data=False)


def test_levels_and_ranges_are_all_tried():
    with pytest.raises(UserError, match=r"'variant' = 'gatd' .*'plain' or 'gated' .did you mean 'gated'"):
        make_plan(spec_of(factors="{variant: [plain, gatd]}"), needs_data=False)
    with pytest.raises(UserError, match=r"drop 1\.5.*dropout probability"):
        make_plan(spec_of(nuisance="{drop: {low: 0, high: 1.5, default: 0}}"), needs_data=False)
    plan = make_plan(spec_of(nuisance="{drop: {low: 0, high: 0.5, default: 0.25}}"), needs_data=False)
    assert dict(plan.default_config(plan.cells[0]).keywords)["drop"] == 0.25


def test_cells_are_named_by_the_network_and_its_keywords():
    named = [cell.name for cell in make_plan(spec_of(), needs_data=False).cells]
    assert named == ["fake/gated/variant=plain", "fake/gated/variant=gated"]
    both = "[{network: ['own_nets:gated', 'own_nets:gated_alias'], width: [4]}, {network: [cifar_resnet], depth: [8]}]"
    named = [cell.name for cell in make_plan(spec_of(factors=both, fixed="momentum: 0.9"), needs_data=False).cells]
    assert named == [
        "fake/own_nets:gated/width=4",
        "fake/own_nets:gated_alias/width=4",
        "fake/d8/add/network=cifar_resnet",
    ]


def weights(config):
    return untrained(config, dataset_facts("fake")).state_dict()


def test_an_alias_is_the_same_network_with_a_key_of_its_own():
    plain, aliases = config_of(variant="gated"), [config_of(variant="gated_alias"), config_of("own_nets:gated_alias")]
    assert len({config.trial_key for config in (plain, *aliases)}) == 3
    for config, like in zip(aliases, (plain, config_of()), strict=True):
        assert all(torch.equal(value, weights(like)[name]) for name, value in weights(config).items())
    assert untrained(aliases[0], dataset_facts("fake")).network[1].variant == "gated"


def test_a_norm_and_an_activation_of_its_own_are_keywords_of_its_own():
    network = untrained(config_of("own_nets:named_alike", norm="instance", activation="selu"), dataset_facts("fake"))
    assert [type(part).__name__ for part in network.network[:2]] == ["InstanceNorm2d", "SELU"]
    with pytest.raises(
        UserError, match="'norm' = 'batch' of network 'own_nets:named_alike': expected 'instance' or 'none'"
    ):
        untrained(config_of("own_nets:named_alike", norm="batch"), dataset_facts("fake"))
    with pytest.raises(UserError, match="unknown setting 'norm': network 'own_nets:gated' has no such parameter"):
        untrained(config_of(norm="group"), dataset_facts("fake"))


def test_its_own_start_stands_and_the_seed_alone_decides():
    before = torch.get_rng_state()
    first, again, other = (weights(config_of(seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["network.0.weight"], other["network.0.weight"])
    assert (first["network.1.scale"] == 0.5).all()  # what the module set, not what the package draws
    # torch's default of a convolution: uniform within 1 / sqrt(fan in)
    assert first["network.1.a.weight"].abs().max() <= 0.5


def test_it_is_given_what_it_asks_for_alone():
    model = untrained(config_of("own_nets:shaped", needed="a"), dataset_facts("fake"))
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 4)


def test_pixels_are_normalised_before_it():
    model = build_network(config_of(), num_classes=4, mean=(0.5,), deviation=(0.25,)).eval()
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(model(x), model.network((x - 0.5) / 0.25))


def test_a_timm_model_is_timms_own():
    import timm

    config = config_of("timm/resnet18", act_layer="gelu")
    model = build_network(config, num_classes=4, mean=(0.5,), deviation=(0.25,)).eval()
    theirs = timm.create_model("resnet18", num_classes=4, in_chans=1, act_layer="gelu").eval()
    theirs.load_state_dict(model.network.state_dict())
    x = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(model(x), theirs((x - 0.5) / 0.25))
    assert plugin_sources(["timm/resnet18"])["timm"]["version"] == timm.__version__


def member(config, model=None):
    parts, data = split(load_dataset("fake"), 2), load_dataset("fake")
    model = model or build_network(config, num_classes=4, mean=data.mean, deviation=data.deviation)
    return Member(model=model, train_split=parts.train, val_split=parts.val, config=config, checkpoint=None)


def trained(config, checkpoint=None, epochs=None):
    """The weights after a training; or after its first ``epochs``, as one that is struck then."""
    one = member(config)
    progress = train(one.model, one.train_split, one.val_split, config, checkpoint)
    for _ in range(epochs or config.epochs):
        next(progress)
    return one.model.state_dict()


def test_what_it_draws_in_training_depends_on_the_replicate_alone_and_is_drawn_again_after_a_kill(tmp_path):
    config = config_of(drop=0.5)
    torch.manual_seed(1)
    whole = trained(config)
    torch.manual_seed(2)
    trained(config, tmp_path / "state.pt", epochs=1)
    torch.manual_seed(3)
    resumed = trained(config, tmp_path / "state.pt", epochs=1)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert not torch.equal(whole["network.0.weight"], trained(config_of())["network.0.weight"])


@pytest.mark.parametrize("keywords", [{"variant": "gated"}, {"network": "timm/test_resnet"}])
def test_replicates_train_together_as_they_train_alone(keywords):
    configs = [config_of(**keywords, seed=seed, lr=lr, epochs=1) for seed, lr in ((1, 0.05), (2, 0.1))]
    alone, members = [member(config) for config in configs], [member(config) for config in configs]
    ended = [event for event in train_together(members, Together) if isinstance(event, Ended)]
    assert len(ended) == 2
    for one, other in zip(alone, members, strict=True):
        start = copy.deepcopy(one.model.state_dict())
        list(train(one.model, one.train_split, one.val_split, one.config, None))
        found = other.model.state_dict()
        for name, value in one.model.state_dict().items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5, msg=name)
        assert any(not torch.equal(found[name], value) for name, value in start.items())


@pytest.mark.parametrize(
    ("network", "keywords", "why"),
    [("gated", {}, ""), ("gated", {"drop": 0.5}, "random"), ("looking", {}, "RuntimeError")],
)
def test_one_that_cannot_train_together_is_told(network, keywords, why):
    config = dataclasses.replace(config_of(f"own_nets:{network}", **keywords), batch_size=4)
    told = apart(config, dataset_facts("fake"), "cpu")
    assert bool(told) == bool(why) and why in told and "\n" not in told


CLAIM = "{C: {text: t, arm: {merge: %s}, outcome: attention_importance_ratio_zero, below: 0.5, above: 0.7}}"


def test_what_needs_a_gate_says_so():
    statistic = "{statistics: {attention_importance: {}}}"
    with pytest.raises(
        UserError, match=r"measure\.statistics.attention_importance: no network of this study has an att"
    ):
        check_claims(make_plan(spec_of(measure=statistic), needs_data=False))
    gated = {"factors": "{merge: [sum, mean]}", "fixed": "network: 'own_nets:with_a_gate'"}
    check_claims(make_plan(spec_of(**gated, measure=statistic, level_claims=CLAIM % "sum"), needs_data=False))
    mixed = "[{merge: [add], depth: [8]}, {merge: [mul], depth: [8], attention: [se], attention_form: [mul]}]"
    plan = make_plan(spec_of(mixed, "momentum: 0.9", measure=statistic, level_claims=CLAIM % "add"), needs_data=False)
    with pytest.raises(
        UserError, match=r"claim C: outcome 'attention_.*' is not estimable on \{'merge': 'add'\}.*fake/d8/add"
    ):
        check_claims(plan)
    with pytest.raises(SpecError, match="names 'merge', which is no factor"):
        spec_of(level_claims=CLAIM % "mul")


@pytest.mark.parametrize(
    ("levels", "refused"),
    [
        ("{merge: [add], depth: [8], attention_where: [first]}", True),
        ("{merge: [add], depth: [8], attention_where: [all]}", False),
        ("[{merge: [add], depth: [8], attention_where: [first], attention: [se], attention_form: [mul]}]", False),
    ],
)
def test_blocks_are_chosen_for_an_attention_that_is_there(levels, refused):
    plan = make_plan(spec_of(levels, "momentum: 0.9"), needs_data=False)
    told = r"attention_where = 'first': no cell of this study has attention; leave it out, or add a level of attention"
    with pytest.raises(UserError, match=told) if refused else contextlib.nullcontext():
        check_claims(plan)


def test_a_kept_replicate_is_measured_with_its_network_where_its_user_allows_that(tmp_path, monkeypatch):
    config = config_of(variant="gated")
    held = {"model": untrained(config, dataset_facts("fake")).state_dict(), "config": config.as_dict()}
    torch.save(held, tmp_path / "final.pt")
    monkeypatch.delitem(NETWORKS._entries, config.network)
    monkeypatch.delenv("FMM_STUDY_PLUGINS")
    chosen = {"input_jacobian": {"num_samples": 8}}
    with pytest.raises(UserError, match="would run the code of own_nets"):
        measure_checkpoint(tmp_path / "final.pt", chosen)
    monkeypatch.setenv("FMM_STUDY_PLUGINS", "own_nets")
    found = measure_checkpoint(tmp_path / "final.pt", chosen)
    assert not found["input_jacobian"].error and found["input_jacobian"]["jacobian_logits_mean"].value > 0


def test_a_plan_without_a_control_shows_one_that_the_network_can_have():
    shown = _warnings(make_plan(spec_of(), needs_data=False))
    assert any("{FACTOR: LEVEL_alias}" in line for line in shown) and not any("add_alias" in line for line in shown)


@pytest.mark.parametrize(
    ("factors", "arms"),
    [
        ("{variant: [plain, gated]}", ["plain", "gated"]), ("{residual: [true, false]}", ["residual=True", "residual=False"]),
        ("{kernel: [3, 5], drop: [0.5]}", ["kernel=3/drop=0.5", "kernel=5/drop=0.5"]),
    ],
)  # fmt: skip
def test_arms_are_named_by_keywords_before_and_after_there_are_results(factors, arms, record_of):
    spec = spec_of(factors=factors)
    cells = make_plan(spec, needs_data=False).cells
    records = [
        record_of(TrialConfig.from_mapping({**c.settings, "seed": 0, "split_seed": 0}), cell=c.name) for c in cells
    ]
    for held in ([], records):
        contents = Contents(replicates={record["cell"]: {**record, "trial_key": record["cell"]} for record in held})
        heads = planned_cells(spec, trials_table(spec, contents))
        assert [head["arm"] for head in heads] == arms and {head["depth"] for head in heads} == {None}

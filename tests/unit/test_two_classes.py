"""What cannot be estimated is never converged: two classes, logits of one direction, constant networks, saturated gates."""

import dataclasses
import math

import pytest
import torch
from command_line import fmm_study
from torch import nn
from toys import SMALL, Fn, conv_context, fn_context, gated_net, gen, images, run

from search_spaces.load import parse_spec
from study.commands.claimed import check_claims
from study.data import Split, fake
from study.errors import UserError
from study.planning.plan import make_plan
from study.registry import DATASETS, STATISTICS
from study.smoothness import estimate_names, fewest_classes, parse_settings

ALL = STATISTICS.names()
# the log of what rounding leaves of zero in float64 or float32 is below this, in units of a network that moves by about 1
ROUNDING = -12.0


def assert_nothing_made_up(found) -> None:
    for key, value in found.items():
        if value.converged:
            assert math.isfinite(value.value) and not (key.endswith("_log") and value.value < ROUNDING), key


def measured(name, net, num_classes, y=None):
    y = torch.arange(30) % num_classes if y is None else y
    try:
        return run(name, conv_context(net, images(), y, num_classes=num_classes), **SMALL[name])
    except UserError as error:  # in one line
        assert "class" in str(error) and "\n" not in str(error)
        return getattr(error, "estimates", {})


@pytest.mark.parametrize("name", ALL)
def test_of_two_classes_nothing_on_the_scale_of_unit_logits_is_converged(name):
    net = nn.Sequential(*list(gated_net())[:-1], nn.Linear(6, 2))
    found = measured(name, net, 2)
    assert_nothing_made_up(found)
    few = [key for key in found if fewest_classes(name, key) > 2]
    assert all(not found[key].converged for key in few)
    if name in ("input_jacobian", "local_lipschitz", "adaptive_sharpness"):
        assert few and all("unit_logits" in key for key in few)
        assert all(value.converged for key, value in found.items() if "logits_mean" in key and key not in few)
    if name == "input_jacobian":
        assert found["jacobian_unit_logits_mean"].value == 0 and math.isnan(
            found["jacobian_unit_logits_mean_log"].value
        )


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_a_constant_network_makes_nothing_up(name, num_classes):
    net = nn.Sequential(*list(gated_net())[:-1], nn.Linear(6, num_classes))
    with torch.no_grad():
        net[-1].weight.zero_()
        net[-1].bias.copy_(torch.arange(float(num_classes)))
    assert_nothing_made_up(measured(name, net, num_classes))
    with torch.no_grad():
        net[-1].bias.zero_()  # all logits are equal
    assert_nothing_made_up(measured(name, net, num_classes))


@pytest.mark.parametrize("name", ["input_jacobian", "local_lipschitz"])
def test_logits_that_keep_their_direction_move_by_rounding_alone(name):
    """z = s(x) v + c(x): unit logits are constant, of three classes as of two, and a little turn is seen again."""
    generator = gen()
    v, w = torch.randn(5, generator=generator), torch.randn(5, generator=generator)
    weight = torch.randn(3, 49, generator=generator)

    def logits(turn):
        def call(x):
            s, c, t = (x.flatten(1) @ weight.T).unbind(1)
            return (3 + s.sigmoid())[:, None] * v + c[:, None] + turn * t.sin()[:, None] * w

        return Fn(call, 5)

    prefix = "jacobian" if name == "input_jacobian" else "lipschitz"
    still = run(name, fn_context(logits(0.0), images()), **SMALL[name])
    assert still[f"{prefix}_unit_logits_mean"].value == 0 and not still[f"{prefix}_unit_logits_mean_log"].converged
    assert still[f"{prefix}_logits_mean_log"].converged
    turned = run(name, fn_context(logits(1e-3), images()), **SMALL[name])
    assert turned[f"{prefix}_unit_logits_mean_log"].converged and turned[f"{prefix}_unit_logits_mean_log"].value > -12


@pytest.mark.parametrize("name", ["attention_importance", "attention_shapley"])
@pytest.mark.parametrize("bias", [-200.0, 200.0])
def test_a_saturated_gate_ranks_nothing(name, bias):
    net = gated_net()
    with torch.no_grad():
        net[3].gate[2].weight.zero_()
        net[3].gate[2].bias.fill_(bias)
    found = measured(name, net, 3)
    assert_nothing_made_up(found)
    assert not any(
        value.converged for key, value in found.items() if key.endswith(("spearman_zero", "ratio_zero", "spearman"))
    )


@pytest.mark.parametrize("name", ALL)
def test_one_image_a_class_makes_nothing_up(name):
    net = nn.Sequential(*list(gated_net())[:-1], nn.Linear(6, 30))
    assert_nothing_made_up(measured(name, net, 30, torch.arange(30)))


CLAIMS = {
    "jacobian_unit_logits_mean_log": "input_jacobian",
    "lipschitz_unit_logits_mean": "local_lipschitz",
    "decision_components": "decision_regions",
}


def text(outcome, statistic, level=False):
    claim = (
        f"{{text: t, arm: {{merge: mul}}, references: [{{merge: add}}], outcomes: [{{name: {outcome}, margin: 1}}]}}"
    )
    stated = f"{{text: t, arm: {{merge: mul}}, outcome: {outcome}, below: 0, above: 1}}"
    return (
        "name: s\nfactors: {merge: [add, mul]}\nfixed: {dataset: pair, depth: 8, epochs: 1}\nblocks: 12\n"
        "budget: {search_trials: 0, startup_trials: 0}\n"
        f"measure: {{statistics: {{{statistic}: {{}}}}}}\n"
        + (f"level_claims: {{C1: {stated}}}\n" if level else f"claims: {{C3: {claim}}}\n")
    )


@pytest.fixture
def pair():
    """The fake images as two classes."""
    whole = fake.fake()
    entry = DATASETS["fake"]

    def two():
        parts = {
            name: Split(images=part.images, labels=part.labels % 2)
            for name, part in (("pool", whole.pool), ("test", whole.test))
        }
        return dataclasses.replace(whole, name="pair", num_classes=2, **parts)

    DATASETS.register("pair", formula="two classes", source="this file")(two)
    return entry


@pytest.mark.parametrize(("outcome", "statistic"), CLAIMS.items())
@pytest.mark.parametrize("level", [False, True])
def test_a_claim_on_what_two_classes_cannot_give_is_refused(pair, tmp_path, outcome, statistic, level):
    names = estimate_names(statistic, parse_settings(statistic, {}))
    outcome = outcome if outcome in names else next(name for name in names if "components" in name)
    plan = make_plan(parse_spec(text(outcome, statistic, level), "s.yaml"))
    told = (
        rf"claims.C[13]: outcome '{outcome}' is not estimable on pair: it needs 3 classes or more, not 2; name another"
    )
    with pytest.raises(UserError, match=told):
        check_claims(plan)
    check_claims(make_plan(parse_spec(text("jacobian_probabilities_mean_log", "input_jacobian"), "s.yaml")))
    check_claims(make_plan(parse_spec(text(outcome, statistic, level).replace("pair", "fake"), "s.yaml")))
    if statistic == "input_jacobian":
        (tmp_path / "s.yaml").write_text(text(outcome, statistic, level))
        for command in (
            ["plan", str(tmp_path / "s.yaml")],
            ["run", str(tmp_path / "s.yaml"), "--storage", str(tmp_path)],
        ):
            done = fmm_study(*command)
            assert done.returncode == 2 and "is not estimable on pair" in done.stderr

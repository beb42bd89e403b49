"""Learning rates against their closed forms and the papers' epochs."""

import math

import pytest

from study.errors import UserError
from study.training.schedule import SCHEDULES, check_schedule, learning_rate


def test_the_schedule_is_its_closed_form():
    for step in range(40):
        assert learning_rate("constant", 0.3, step, 40) == 0.3
        assert learning_rate("cosine", 0.3, step, 40) == pytest.approx(0.3 * math.cos(math.pi * step / 80) ** 2)
        if step >= 10:
            expected = 0.3 * math.cos(math.pi * (step - 10) / 60) ** 2
            assert learning_rate("cosine", 0.3, step, 40, 10) == pytest.approx(expected)
            assert learning_rate("constant", 0.3, step, 40, 10) == 0.3
    assert learning_rate("cosine", 0.3, 0, 40) == 0.3 and learning_rate("cosine", 0.3, 10, 40, 10) == 0.3


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_warm_up_is_linear_and_ends_at_the_base_rate(name):
    for step in range(10):
        assert learning_rate(name, 0.3, step, 100, 10) == pytest.approx(0.3 * (step + 1) / 11)
    assert learning_rate(name, 0.3, 10, 100, 10) == 0.3
    assert learning_rate(name, 0.3, 4, 5, 7.5) == pytest.approx(0.3 * 5 / 8.5)  # a warm-up longer than training


def by_epoch(name, epochs, steps):
    """The rates met in each epoch of ``steps`` steps."""
    return [{learning_rate(name, 1.0, e * steps + s, epochs * steps) for s in range(steps)} for e in range(epochs)]


@pytest.mark.parametrize("steps", [1, 7, 390])
def test_the_steps_of_wide_residual_networks(steps):
    rates = by_epoch("wrn_step", 200, steps)
    assert all(len(rate) == 1 for rate in rates), "the rate changes between epochs"
    expected = [1.0] * 60 + [0.2] * 60 + [0.04] * 40 + [0.008] * 40
    assert [rate.pop() for rate in rates] == pytest.approx(expected)


@pytest.mark.parametrize("steps", [1, 7, 313])
def test_the_steps_on_imagenet(steps):
    rates = by_epoch("imagenet_step", 90, steps)
    assert all(len(rate) == 1 for rate in rates)
    assert [rate.pop() for rate in rates] == pytest.approx([1.0] * 30 + [0.1] * 30 + [0.01] * 30)


def test_a_step_is_never_early_nor_late():
    for num_steps in range(1, 301):
        for name, milestones in (("wrn_step", (30, 60, 80)), ("imagenet_step", (100 / 3, 200 / 3))):
            rates = [learning_rate(name, 1.0, step, num_steps) for step in range(num_steps)]
            drops = [step for step in range(1, num_steps) if rates[step] < rates[step - 1]]
            firsts = {math.ceil(round(m * num_steps / 100, 9)) for m in milestones}
            assert drops == sorted(firsts - {0, num_steps})


def test_an_unknown_schedule_is_refused():
    with pytest.raises(UserError, match=r"unknown schedule 'cosin' .did you mean 'cosine'"):
        learning_rate("cosin", 0.1, 0, 10)
    with pytest.raises(UserError, match=r"unknown schedule 'wrn_steps' .did you mean 'wrn_step'"):
        check_schedule("wrn_steps")

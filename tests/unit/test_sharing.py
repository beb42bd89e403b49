"""How many groups share a GPU, by made-up memory; what is measured, once, and what is said."""

import pytest

from study.atomic import read_json
from study.config import Execution
from study.errors import UserError
from study.planning.plan import make_plan
from study.resources.sharing import CONTEXT, CudaMeter, sharing_gpus
from study.results.files import MEMORY

GIB = 2**30


class Made:
    """A device of 20 GiB (0.9 of which may be filled) on which things fill what the test says; counts what it is asked."""

    name, total = "Made", 20 * GIB

    def __init__(self, training=1.0, measuring=0.5):
        self.given, self.asked = {"training": training, "measuring": measuring}, []

    def __call__(self, _, method, *arguments):
        """Asked as ``study.resources.timing`` asks."""
        return getattr(self, method)(*arguments)

    def device(self):
        return self.name, self.total

    def training(self, config, together, step):
        self.asked.append((config.merge, config.batch_size, together, *step))
        given = self.given["training"]
        return int(GIB * (given[config.merge] if isinstance(given, dict) else given)) - CONTEXT

    def measuring(self, config, statistics):
        self.asked.append((config.merge, statistics))
        return int(GIB * self.given["measuring"]) - CONTEXT


@pytest.fixture
def plan_of(spec_of):
    def make(gpus=0.25, **changes):
        measure = {"statistics": {"path": {}}}
        return make_plan(spec_of(**{"resources": {"gpus": gpus}, "measure": measure, **changes}))

    return make


# of 17.4 GiB: 20 x 0.9 less the driver's own context; the data of the fake images is next to nothing
@pytest.mark.parametrize(
    ("asked", "training", "measuring", "gpus", "said"),
    [
        (0.25, 1.0, 0.5, 0.25, ""),
        (0.25, 4.3, 0.5, 0.25, ""),
        (0.25, 4.4, 0.5, 0.3333, "3 groups on a GPU at once, not the 4 of resources.gpus = 0.25: a group of fake/d8/"),
        (0.1, 4.4, 0.5, 0.3333, "3 groups on a GPU at once, not the 10"),
        (0.25, 1.0, 8.0, 0.5, "2 groups"),
        (0.3, 6.0, 0.5, 0.5, "2 groups on a GPU at once, not the 3"),
        (0.25, 12.0, 0.5, 1.0, "1 group on"),
        (0.25, 1.0, 30.0, 1.0, "1 group on"),  # which measures in smaller chunks
        (1, 30.0, 0.5, 1, ""),  # not shared
        (0, 30.0, 0.5, 0, ""),
    ],
)
def test_as_many_groups_as_fit(tmp_path, plan_of, asked, training, measuring, gpus, said):
    plan, told = sharing_gpus(plan_of(asked), tmp_path, {}, Made(training, measuring))
    assert plan.spec.resources.gpus == gpus
    assert told.startswith(said) and bool(told) == bool(said)


def test_the_largest_cell_decides_and_is_the_one_that_is_measured(tmp_path, plan_of):
    made = Made({"add": 1.0, "mul": 7.0})
    plan, told = sharing_gpus(plan_of(), tmp_path, {"fake/d8/add": Execution(together=4)}, made)
    assert plan.spec.resources.gpus == 0.5
    assert "a group of fake/d8/mul fills 7.00 GiB of 20.00 GiB (Made)" in told
    assert made.asked == [("add", 16, 4), ("mul", 16, 1), ("mul", [["path", {}]])]


def test_it_is_measured_once_on_a_device(tmp_path, plan_of):
    first, made = sharing_gpus(plan_of(), tmp_path, {}, Made(6.0)), Made(1.0)
    assert sharing_gpus(plan_of(), tmp_path, {}, made) == first and made.asked == []
    # another cell, another statistic, another device: what is new is measured
    sharing_gpus(plan_of(factors={"merge": ["add", "mul", "max"]}), tmp_path, {}, made)
    assert made.asked == [("max", 16, 1)]
    sharing_gpus(plan_of(measure={"statistics": {"path": {"num_pairs": 8}}}), tmp_path, {}, made)
    assert made.asked[1:] == [("add", [["path", {"num_pairs": 8}]])]
    made.name = "Other"
    assert sharing_gpus(plan_of(), tmp_path, {}, made)[1] == ""
    assert set(read_json(tmp_path / MEMORY)) == {f"{name}, {20 * GIB} bytes" for name in ("Made", "Other")}


def test_a_step_is_measured_with_the_options_that_it_will_have(tmp_path, plan_of, config_of, monkeypatch):
    made, graph = Made(), Execution(together=2, step=("graph", "channels_last"))
    for _ in range(2):  # the second finds both
        sharing_gpus(plan_of(measure={}), tmp_path, {"fake/d8/add": graph}, made)
    assert made.asked == [("add", 16, 2, "graph", "channels_last"), ("mul", 16, 1)]
    sharing_gpus(plan_of(measure={}), tmp_path, {}, made)  # begun anew by the plain step
    assert made.asked[2:] == [("add", 16, 1)]
    timed = []
    monkeypatch.setattr("study.resources.sharing.timer", lambda *given, options: timed.append((*given[2:], options)))
    OnCpu().training(config_of(), 2, graph.step)
    assert timed == [(2, "cpu", graph.step)]


def test_the_largest_batch_is_measured(tmp_path, plan_of):
    made = Made()
    nuisance = {"batch_size": {"choices": [8, 32, 16]}}
    fixed = {"dataset": "fake", "depth": 8, "width": 4, "epochs": 2}
    sharing_gpus(plan_of(nuisance=nuisance, fixed=fixed, measure={}), tmp_path, {}, made)
    assert made.asked == [("add", 32, 1), ("mul", 32, 1)]


def test_what_does_not_fit_at_all_is_refused(tmp_path, plan_of):
    with pytest.raises(
        UserError, match=r"resources.gpus = 0.25: not even one group fits .* fills 18.00 GiB of 20.00 GiB"
    ):
        sharing_gpus(plan_of(), tmp_path, {}, Made(18.0))


def test_without_a_gpu_it_is_said_that_nothing_was_measured(tmp_path, plan_of):
    plan = plan_of()
    assert sharing_gpus(plan, tmp_path, {}, None) == (
        plan,
        "no GPU here to measure memory on: groups share one as resources.gpus = 0.25 says",
    )
    assert not (tmp_path / MEMORY).exists()


class OnCpu(CudaMeter):
    """What is done on a GPU, done here; notes what was measured."""

    kind = "cpu"

    def __init__(self):
        self.work = []

    def _filled(self, work):
        work()
        self.work.append(work.__name__)
        return 7


def test_what_is_measured_is_what_is_done(config_of, monkeypatch):
    meter, taken = OnCpu(), []
    assert meter.training(config_of(), 2) == 14 and meter.work == ["steps", "evaluation"]
    monkeypatch.setattr(
        "study.resources.sharing.estimates_of", lambda name, given, context: taken.append((name, given, context.images))
    )
    assert meter.measuring(config_of(), [["path", {"num_pairs": 4}]]) == 7
    ((name, given, images),) = taken
    assert (name, given) == ("path", {"num_pairs": 4})
    # as many images as a replicate's own measuring has on the device
    assert {part: len(pixels) for part, pixels in images.items()} == {"train": 48, "val": 16, "test": 32}

"""float32 is float32 wherever something is trained, evaluated, re-estimated, measured or timed; and no memory is met twice."""

import contextlib

import pytest
import torch
from torch import nn
from toys import SMALL, conv_context, gated_net, images, run

import study.smoothness.hessian as module
from study.data.dataset import dataset_facts
from study.resources import timing
from study.smoothness import reestimated_batchnorm
from study.smoothness.context import exact_float32
from study.smoothness.hessian import lanczos
from study.smoothness.memory import halving
from study.training import lane
from study.worker.ahead import set_backend

CUDNN, MATMUL, MKLDNN = torch.backends.cudnn, torch.backends.cuda.matmul, torch.backends.mkldnn
SWITCHES = (CUDNN.conv, CUDNN.rnn, MATMUL, MKLDNN.conv, MKLDNN.rnn, MKLDNN.matmul)
EXACT = ["ieee"] * len(SWITCHES)


def precisions():
    return [switch.fp32_precision for switch in SWITCHES]


class Seen(nn.Module):
    """Notes the precision of each pass."""

    def __init__(self, net):
        super().__init__()
        self.net, self.seen = net, []

    def forward(self, x):
        self.seen.append(precisions())
        return self.net(x)


@pytest.fixture(params=["torch's defaults", "newer switches", "older switches", "one word for all"])
def switches(request):
    """As a user may have set them; afterwards as they were."""
    before = precisions()
    if request.param == "newer switches":
        CUDNN.conv.fp32_precision = MATMUL.fp32_precision = "tf32"
    elif request.param == "older switches":
        CUDNN.allow_tf32, MATMUL.allow_tf32 = False, True
    elif request.param == "one word for all":
        torch.set_float32_matmul_precision("medium")
    yield request.param
    if request.param == "older switches":
        CUDNN.allow_tf32, MATMUL.allow_tf32 = True, False
    elif request.param == "one word for all":
        torch.set_float32_matmul_precision("highest")
    for switch, precision in zip(SWITCHES, before, strict=True):
        switch.fp32_precision = precision


def test_measuring_and_reestimation_are_exact_and_leave_the_switches_as_they_were(switches):
    net, x, before = Seen(gated_net()), images(), precisions()
    with reestimated_batchnorm(net, x, 8):
        assert net.seen and precisions() == before
    run("input_jacobian", conv_context(net, x), **SMALL["input_jacobian"])
    assert all(seen == EXACT for seen in net.seen) and precisions() == before
    # nobody's reading of an older switch raises that did not before
    if switches == "older switches":
        assert not CUDNN.allow_tf32 and MATMUL.allow_tf32
    if switches == "one word for all":
        assert torch.get_float32_matmul_precision() == "medium"


def test_a_worker_trains_and_evaluates_in_it(switches):
    num, flags = torch.get_num_threads(), (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)
    set_backend(num)
    try:
        assert precisions() == EXACT
    finally:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = flags


def test_steps_are_timed_in_it(config_of, monkeypatch):
    seen = []
    monkeypatch.setattr(timing, "train_epoch", lambda member, epoch: seen.append(precisions()))
    before = precisions()
    timing.timer(config_of(), dataset_facts("fake"), 1, "cpu")()
    assert seen == [EXACT, EXACT] and precisions() == before


def test_it_ends_with_an_error():
    before = precisions()
    with pytest.raises(KeyError), exact_float32():
        raise KeyError
    assert precisions() == before


def test_another_thread_may_pin_memory_while_a_graph_is_captured(monkeypatch):
    """torch's default, ``global``, makes any thread's allocation an error of the capture."""
    given, done = [], []

    class Graph:
        def replay(self):
            done.append("replayed")

    @contextlib.contextmanager
    def graph(made, **options):
        given.append((type(made), options))
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    lane.capture(lambda: done.append("captured"))()
    assert given == [(Graph, {"capture_error_mode": "thread_local"})] and done == ["captured", "replayed"]


# --- memory -----------------------------------------------------------------------------------------------------------


def test_where_memory_is_out_no_work_is_done_twice():
    sizes = []

    def work(chunk):
        sizes.append(min(chunk, 30))  # of 30 images no more pass than there are
        if sizes[-1] > 4:
            raise torch.OutOfMemoryError("no room")
        return chunk

    assert halving(512, work, "it", lambda: sizes[-1]) == 3 and sizes == [30, 15, 7, 3]
    sizes.clear()
    assert halving(16, work, "it") == 4 and sizes == [16, 8, 4]


@pytest.mark.parametrize(
    "name", ["noise_stability", "adaptive_sharpness", "loss_slices", "hessian", "input_curvature", "path"]
)
def test_a_statistic_that_does_not_fit_passes_no_batch_of_one_size_twice(name):
    class Tight(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.refused = gated_net(), []

        def forward(self, x):
            if len(x) > 8:  # more than the look at dependence on the batch
                self.refused.append(len(x))
                raise torch.OutOfMemoryError("no room")
            return self.net(x)

    net = Tight()
    run(name, conv_context(net, images(), chunk=1024), **SMALL[name])
    assert net.refused and len(set(net.refused)) == len(net.refused)


def test_many_lanczos_vectors_lie_on_the_host_and_change_nothing(monkeypatch):
    matrix = torch.randn(40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix, start = matrix + matrix.T, torch.ones(40, dtype=torch.float64)
    found = []
    for most in (module._MOST_ON_DEVICE, 0):
        monkeypatch.setattr(module, "_MOST_ON_DEVICE", most)
        given = []
        found.append(lanczos(lambda v, given=given: given.append(v.device) or matrix @ v, start, 12))
        assert set(given) == {start.device}
    assert torch.equal(found[0].values, found[1].values)

"""What every registered statistic does where it cannot do what it was asked: one clear line, and the network left alone."""

import math

import pytest
import torch
from torch import nn
from toys import SMALL, assert_same, conv_net, gated_net, gen, images, snapshot
from toys import conv_context as context

from study.errors import UserError
from study.registry import STATISTICS
from study.smoothness import IncompleteError, MeasureContext, estimate_names, measure, parse_settings

ALL = STATISTICS.names()
PAIRED = ("frequency", "linear_regions", "path")
# of few samples, to be seen: through two planes, along two directions, between three pairs
PICTURES = {"decision_regions": 2, "loss_slices": 2, "path_picture": 3}


def small(name):
    return parse_settings(name, SMALL.get(name, {}))


class Watched(nn.Module):
    """A network that counts its forward passes, and may fail in one or have too little room."""

    def __init__(self, net, fails_at=0, room=math.inf, error=None):
        super().__init__()
        self.net, self.fails_at, self.room, self.error = net, fails_at, room, error
        self.passes, self.largest = 0, 0

    def forward(self, x):
        self.passes, self.largest = self.passes + 1, max(self.largest, len(x))
        if self.passes == self.fails_at:
            raise KeyError("in the midst")
        if len(x) > self.room:
            raise self.error or torch.OutOfMemoryError("no room")
        return self.net(x)


# --- as it should be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_passes_do_not_grow_with_images_and_hold_a_chunk_at_most(name):
    keys = [key for key in ("num_samples", "num_pairs") if key in SMALL[name]]
    passes = []
    for count in (4, 16):
        net = Watched(gated_net())
        settings = parse_settings(name, SMALL[name] | dict.fromkeys(keys, count))
        measure(name, settings, context(net, images(20), chunk=100_000))
        passes.append(net.passes)
    # an ascent or an iteration may take a little longer; a loop over images takes four times as long
    assert passes[1] < 1.5 * passes[0]
    net = Watched(gated_net())
    measure(name, small(name), context(net, images(), chunk=5))
    assert net.largest <= 5


@pytest.mark.parametrize("name", ALL)
def test_a_fault_in_the_midst_leaves_everything_as_found(name):
    whole = Watched(gated_net())
    measure(name, small(name), context(whole, images(), chunk=8))
    for fails_at in {1, (whole.passes + 2) // 2, whole.passes}:
        net = Watched(gated_net().train(), fails_at=fails_at)
        before, states = snapshot(net), torch.get_rng_state()
        precision = torch.backends.cudnn.conv.fp32_precision
        with pytest.raises(KeyError, match="in the midst"):
            measure(name, small(name), context(net, images(), chunk=8))
        assert_same(before, snapshot(net))
        assert torch.equal(torch.get_rng_state(), states)
        assert torch.backends.cudnn.conv.fp32_precision == precision


# --- outputs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_outputs_that_are_not_finite_or_not_logits_are_refused(name):
    net = gated_net()
    with torch.no_grad():
        list(net.parameters())[-1][0] = math.nan
    with pytest.raises(UserError, match="not finite"):
        measure(name, small(name), context(net, images()))
    with pytest.raises(UserError, match=r"shape \(8, 3\), not \(N, 4\)"):
        measure(name, small(name), context(gated_net(), images(), num_classes=4))


@pytest.mark.parametrize("name", ALL)
def test_images_that_are_not_finite_are_refused_too(name):
    # the first eight images, which are looked at before, are sound
    x = images(20)
    x[8:] = math.nan
    settings = parse_settings(name, SMALL[name] | {k: 200 for k in ("num_samples", "num_pairs") if k in SMALL[name]})
    with pytest.raises(UserError, match=r"not finite|span a plane"):
        measure(name, settings, context(gated_net(), x))


@pytest.mark.parametrize("name", ALL)
def test_a_network_that_mixes_its_batch_is_refused(name):
    class Mixed(nn.Module):
        def __init__(self, mix):
            super().__init__()
            self.net, self.mix = gated_net(), mix

        def forward(self, x):
            z = self.net(x)
            return z * torch.sigmoid(self.mix(z))

    by_place = lambda z: torch.arange(len(z))[:, None].to(z)  # noqa: E731
    for mix in (lambda z: z.roll(1, 0), lambda z: z.flip(0), by_place):
        with pytest.raises(UserError, match="rest of its batch"):
            measure(name, small(name), context(Mixed(mix), images()))
    measure(name, small(name), context(Mixed(lambda z: z), images()))


# --- classes and images -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_network_of_one_class_is_refused(name):
    net = nn.Sequential(nn.Flatten(), nn.Linear(49, 1))
    with pytest.raises(UserError, match="a network of 1 class predicts one thing everywhere"):
        measure(name, small(name), context(net, images(), torch.zeros(30, dtype=torch.long), num_classes=1))


@pytest.mark.parametrize("name", ALL)
def test_a_split_of_one_class_gives_what_it_can_and_the_reason(name):
    one_class = context(gated_net(), images(6), torch.zeros(6, dtype=torch.long))
    settings = small(name)
    if name in PAIRED:
        with pytest.raises(IncompleteError, match=r"split 'test' \(6 images\) has no different-class pair") as caught:
            measure(name, settings, one_class)
        assert caught.value.estimates.keys() == {n for n in estimate_names(name, settings) if "different" not in n}
    elif name in ("decision_regions", "path_picture"):
        with pytest.raises(UserError, match="class"):
            measure(name, settings, one_class)
    else:
        assert set(estimate_names(name, settings)) <= set(measure(name, settings, one_class))


def test_one_image_has_no_pair_at_all():
    for name in ("frequency", "path"):
        with pytest.raises(UserError, match="no same-class and no different-class pair"):
            measure(name, small(name), context(gated_net(), images(1)))
    with pytest.raises(IncompleteError, match="no same-class and no different-class pair") as caught:
        measure("linear_regions", small("linear_regions"), context(gated_net(), images(1)))
    assert all("noise" in n and math.isnan(e.stderr) for n, e in caught.value.estimates.items())


def number_of_samples(name, key):
    """Of an estimate from six images, two of each class: images, or pairs, probes, draws, shuffles."""
    if name in PICTURES:
        return PICTURES[name]
    for part, count in (("same", 3), ("different", 6 if name == "linear_regions" else 12), ("null", 10)):
        if part in key.split("_") and "per_image" not in key:
            return count
    if name == "hessian":
        return 6 if "eigenvalue" in key or "ritz" in key else 2
    if name == "attention_shapley" and key.endswith("reliability"):
        return 4  # orders
    return 3 if name == "adaptive_sharpness" and key.endswith("mean") else 6


@pytest.mark.parametrize("name", ALL)
def test_fewer_images_than_asked_are_told(name):
    found = measure(name, small(name), context(gated_net(), images(6)))
    assert found
    for key, value in found.items():
        assert value.num_samples == number_of_samples(name, key), key


@pytest.mark.parametrize("name", ALL)
def test_a_single_image_has_values_and_no_standard_error_over_images(name):
    if name in PAIRED or name in PICTURES:
        pytest.skip("needs pairs, see above; or has no values by image")
    found = measure(name, small(name), context(gated_net(), images(1)))
    assert set(estimate_names(name, small(name))) <= set(found)
    over_images = [e for e in found.values() if e.num_samples == 1]
    assert over_images and all(math.isnan(e.stderr) or name == "hessian" for e in over_images)


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_out_of_memory_halves_the_chunk(name):
    nets = Watched(gated_net(), room=4), Watched(gated_net())
    tight, plain = (measure(name, small(name), context(net, images())) for net in nets)
    for key, value in plain.items():
        # a rank or a sign may turn at a tie
        assert tight[key].value == pytest.approx(value.value, rel=1e-2, abs=1e-2, nan_ok=True), key


SIGNS = [
    torch.OutOfMemoryError("no room"),
    MemoryError("Unable to allocate 7 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`\nmore lines"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
]


@pytest.mark.parametrize("name", ALL)
def test_no_room_for_one_image_ends_that_statistic_alone(name):
    net = Watched(gated_net().train(), room=0)
    before = snapshot(net)
    with pytest.raises(UserError, match=f"statistic '{name}' does not fit into memory, not with one image .*: no room"):
        measure(name, small(name), context(net, images()))
    assert_same(before, snapshot(net))
    assert net.largest > 1 == net.room + 1


@pytest.mark.parametrize("error", SIGNS, ids=lambda error: str(error)[:30])
def test_memory_that_is_out_is_known_whoever_says_so(error):
    with pytest.raises(UserError, match="does not fit into memory") as caught:
        measure("input_jacobian", small("input_jacobian"), context(Watched(gated_net(), room=0, error=error), images()))
    assert "\n" not in str(caught.value)


def test_the_temperature_is_fitted_in_smaller_chunks_too():
    def fitted(net):
        y = torch.arange(30) % 3
        return MeasureContext.calibrated(model=net, images={"val": images()}, labels={"val": y}, num_classes=3, seed=1)

    assert fitted(Watched(gated_net(), room=3)).temperature == pytest.approx(fitted(gated_net()).temperature)
    with pytest.raises(UserError, match="the network does not fit into memory"):
        fitted(Watched(gated_net(), room=0))


@pytest.mark.parametrize("name", ALL)
def test_another_error_is_not_retried(name):
    with pytest.raises(RuntimeError, match="size"):
        measure(name, small(name), context(conv_net(), torch.rand(9, 1, 2, 2, generator=gen())))

"""Landscapes against closed forms: quadratic losses, direct normalisation, convex regions, and regions of scipy."""

import copy
import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import nn
from torch.nn import functional
from toys import Fn, conv_context, conv_net, fn_context, gen, images, run

from study.errors import UserError
from study.smoothness.decision_regions import connected_regions, num_regions
from study.smoothness.loss_slices import filter_normalised
from study.smoothness.pairs import draw_pairs, draw_triplets, fixed_generator

# --- loss slices ------------------------------------------------------------------------------------------------------


class Quadratic(nn.Module):
    """Logits (-q, 0) with q = w A w + b . w at w the rows of ``weight``; float64, so that the loss is -log sigmoid(-q)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3, generator=gen(), dtype=torch.float64))
        self.bias = nn.Parameter(torch.ones(2, dtype=torch.float64))

    def forward(self, x):
        q = (self.weight**2).sum() + self.weight[0, 0] * self.weight[1, 2] + self.bias.sum()
        # log(1 + e^z) = q where z = log(e^q - 1): the cross-entropy of class 0 is q itself
        return torch.stack([0 * q, torch.log(torch.expm1(q))]).expand(len(x), 2) + 0 * x[:, :1]


def table(context, name):
    return {key: column.numpy() for key, column in context.kept[name].items()}


def test_slices_of_a_quadratic_loss_are_its_closed_form() -> None:
    net = Quadratic()
    ctx = conv_context(net, torch.rand(7, 2, dtype=torch.float64), torch.zeros(7, dtype=torch.long), num_classes=2)
    got = run("loss_slices", ctx, split="test", num_directions=3, num_points=9, num_square=5, radius=0.5)
    w = net.weight.detach().numpy()
    directions = [filter_normalised(ctx, i)["weight"].numpy() for i in range(3)]

    def loss(a, d, b=0.0, e=0.0):
        v = w + a * d + b * e
        return (v**2).sum() + v[0, 0] * v[1, 2] + 2

    line = table(ctx, "line")
    expected = [loss(a, directions[i]) for i, a in zip(line["direction"], line["alpha"], strict=True)]
    assert np.allclose(line["loss"], expected, rtol=1e-9)
    assert sorted(set(line["alpha"])) == pytest.approx(np.linspace(-0.5, 0.5, 9)) and 0.0 in line["alpha"]
    square = table(ctx, "square")
    expected = [loss(a, directions[0], b, directions[1]) for a, b in zip(square["alpha"], square["beta"], strict=True)]
    assert np.allclose(square["loss"], expected, rtol=1e-9) and len(expected) == 25
    # along a quadratic, rise at r is r^2 / 2 times the curvature, which is d . H d whatever the step
    curvature = np.array([2 * (d**2).sum() + 2 * d[0, 0] * d[1, 2] for d in directions])
    assert got["loss_slices_curvature"].value == pytest.approx(curvature.mean(), rel=1e-7)
    assert got["loss_slices_curvature"].stderr == pytest.approx(curvature.std(ddof=1) / 3**0.5, rel=1e-6)
    assert got["loss_slices_rise"].value == pytest.approx(curvature.mean() * 0.125, rel=1e-7)
    assert got["loss_slices_rise_log"].value == pytest.approx(math.log(curvature.mean() * 0.125), rel=1e-7)
    assert got["loss_slices_rise"].num_samples == 3


def test_directions_have_the_norms_of_the_filters_and_are_zero_elsewhere() -> None:
    net = conv_net()
    with torch.no_grad():
        net[3].weight[2] = 0.0  # a dead filter stays where it is
    ctx = conv_context(net, images())
    found = filter_normalised(ctx, 1)
    assert set(found) == {"0.weight", "3.weight", "8.weight"}  # neither biases nor batch norm
    for name, direction in found.items():
        weight = dict(net.named_parameters())[name].detach()
        drawn = torch.randn(weight.shape, generator=ctx.generator(f"loss_slices/1/{name}"))
        for d, w, raw in zip(direction, weight, drawn, strict=True):  # as the paper says it, filter by filter
            torch.testing.assert_close(d, raw * (w.norm() / raw.norm()))
    assert found["3.weight"][2].abs().max() == 0


def test_a_direction_depends_on_seed_name_and_shape_alone() -> None:
    x = images()
    wide = nn.Sequential(*conv_net(), nn.ReLU(), nn.Linear(3, 3))
    first, second = filter_normalised(conv_context(conv_net(), x), 0), filter_normalised(conv_context(wide, x), 0)
    assert torch.equal(first["3.weight"], second["3.weight"]) and "10.weight" in second
    other = filter_normalised(conv_context(conv_net(), x, seed=6), 0)
    assert not torch.allclose(first["3.weight"], other["3.weight"])
    assert not torch.allclose(first["3.weight"], filter_normalised(conv_context(conv_net(), x), 1)["3.weight"])


def test_slices_are_those_of_a_network_whose_weights_are_moved_by_hand() -> None:
    net, x = conv_net().eval(), images()
    ctx = conv_context(net, x, chunk=7)
    y = ctx.labels["test"]
    run("loss_slices", ctx, split="test", num_directions=2, num_points=3, num_square=3, num_samples=99, radius=0.7)
    line, square = table(ctx, "line"), table(ctx, "square")
    directions = [filter_normalised(ctx, i) for i in range(2)]

    def by_hand(*steps):
        moved = copy.deepcopy(net)
        with torch.no_grad():
            for (name, parameter), (a, b) in zip(moved.named_parameters(), [steps] * 99, strict=False):
                if name in directions[0]:
                    parameter += a * directions[0][name] + b * directions[1][name]
            z = moved(x)
        return float(functional.cross_entropy(z, y)), float((z.argmax(1) == y).float().mean())

    for i in range(9):
        expected = by_hand(square["alpha"][i], square["beta"][i])
        assert (square["loss"][i], square["accuracy"][i]) == pytest.approx(expected, rel=1e-4)
    assert line["loss"][2] == pytest.approx(by_hand(0.7, 0.0)[0], rel=1e-4)
    assert line["loss"][3] == pytest.approx(by_hand(0.0, -0.7)[0], rel=1e-4)
    assert line["loss"][1] == line["loss"][4] == square["loss"][4]  # the trained weights


def test_a_loss_that_overflows_far_away_is_kept_and_told() -> None:
    class Explosive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((2, 1), 1e-3))

        def forward(self, x):
            z = x[:, :1] @ self.weight.T
            return z / (self.weight.abs() > 5e-4).all()  # infinite once half of the weight is gone

    ctx = conv_context(Explosive(), 1 + images()[:, 0, 0], num_classes=2, y=torch.arange(30) % 2)
    got = run("loss_slices", ctx, split="test", num_points=5, num_square=3, radius=0.8)
    line = table(ctx, "line")
    assert math.isinf(line["loss"].max()) and not np.isnan(line["loss"]).any()
    assert line["accuracy"][np.isinf(line["loss"])].max() == 0
    assert not got["loss_slices_rise"].converged
    with pytest.raises(UserError, match="not finite"):
        run("loss_slices", conv_context(Fn(lambda x: x * math.nan, 2), torch.rand(5, 2), num_classes=2), split="test")


def test_an_error_on_the_way_leaves_the_weights_as_they_were() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.calls = conv_net(), 0

        def forward(self, x):
            self.calls += 1
            if self.calls > 9:
                raise RuntimeError("boom")
            return self.net(x)

    net = Failing()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(RuntimeError, match="boom"):
        run("loss_slices", conv_context(net, images()), split="test")
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


# --- regions ----------------------------------------------------------------------------------------------------------


def test_regions_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    grids = np.stack([rng.integers(0, 1 + k % 4, (17, 23)) for k in range(12)])
    spiral = np.zeros((17, 23), dtype=grids.dtype)  # long and thin: a path through the whole grid
    spiral[::2] = 1
    spiral[1::4, -1] = spiral[3::4, 0] = 1
    grids[0] = spiral
    region = connected_regions(torch.from_numpy(grids)).numpy()
    counts = num_regions(torch.from_numpy(grids)).tolist()
    for grid, mine, count in zip(grids, region, counts, strict=True):
        total, theirs = 0, np.zeros_like(grid)
        for label in np.unique(grid):
            named, num = scipy.ndimage.label(grid == label)
            theirs += np.where(named > 0, named + total, 0)
            total += num
        assert count == total
        # one to one
        assert len(set(zip(mine.ravel(), theirs.ravel(), strict=True))) == total == len(set(mine.ravel()))
    assert counts[0] == 1 + 8


def nearest_mean(x: torch.Tensor) -> Fn:
    """A linear classifier: the nearest of ``x`` (K, ...), so every region is convex."""
    return Fn(lambda points: -(torch.cdist(points.flatten(1), x.flatten(1)) ** 2), len(x))


def test_a_linear_classifier_has_one_region_a_class_and_samples_lie_in_their_own() -> None:
    x = torch.rand(5, 1, 3, 4, generator=gen(1), dtype=torch.float64)  # no sliver here is narrower than the grid
    ctx = fn_context(nearest_mean(x), x)
    got = run("decision_regions", ctx, num_planes=10, num_points=80)
    assert got["decision_regions_excess"].value == 0
    assert got["decision_regions_components"].value == got["decision_regions_classes"].value >= 3
    assert got["decision_regions_components"].num_samples == 10  # every triplet of five
    corners, labels = table(ctx, "corners"), table(ctx, "labels")
    grids = labels["label"].reshape(10, 80, 80)
    for i in range(30):
        place = [
            round(79 * (corners[a][i] - corners[f"{a}_low"][i]) / (corners[f"{a}_high"][i] - corners[f"{a}_low"][i]))
            for a in "xy"
        ]
        assert grids[corners["plane"][i], place[1], place[0]] == corners["label"][i]
    # lengths in the plane are lengths between the images, and the grid goes a tenth further on each side
    at = np.stack([corners["x"], corners["y"]], 1).reshape(10, 3, 2)
    for plane, names in enumerate(corners["label"].reshape(10, 3)):
        for a, b in ((0, 1), (0, 2), (1, 2)):
            assert math.dist(at[plane, a], at[plane, b]) == pytest.approx(float((x[names[a]] - x[names[b]]).norm()))
        width = np.ptp(at[plane, :, 0])
        assert corners["x_low"][3 * plane] == pytest.approx(at[plane, :, 0].min() - 0.1 * width)
        assert corners["x_high"][3 * plane] == pytest.approx(at[plane, :, 0].max() + 0.1 * width)


def test_stripes_are_counted() -> None:
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    net = Fn(lambda p: functional.one_hot((p[:, 0] * 10).floor().long() % 3, 3).double(), 3)
    got = run("decision_regions", fn_context(net, x), num_planes=1, num_points=121)
    # the only plane is from -0.1 to 1.1 on each axis, whichever corner is the origin: twelve stripes, or slanted ones
    assert got["decision_regions_classes"].value == 3
    assert got["decision_regions_components"].value >= 12
    assert not got["decision_regions_excess"].converged  # one plane has no standard error


def test_planes_and_pairs_are_the_same_for_every_network_and_replicate() -> None:
    x = images()
    first, second = conv_context(conv_net(), x), conv_context(conv_net(), x, seed=99)
    for ctx in (first, second):
        run("decision_regions", ctx, num_planes=4, num_points=5)
        run("path_picture", ctx, num_pairs=4)
    for name in ("corners", "labels", "curves"):
        for key, column in first.kept[name].items():
            assert torch.equal(column, second.kept[name][key]), (name, key)
    other = conv_context(conv_net(), x)
    run("decision_regions", other, num_planes=4, num_points=5, draw=2)
    assert not torch.equal(other.kept["corners"]["x"], first.kept["corners"]["x"])


def test_triplets_are_distinct_and_of_three_classes() -> None:
    y = torch.tensor([0, 1, 1, 2, 0, 3])
    drawn = draw_triplets(y, 1000, fixed_generator("a", 1)).tolist()
    assert len({frozenset(t) for t in drawn}) == len(drawn) == 4 + 2 + 2 + 4  # classes 012, 013, 023... of 2, 2, 1, 1
    assert all(len({int(y[i]) for i in t}) == 3 for t in drawn)
    assert draw_triplets(y, 3, fixed_generator("a", 1)).tolist() == drawn[:3]


@pytest.mark.parametrize(
    ("name", "settings", "labels", "message"),
    [
        ("decision_regions", {}, [0, 1, 0, 1], "samples of three classes; these 4 images are of 2"),
        ("decision_regions", {"num_points": 1}, [0, 1, 2], "'num_points' must be 2 or more, not 1"),
        ("decision_regions", {"draw": 0}, [0, 1, 2], "'draw' must be a positive whole number, not 0"),
        ("decision_regions", {"margn": 1}, [0, 1, 2], "did you mean 'margin'"),
        ("path_picture", {}, [1, 1, 1], "no different-class pair"),
        ("loss_slices", {"num_points": 20}, [0, 1, 2], "'num_points' must be odd and 3 or more, .* not 20"),
        ("loss_slices", {"num_square": 1}, [0, 1, 2], "'num_square' must be odd and 3 or more, .* not 1"),
    ],
)
def test_bad_input_is_one_clear_line(name, settings, labels, message) -> None:
    with pytest.raises(UserError, match=message):
        run(name, conv_context(conv_net(), images(len(labels)), torch.tensor(labels)), **settings)


def test_samples_on_a_line_and_networks_without_filters_are_told() -> None:
    x = torch.arange(3.0)[:, None].expand(3, 4).contiguous()
    with pytest.raises(UserError, match=r"no three samples of split 'test' \(3 images\) span a plane"):
        run("decision_regions", fn_context(Fn(lambda p: p[:, :3], 3), x))
    with pytest.raises(UserError, match="there are no filters"):
        run("loss_slices", fn_context(Fn(lambda p: p[:, :3], 3), x), split="test")


# --- paths ------------------------------------------------------------------------------------------------------------


def test_the_path_picture_holds_the_prediction_on_the_line() -> None:
    weight = torch.randn(2, 4, generator=gen(), dtype=torch.float64)
    net = Fn(lambda x: 3 * x @ weight, 4)
    x = torch.rand(12, 2, generator=gen(1), dtype=torch.float64)
    ctx = fn_context(net, x, temperature=2.0)
    got = run("path_picture", ctx, num_pairs=5, num_steps=10)
    curves, peaks = table(ctx, "curves"), []
    starts = draw_pairs(ctx.labels["test"], 5, False, fixed_generator("path_picture/test", 1))[:, 0]
    for pair in range(5):
        rows = {name: column[curves["pair"] == pair] for name, column in curves.items()}
        a, b = int(rows["label_start"][0]), int(rows["label_end"][0])
        assert a != b and np.allclose(rows["t"], np.linspace(0, 1, 11))
        # logits are linear on the line, so the log odds of the two classes are
        odds = np.log(rows["p_start"] / rows["p_end"])
        assert np.allclose(np.diff(odds, n=2), 0, atol=1e-9)
        assert ((rows["other"] != a) & (rows["other"] != b)).all()
        assert (rows["p_start"] + rows["p_end"] + 2 * rows["p_other"] >= 1 - 1e-9).all()  # of two others, the larger
        start = np.exp(1.5 * (x[starts[pair]] @ weight).numpy())
        assert rows["p_start"][0] == pytest.approx(start[a] / start.sum())
        peaks.append(rows["p_other"].max())
    assert got["path_picture_third_class"].value == pytest.approx(np.mean(peaks))


def test_of_two_classes_there_is_no_third() -> None:
    net = Fn(lambda x: x, 2)
    got = run("path_picture", fn_context(net, torch.rand(6, 2, generator=gen())))
    assert got["path_picture_third_class"].value == 0

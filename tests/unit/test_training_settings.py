"""Settings that recipes of others need: an optimiser made each epoch, a short last batch, parts of a batch, moments."""

import copy
import dataclasses

import pytest
import torch
from exact_images import Exact
from torch import nn
from torch.func import functional_call
from torch.nn import functional
from trainings import train

from study.config import TrialConfig
from study.data import load_dataset, split
from study.data.parts import Together
from study.errors import UserError
from study.models import build_network
from study.models.build import IMAGENET_DEVIATION, IMAGENET_MEAN
from study.models.merges.rows import ROWS
from study.planning.plan import make_plan
from study.training.loop import batches_per_epoch, epoch_order
from study.training.options import obstacle

LITERAL = TrialConfig(
    dataset="fake", network="authors_wrn", depth=10, width=1, merge="authors_8", seed=1, split_seed=2, epochs=3, batch_size=8,
    lr=0.05, weight_decay=5e-4, schedule="constant", last_batch="keep", optimizer_made="each_epoch", norm_parts=2,
    norm_momentum=0.3, input_moments="imagenet",
)  # fmt: skip


class Kept(Exact):
    """Asked for a last short batch too, and for whole batches."""

    def epoch(self, order, size, augment, seed, rows=slice(None), *, short=False):
        assert short and rows.indices(size) == (0, size, 1)
        return super().epoch(order, size, augment, seed, rows, short=short)


def network(config=LITERAL, channels=3) -> nn.Module:
    mean, deviation = (0.5,) * channels, (0.25,) * channels
    return build_network(config, num_classes=4, mean=mean, deviation=deviation).double()


def on_two_devices(model, pixels):
    """As ``nn.DataParallel``: each device's copy sees its part of the batch; the buffers of the first are kept."""
    outputs = []
    for number, part in enumerate(pixels.chunk(2)):
        buffers = dict(model.named_buffers())
        if number:
            buffers = {name: value.clone() for name, value in buffers.items()}
        outputs.append(functional_call(model, (dict(model.named_parameters()), buffers), (part,)))
    return torch.cat(outputs)


def test_three_epochs_are_those_of_a_loop_by_hand():
    """Plain torch: two devices, a new SGD each epoch, the batch of five too. Momenta .3, but .9 in the last norm."""
    model = network()
    # batches of 8, 8 and 5
    seen, held = (Kept.drawn(seed, num=21, channels=3) for seed in range(2))
    plain = dataclasses.replace(LITERAL, norm_parts=1, norm_momentum=0.1, input_moments="dataset")
    theirs = build_network(plain, num_classes=4, mean=IMAGENET_MEAN, deviation=IMAGENET_DEVIATION).double()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d) and module is not theirs.bn:
            module.momentum = 0.3
    *_, trained = train(model, seen, held, LITERAL, None)
    losses = []
    for epoch in range(3):
        optimizer = torch.optim.SGD(theirs.train().parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        order, losses = epoch_order(21, LITERAL.seed, epoch), []
        for start in (0, 8, 16):
            index = order[start : start + 8]
            loss = functional.cross_entropy(on_two_devices(theirs, seen.pixels[index]), seen.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert trained.curves["train/loss"][-1] == pytest.approx(sum(losses) / 3, rel=1e-6)
    found = model.state_dict()
    assert found.keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11, msg=name)
    assert model.bn.momentum == 0.9 and found["bn.num_batches_tracked"] == 9
    for change in ({"optimizer_made": "once"}, {"norm_parts": 1}, {"norm_momentum": 0.1}):  # the check can fail
        config = dataclasses.replace(LITERAL, **change)
        other = network(config)
        list(train(other, seen, held, config, None))
        means = [each.stages[2][0].bn2.running_mean for each in (other, theirs)]
        assert not torch.allclose(*means, rtol=1e-6), change


def test_a_batch_norm_in_parts_by_hand():
    one = network().stages[0][0].bn1
    x = torch.randn(5, 16, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    got = one.train()(x)
    for rows in (slice(0, 3), slice(3, 5)):  # as torch.chunk has it
        part = x[rows]
        mean, variance = part.mean((0, 2, 3), keepdim=True), part.var((0, 2, 3), correction=0, keepdim=True)
        torch.testing.assert_close(got[rows], (part - mean) / (variance + 1e-5).sqrt())
    torch.testing.assert_close(one.running_mean, 0.3 * x[:3].mean((0, 2, 3)))
    torch.testing.assert_close(one.running_var, 0.7 + 0.3 * x[:3].var((0, 2, 3)))
    kept, whole = copy.deepcopy(one.state_dict()), one.eval()(x)
    torch.testing.assert_close(whole[:2], one(x[:2]))
    assert all(torch.equal(value, kept[name]) for name, value in one.state_dict().items())
    # clamped ones too
    merge = network(dataclasses.replace(LITERAL, merge="authors_21")).stages[0][0].merge
    assert ROWS[21].x.shift == 1 and type(merge.bn_x) is type(one) and "bias" in dict(merge.bn_x.named_buffers())


@pytest.mark.parametrize("num", [16, 17, 18])
def test_batches_of_an_epoch(num):
    """A rest of one joins the batch before; steps, images and what is seen agree in all ways to make batches."""
    part = split(load_dataset("fake"), 2).train.take(torch.arange(num).numpy())
    keep = dataclasses.replace(LITERAL, last_batch="keep")
    drop = dataclasses.replace(LITERAL, last_batch="drop")
    assert batches_per_epoch(drop, num) == (8, 2, 16)
    assert batches_per_epoch(keep, num) == (8, 3 if num == 18 else 2, num)
    order = epoch_order(num, 1, 0)
    for short, lengths in ((False, [8, 8]), (True, {16: [8, 8], 17: [8, 9], 18: [8, 8, 2]}[num])):
        for augment in ("none", "pad_crop"):
            alone = list(part.epoch(order, 8, augment, 5, short=short))
            assert [len(labels) for _, labels in alone] == lengths
            assert torch.equal(torch.cat([labels for _, labels in alone]), part.labels[order[: sum(lengths)]])
            two = list(Together([part, part]).epoch([order, order.flip(0)], 8, augment, [5, 6], short=short))
            for (pixels, labels), (own, marked) in zip(two, alone, strict=True):
                assert torch.equal(pixels[0], own) and torch.equal(labels[0], marked)


def test_validation_on_test_images_trains_on_all_others():
    dataset = load_dataset("fake")
    parts = split(dataset, 2, "test")
    assert len(parts.train) == len(dataset.pool) and parts.val is parts.test
    assert len(split(dataset, 2).train) < len(dataset.pool)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"last_batch": "kept"}, "'last_batch' = 'kept': expected drop or keep.*did you mean 'keep'"),
        ({"optimizer_made": "always"}, "'optimizer_made' = 'always': expected once or each_epoch"),
        ({"norm_momentum": 0.0}, "'norm_momentum' = 0.0: expected a number above 0, 1 at most"),
        ({"norm_parts": 9}, "'norm_parts' = 9: expected a whole number from 1 to the batch size"),
        ({"input_moments": "cifar"}, "'input_moments' = 'cifar': expected dataset or imagenet"),
        ({"validation": "none"}, "'validation' = 'none': expected held_out or test"),
    ],
)
def test_what_a_setting_cannot_be(values, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(LITERAL, **values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fixed": {"validation": "test"}}, "'validation' = 'test' with budget.search_trials above 0"),
        ({"fixed": {"input_moments": "imagenet"}}, "'input_moments' = 'imagenet' with images of 1 channels"),
        (
            {"fixed": {"last_batch": "keep"}, "resources": {"data_parallel": 2}},
            "data_parallel = 2 with last_batch = 'keep'",
        ),
        ({"fixed": {"norm_parts": 2}, "resources": {"data_parallel": 2}}, "data_parallel = 2 with norm_parts = 2"),
    ],
)
def test_what_a_plan_refuses(spec_of, changes, message):
    with pytest.raises(UserError, match=message):
        make_plan(spec_of(**changes | {"fixed": {"dataset": "fake", "depth": 8, "epochs": 1} | changes["fixed"]}))


def test_a_graph_holds_steps_of_one_size():
    assert "short last batch" in obstacle("graph", LITERAL, "cuda")
    assert not obstacle("graph", dataclasses.replace(LITERAL, last_batch="drop"), "cuda")

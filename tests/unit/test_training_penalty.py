"""The Jacobian penalty against closed forms, finite differences in float64, and what it is for."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from operators import MATCHED, PLAIN
from torch import nn
from trainings import train

from study.config import TrialConfig
from study.data import load_dataset, split
from study.models import build_network
from study.registry import ATTENTIONS
from study.smoothness import MeasureContext, measure, parse_settings
from study.training import loop
from study.training.penalty import jacobian_penalty, unit_directions

CONFIG = TrialConfig(
    dataset="fake", depth=8, width=4, seed=1, split_seed=2, epochs=2, batch_size=16, jacobian_penalty=0.1
)


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def network(config, name="fake"):
    data = load_dataset(name)
    return build_network(config, num_classes=data.num_classes, mean=data.mean, deviation=data.deviation)


def last(config, checkpoint=None, stop_after=None, name="fake"):
    model, parts = network(config, name), split(load_dataset(name), 2)
    *_, event = itertools.islice(train(model, parts.train, parts.val, config, checkpoint), stop_after)
    return model, event


def same(one, other):
    weights = one.state_dict(), other.state_dict()
    return all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_on_a_linear_model_its_mean_over_an_orthonormal_basis_is_the_squared_norm():
    weight, x = normal(3, 5), normal(1, 5, seed=1).requires_grad_()
    found = [jacobian_penalty(x @ weight.T, x, direction[None]) for direction in torch.eye(3, dtype=torch.float64)]
    assert float(sum(found)) / 3 == pytest.approx(float(weight.square().sum()), rel=1e-12)


def test_on_a_linear_model_its_expectation_is_the_squared_norm():
    weight, x = normal(4, 6), normal(20_000, 6, seed=1).requires_grad_()
    directions = unit_directions(20_000, 4, 3, 0, 0)
    each = 4 * (directions @ weight).square().sum(1)  # by hand: C ||v^T W||^2
    found = float(jacobian_penalty(x @ weight.T, x, directions))
    assert found == pytest.approx(float(each.mean()), rel=1e-12)
    assert abs(found - float(weight.square().sum())) < 5 * float(each.std()) / math.sqrt(20_000)


def test_what_a_pixel_does_to_other_images_counts_and_has_no_cross_terms():
    """z_n = W (x_n - mean x): the blocks of the batch's Jacobian are W (delta - 1/N), their squares sum to (N - 1) |W|^2."""
    weight, x = normal(3, 5), normal(4, 5, seed=1).requires_grad_()
    logits = (x - x.mean(0)) @ weight.T
    drawn = torch.tensor([
        float(jacobian_penalty(logits, x, unit_directions(4, 3, 0, 0, step))) for step in range(2000)
    ])  # fmt: skip
    expected = float(weight.square().sum()) * 3 / 4
    assert abs(float(drawn.mean()) - expected) < 5 * float(drawn.std()) / math.sqrt(2000)


def test_directions_are_unit_vectors_of_no_preferred_direction_and_depend_on_what_they_should():
    state = torch.get_rng_state()
    v = unit_directions(50_000, 3, 7, 1, 2)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.allclose(v.norm(dim=1), torch.ones(50_000, dtype=torch.float64), rtol=1e-12)
    assert v.mean(0).abs().max() < 5 / math.sqrt(3 * 50_000)
    assert torch.allclose(v.T @ v / 50_000, torch.eye(3, dtype=torch.float64) / 3, atol=0.01)
    assert torch.equal(v, unit_directions(50_000, 3, 7, 1, 2))
    first = v[:5]
    for other in ((8, 1, 2), (7, 2, 2), (7, 1, 3)):
        assert not torch.equal(first, unit_directions(50_000, 3, *other)[:5])


@dataclasses.dataclass
class Features:
    """A split of plain float64 features, all of one batch."""

    x: torch.Tensor
    labels: torch.Tensor

    def __len__(self):
        return len(self.labels)

    def epoch(self, order, size, augment, seed, rows=slice(None)):
        yield self.x[order], self.labels[order]

    def batches(self, size):
        yield self.x, self.labels


def penalised(parameters, x, labels, directions, strength):
    """Cross-entropy and lambda / 2 times the penalty of a tanh network, its Jacobian W2 diag(1 - h^2) W1 written out."""
    w1, b1, w2, b2 = parameters
    hidden = np.tanh(x @ w1.T + b1)
    z = hidden @ w2.T + b2
    loss = np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), labels])
    jacobian = np.einsum("ch,nh,hd->ncd", w2, 1 - hidden**2, w1)
    projected = np.einsum("nc,ncd->nd", directions, jacobian)
    return loss, loss + strength / 2 * z.shape[1] * np.mean((projected**2).sum(1))


def test_a_training_step_follows_finite_differences_of_the_penalised_loss():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=seed))
    data = Features(normal(6, 4, seed=9), torch.arange(6) % 3)
    config = dataclasses.replace(
        CONFIG, epochs=1, batch_size=6, lr=1.0, momentum=0.0, schedule="constant", jacobian_penalty=0.7
    )
    before = [p.detach().numpy().copy() for p in model.parameters()]
    *_, trained = train(model, data, data, config, None)
    order = loop.epoch_order(6, config.seed, 0).numpy()
    given = (data.x.numpy()[order], data.labels.numpy()[order], unit_directions(6, 3, config.seed, 0, 0).numpy(), 0.7)
    # the curve holds the plain cross-entropy
    assert trained.curves["train/loss"][0] == pytest.approx(penalised(before, *given)[0], rel=1e-6)
    assert penalised(before, *given)[1] > 1.5 * penalised(before, *given)[0]
    for number, parameter in enumerate(model.parameters()):
        for at in np.ndindex(*parameter.shape):
            values = []
            for h in (1e-5, -1e-5):
                moved = [p.copy() for p in before]
                moved[number][at] += h
                values.append(penalised(moved, *given)[1])
            gradient = (values[0] - values[1]) / 2e-5
            assert float(before[number][at] - parameter.detach().numpy()[at]) == pytest.approx(gradient, abs=1e-7)


PARTS = [{"merge": name} for name in PLAIN + MATCHED]
PARTS += [{"attention": name, "attention_form": "native"} for name in ATTENTIONS.names() if name != "none"]


@pytest.mark.parametrize("variant", PARTS, ids=lambda v: "-".join(v.values()))
def test_it_can_be_trained_with_every_merge_and_attention(variant):
    config = dataclasses.replace(CONFIG, **variant)
    model = network(config)
    pixels = load_dataset("fake").pool.pixels(slice(8)).requires_grad_()
    logits = model.train()(pixels)
    penalty = jacobian_penalty(logits, pixels, unit_directions(8, 4, 0, 0, 0).to(logits))
    penalty.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert penalty > 0 and all(torch.isfinite(gradient).all() for gradient in gradients)
    assert any(gradient.abs().max() > 0 for gradient in gradients)


def test_it_lowers_the_measured_jacobian_on_digits():
    parts, norms, accuracies = split(load_dataset("digits"), 2), [], []
    pixels, labels = parts.val.pixels(), parts.val.labels
    for strength in (0.0, 0.02):
        config = dataclasses.replace(CONFIG, dataset="digits", batch_size=32, jacobian_penalty=strength)
        model, trained = last(config, name="digits")
        context = MeasureContext.calibrated(
            model=model, images={"val": pixels}, labels={"val": labels}, num_classes=10, seed=1
        )
        settings = parse_settings("input_jacobian", {"num_samples": 64, "split": "val"})
        norms.append(measure("input_jacobian", settings, context)["jacobian_logits_rms"])
        accuracies.append(trained.curves["val/accuracy"][-1])
    assert norms[1].value + 5 * norms[1].stderr < norms[0].value - 5 * norms[0].stderr
    assert min(accuracies) > 0.5  # a network that learned nothing is smooth too


def test_a_resumed_training_equals_an_undisturbed_one_and_is_augmented(tmp_path):
    config = dataclasses.replace(CONFIG, augment="pad_crop_flip_cutout", epochs=3)
    model, trained = last(config)
    last(config, tmp_path / "state.pt", stop_after=1)
    resumed, event = last(config, tmp_path / "state.pt")
    assert event.resumed_from == 1 and event.curves == trained.curves and same(model, resumed)
    assert not same(model, last(dataclasses.replace(config, augment="none"))[0])
    assert not same(model, last(dataclasses.replace(config, jacobian_penalty=0.2))[0])


def test_without_a_penalty_nothing_of_it_is_run(monkeypatch):
    plain = dataclasses.replace(CONFIG, jacobian_penalty=0.0)
    model = last(plain)[0]
    monkeypatch.setattr(loop, "jacobian_penalty", None)
    monkeypatch.setattr(loop, "unit_directions", None)
    again, seen, parts = network(plain), [], split(load_dataset("fake"), 2)
    again.register_forward_pre_hook(lambda net, given: seen.append(given[0].requires_grad))
    list(train(again, parts.train, parts.val, plain, None))
    assert same(model, again) and seen and not any(seen)

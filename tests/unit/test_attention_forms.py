"""Every attention in every form: twins, the additive controls of SK and non-local attention, and what placebos take away."""

import copy

import pytest
import torch
from torch import nn

from study.config import TrialConfig
from study.errors import UserError
from study.models import build_network
from study.models.attention import build_attention
from study.models.build import initialise
from study.models.fixed_draws import derangement
from study.registry import ATTENTION_FORMS, ATTENTIONS

GATES = [name for name in ATTENTIONS.names() if name != "none"]
FORMS = [name for name in ATTENTION_FORMS.names() if name != "none"]
OWN_MAPS = ("sk", "non_local")  # they weigh maps of their own, not x
WITHOUT_GRADIENT = {"input_detached", "untrained"}


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def built(attention, form, channels=4, scattered=True) -> nn.Module:
    """In float64, as initialised, or with every parameter and running statistic off its start."""
    module = build_attention(attention, form, channels).double()
    initialise(module, 5)
    if scattered:
        for index, (name, tensor) in enumerate(module.state_dict().items()):
            if tensor.is_floating_point():
                values = draw(*tensor.shape, seed=index)
                tensor.copy_(values.abs() + 0.5 if name.endswith("running_var") else values)
    return module


def gate_gradient(module, x, training):
    """dx of <direction, module(x)>, by backward and by central differences along another direction."""
    module.train(training)
    x = x.clone().requires_grad_()
    direction, along, h = draw(*x.shape, seed=70), draw(*x.shape, seed=71), 1e-6
    (module(x) * direction).sum().backward()
    with torch.no_grad():
        up, down = (copy.deepcopy(module)(x + s * h * along) for s in (1, -1))
    return float((x.grad * along).sum()), float(((up - down) * direction).sum()) / (2 * h)


def test_every_form_of_the_method_is_there_for_every_attention_of_the_method():
    assert set(FORMS) == {"native", "mul", "add", "static", "shuffled", "input_detached", "untrained"}
    method = "se eca cbam bam simam ge gc sk coordinate srm non_local spatial nam"
    assert set(method.split()) == set(GATES)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("attention", GATES)
def test_gradients_are_true_derivatives_where_smoothness_is_measured(attention, form):
    module = built(attention, form)
    x = draw(3, 4, 4, 3, seed=9)
    backward, differences = gate_gradient(module, x, training=False)
    assert backward == pytest.approx(differences, rel=1e-5, abs=1e-7)
    if form not in {"add"} | WITHOUT_GRADIENT:  # the additive form's deviation moves in training
        backward, differences = gate_gradient(module, x, training=True)
        assert backward == pytest.approx(differences, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("form", sorted(WITHOUT_GRADIENT))
@pytest.mark.parametrize("attention", [name for name in GATES if name not in OWN_MAPS])
def test_a_detached_gate_sends_nothing_back_in_training(attention, form):
    module = built(attention, form).train()
    x = draw(3, 4, 4, 3, seed=9).requires_grad_()
    module(x).sum().backward()
    u = copy.deepcopy(module.gate).centred(x.detach()).detach()
    torch.testing.assert_close(x.grad, (1 + u).expand_as(x), rtol=1e-12, atol=1e-12)
    gradients = [
        p.grad is not None and bool(p.grad.any()) for layer in module.gate.last_layers for p in layer.parameters()
    ]
    assert any(gradients) == (form == "input_detached")
    # ``mul`` sends something: the check can fail
    y = x.detach().clone().requires_grad_()
    twin = built(attention, "mul").train()
    twin(y).sum().backward()
    assert not torch.allclose(x.grad, y.grad)


@pytest.mark.parametrize("attention", OWN_MAPS)
def test_a_detached_gate_sends_nothing_back_from_maps_of_its_own(attention):
    grads = {}
    for form in ("mul", "input_detached", "untrained"):
        module, x = built(attention, form).train(), draw(3, 4, 4, 3, seed=9).requires_grad_()
        parts = module.carrier.split(x)
        u = module.gate.centred(parts.seen).detach()
        fixed = module.carrier.finish(x, parts.base + module.carrier.weigh(parts, u))
        (expected,) = torch.autograd.grad((fixed * draw(*x.shape, seed=3)).sum(), x)
        (module(x) * draw(*x.shape, seed=3)).sum().backward()
        grads[form] = torch.allclose(x.grad, expected, rtol=1e-10, atol=1e-12)
    assert grads == {"mul": False, "input_detached": True, "untrained": True}


@pytest.mark.parametrize("attention", GATES)
def test_twins_start_equal_and_hold_the_same_parameters(attention):
    x = draw(4, 4, 4, 4)
    names, outputs = {}, {}
    for form in ("mul", "add", "shuffled", "input_detached", "untrained", "static"):
        module = built(attention, form, scattered=False)
        names[form] = {name: p.shape for name, p in module.named_parameters()}
        outputs[form] = module.train()(x)
    assert names["mul"] == names["add"] == names["shuffled"] == names["input_detached"] == names["untrained"]
    assert names["mul"]
    for form in ("add", "shuffled", "input_detached", "static"):
        assert torch.equal(outputs["mul"], outputs[form]), form
    if attention != "sk":  # whose two convolutions stand in the place of one
        assert torch.equal(outputs["mul"], x)
    if attention != "non_local":  # whose batch norm starts at zero, as published
        assert not torch.allclose(outputs["mul"], outputs["untrained"])


@pytest.mark.parametrize("attention", GATES)
def test_the_published_form_starts_at_the_identity_where_its_paper_says_so(attention):
    x = draw(4, 4, 4, 4)
    same = torch.equal(built(attention, "native", scattered=False).train()(x), x)
    assert same == (attention in ("gc", "non_local"))


@pytest.mark.parametrize("attention", GATES)
def test_multiplication_and_addition_are_what_they_say(attention):
    x = draw(3, 4, 4, 4, seed=8)
    mul, add = built(attention, "mul").eval(), built(attention, "add").eval()
    add.load_state_dict(mul.state_dict(), strict=False)
    variance = torch.tensor([0.25, 4.0, 9.0, 2.0], dtype=torch.float64)[: add.carrier.num_moved]
    add.statistics.running_var.copy_(variance)
    parts = mul.carrier.split(x)
    u, sd = mul.gate.centred(parts.seen), variance.sqrt().view(1, -1, 1, 1)
    if attention == "non_local":
        values, weights = parts.moved.flatten(2), mul.gate(x)
        product = torch.einsum("nij,ncj->nci", weights, values).view_as(parts.moved)
        received = (weights.sum(1) - 1).view(3, 1, 4, 4)  # sum over i of A_ij, over P times P
        total = values.mean(2)[:, :, None, None] + sd * received
        expected = [x + mul.carrier.bn(mul.carrier.out(y)) for y in (product, total)]
    elif attention == "sk":
        carrier, a = mul.carrier, mul.gate(parts.seen)
        first, second = carrier.bn1(carrier.conv1(x)).relu(), carrier.bn2(carrier.conv2(x)).relu()
        expected = [a * first + (1 - a) * second, (first + second) / 2 + sd * u]
    else:
        expected = [x * (1 + u), x + sd * u]
    for module, value in zip((mul, add), expected, strict=True):
        torch.testing.assert_close(module(x), value, rtol=1e-11, atol=1e-11)
    assert not torch.allclose(*expected)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("num_images", [2, 3, 5, 16])
@pytest.mark.parametrize("attention", ["se", "spatial", "cbam", "sk", "non_local"])
def test_shuffled_uses_the_gate_of_another_image(attention, num_images, training):
    module = built(attention, "shuffled").train(training)
    x = draw(num_images, 4, 4, 4, seed=num_images)
    parts = module.carrier.split(x)
    u = copy.deepcopy(module).gate.centred(parts.seen)
    change = copy.deepcopy(module).change(parts)
    sources = []
    for n in range(num_images):
        one = [
            module.carrier.weigh(type(parts)(*(p[n : n + 1] for p in parts)), u[m : m + 1]) for m in range(num_images)
        ]
        (source,) = [
            m for m, value in enumerate(one) if torch.allclose(value, change[n : n + 1], rtol=1e-9, atol=1e-12)
        ]
        sources.append(source)
    assert sorted(sources) == list(range(num_images))  # a permutation,
    assert all(source != n for n, source in enumerate(sources))  # of which no image is its own source
    # the same pairing as the merge placebo's
    assert sources == derangement(num_images, torch.device("cpu")).tolist()


def test_shuffled_refuses_a_batch_of_one_and_says_that_it_mixes():
    with pytest.raises(UserError, match="attention_form 'shuffled' gates an image by another one: a batch of one"):
        built("se", "shuffled")(draw(1, 4, 2, 2))
    assert [entry.name for entry in ATTENTION_FORMS if entry.traits.get("mixes_batch")] == ["shuffled"]


def test_an_untrained_gate_stays_as_it_was_drawn():
    config = TrialConfig(
        dataset="fake", depth=8, width=8, seed=1, split_seed=0, attention="cbam", attention_form="untrained"
    )
    model = build_network(config, num_classes=4, mean=(0.5,), deviation=(0.5,))
    start = copy.deepcopy(dict(model.named_parameters()))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(2))).square().sum().backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, start[name]) == (".gate." in name), name
        # not asked for, rather than zero: weight decay takes what has a gradient of zero
        assert parameter.requires_grad == (".gate." not in name)
    assert any(start[name].any() for name in start if name.endswith("gate.fc2.weight"))


@pytest.mark.parametrize("attention", ["simam", "nam"])
def test_a_learned_strength_stands_in_for_the_last_layer_and_is_not_in_the_published_form(attention):
    alpha = "gate.strength.alpha"
    starts = {form: dict(built(attention, form, scattered=False).named_parameters()).get(alpha) for form in FORMS}
    assert starts["native"] is None and starts["static"] is None and starts["untrained"].item() == 1
    assert all(starts[form].item() == 0 for form in ("mul", "add", "shuffled", "input_detached"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("attention", GATES)
def test_replicates_can_run_as_one_group(attention, form):
    """``vmap`` over stacked parameters and buffers is how a group of replicates is fused."""
    models = [built(attention, form, scattered=False) for _ in range(2)]
    for index, model in enumerate(models):
        initialise(model, index)
    x = draw(2, 3, 4, 4, 4)
    for training in (False, True):
        for model in models:
            model.train(training)
        parameters, buffers = torch.func.stack_module_state(models)

        def call(params, state, images):
            return torch.func.functional_call(models[0], (params, state), (images,))

        together = torch.vmap(call)(parameters, buffers, x)
        for index, (model, images) in enumerate(zip(models, x, strict=True)):
            torch.testing.assert_close(together[index], model(images), rtol=1e-10, atol=1e-12)
            for name, buffer in model.named_buffers():
                torch.testing.assert_close(buffers[name][index], buffer, rtol=1e-10, atol=1e-12)

"""Which gates attention against importance finds: every attention in every form, networks of one's own, public modules."""

import pytest
import torch
from gated import CLASSES, context, images
from timm.layers import EcaModule, SEModule
from torch import nn
from torchvision.ops import SqueezeExcitation

from study.config import TrialConfig
from study.errors import UserError
from study.models import build_network
from study.models.attention import build_attention
from study.registry import ATTENTION_FORMS, ATTENTIONS
from study.smoothness import measure, parse_settings
from study.smoothness.clamped import ablation, clamped, gated_modules, read_layers, taylor

CHANNELS, SIDE = 8, 4
# no gate: GC as published adds a context and weighs nothing; a static u belongs to no image
WITHOUT_GATE = {("gc", "native"), *((attention, "static") for attention in ATTENTIONS.names())}
PAIRS = [(a, f) for a in ATTENTIONS.names() for f in ATTENTION_FORMS.names() if "none" not in (a, f)]


class Net(nn.Module):
    """An attention and a read-out."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention, self.head = attention, nn.Linear(CHANNELS, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.attention(x).mean((2, 3)))


def net(attention: nn.Module) -> Net:
    """With weights drawn, so that gates differ."""
    model, generator = Net(attention), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def check(model: nn.Module, gates: tuple[str, ...] = ("gate",)) -> bool:
    """The gate is asked and clamped, and units taken out change the loss; returns whether a unit is a channel."""
    x, y = images(num=6, channels=CHANNELS, side=SIDE)
    ctx = context(model, x, y)
    (found,) = read_layers(ctx, x, gates)
    assert found.num_units == (CHANNELS if found.by_channel else SIDE * SIDE) and bool(found.gate.isfinite().all())
    with torch.no_grad(), clamped([found]):
        held = ctx.model(x)
        first, second = found.gate_module(x[:2])  # says the same of every image
        assert torch.equal(first, second)
    with clamped([found]):
        losses, (first_order,) = taylor(ctx, [found], x, y)
        importance = ablation(ctx, found, x, y, losses, mean=False)
    expected = nn.functional.cross_entropy(held.double(), y, reduction="none")
    assert losses == pytest.approx(expected, abs=1e-5)
    assert importance.shape == first_order.shape == (6, found.num_units)
    assert float(importance.abs().max()) > 0
    return found.by_channel


@pytest.mark.parametrize(("attention", "form"), PAIRS)
def test_every_attention_in_every_form_has_units_and_importances_or_no_gate(attention: str, form: str) -> None:
    model = net(build_attention(attention, form, CHANNELS))
    if (attention, form) in WITHOUT_GATE:
        x, y = images(num=6, channels=CHANNELS, side=SIDE)
        assert read_layers(context(model, x, y), x) == []
    else:
        assert check(model) == (attention not in ("spatial", "non_local"))


def test_gates_by_attribute_or_by_name_in_public_modules() -> None:
    assert check(net(SEModule(CHANNELS)))
    squeeze = net(SqueezeExcitation(CHANNELS, 4))
    assert gated_modules(squeeze) == {}
    for name in ("scale_activation", "attention.scale_activation"):
        assert check(squeeze, (name,))
    found = measure(
        "attention_importance",
        parse_settings("attention_importance", {"num_samples": 8, "gates": ["scale_activation"]}),
        context(squeeze, *images(channels=CHANNELS, side=SIDE)),
    )
    assert found["attention_importance_spearman_zero"].num_samples == 8


def test_a_gate_of_values_without_places_is_one_a_channel() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, CHANNELS), nn.Sigmoid()
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.gate(x)[:, :, None, None]

    assert check(net(Flat()))
    # timm's ECA says (N, 1, C)
    x, y = images(num=6, channels=CHANNELS, side=SIDE)
    (layer,) = read_layers(context(net(EcaModule(CHANNELS)), x, y), x)
    assert layer.by_channel and layer.gate.shape == (6, CHANNELS)


def test_gates_that_cannot_be_read_are_named() -> None:
    x, y = images(num=6, channels=CHANNELS, side=SIDE)
    with pytest.raises(UserError, match=r"no module 'attention.gat' .did you mean 'attention.gate'"):
        gated_modules(net(SEModule(CHANNELS)), ["attention.gat"])

    class Odd(SEModule):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.gate(x[:, :3]).mean()

    with pytest.raises(UserError, match=r"gate of 'attention' gives \(6, 3, 4, 4\) for a map \(6, 8, 4, 4\): expected"):
        read_layers(context(net(Odd(CHANNELS)), x, y), x)

    class Twice(SEModule):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(super().forward(x))

    with pytest.raises(UserError, match="'attention' is asked more than once"):
        read_layers(context(net(Twice(CHANNELS)), x, y), x)


def test_a_merge_operators_own_gate_is_no_attention() -> None:
    config = TrialConfig(
        dataset="fake", depth=8, width=4, seed=1, split_seed=0, merge="highway", attention="se", attention_form="mul"
    )
    model = build_network(config, num_classes=CLASSES, mean=(0.5,), deviation=(0.3,))
    x, y = images(num=8, channels=1, side=8)
    layers = read_layers(context(model, x, y), x)
    assert len(layers) == 3 and not any(name.endswith("merge") for name in (layer.name for layer in layers))
    found = measure("attention_importance", parse_settings("attention_importance", {}), context(model, x, y))
    assert "attention_importance_layer3_spearman_zero" in found

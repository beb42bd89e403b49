"""The registry itself, and what every merge, gate and dataset alone keeps to; ``test_contract.py`` has whole networks."""

import pytest
import torch
from torch import nn

import study.data
import study.models
import study.planning.search  # the four imports register parts
import study.smoothness  # noqa: F401  registers statistics
from study import registry
from study.config import TrialConfig
from study.data import Splits, dataset_facts, load_dataset, offline, split
from study.data.dataset import largest_share, near_chance
from study.errors import UserError
from study.models import build_network
from study.models.blocks import BlockParts
from study.registry import ATTENTION_FORMS, ATTENTIONS, DATASETS, MERGES, NETWORKS, Registry

ALL = [value for value in vars(registry).values() if isinstance(value, Registry)]
FORMS = [name for name in ATTENTION_FORMS.names() if name != "none"]


def test_a_duplicate_name_raises_and_the_part_is_handed_back_unchanged():
    parts: Registry[object] = Registry("part")
    part = object()
    assert parts.register("one", formula="f", source="s", trait=3)(part) is part
    with pytest.raises(ValueError, match="part 'one' is registered twice"):
        parts.register("one", formula="f", source="s")(object())
    assert parts["one"].build is part and parts["one"].traits == {"trait": 3}
    assert parts.names() == ["one"] and "one" in parts and "two" not in parts


@pytest.mark.parametrize(
    ("of", "name", "meant"),
    [
        (MERGES, "sig_bm", "sig_bn"),
        (ATTENTIONS, "cbm", "cbam"),
        (ATTENTION_FORMS, "multiply", "mul"),
        (DATASETS, "digit", "digits"),
        (NETWORKS, "cifar_resnte", "cifar_resnet"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(of, name, meant):
    with pytest.raises(UserError, match=f"unknown {of.kind} '{name}' .did you mean '{meant}'"):
        of[name]


def test_a_name_near_to_nothing_is_answered_with_the_first_of_them():
    with pytest.raises(UserError, match=r"unknown merge 'zzzzz' \(known: adapt_gate, add, .*, and \d+ more\)"):
        MERGES["zzzzz"]
    with pytest.raises(UserError, match=r"\(known: .*digits, .*mnist"):
        DATASETS["?"]


def test_what_the_study_rests_on_is_there():
    assert {"add", "add_alias", "none", "mul", "sig_bn"} <= set(MERGES.names())
    assert "se" in ATTENTIONS and {"native", "mul", "add", "static"} <= set(FORMS)
    assert {"digits", "fake"} <= set(DATASETS.names())


@pytest.mark.parametrize("of", ALL, ids=lambda of: of.kind)
def test_every_entry_says_its_formula_and_where_it_comes_from(of):
    for entry in of:
        assert entry.formula.strip(), entry.name
        # a table or figure of our own rests on no paper; its caption says what it shows
        own = entry.source == ("" if of.kind in ("table", "figure") else "this file")
        assert entry.source.startswith("http") or own, entry.name


@pytest.mark.parametrize("of", [MERGES, ATTENTIONS, ATTENTION_FORMS, NETWORKS, DATASETS], ids=lambda of: of.kind)
def test_an_unknown_keyword_raises(of):
    arguments = {"merge": (4,), "attention": (8,), "attention_form": (nn.Identity(), 4)}.get(of.kind, ())
    values = {"depth": 8, "width": 4, "num_classes": 3, "mean": (0.5,), "deviation": (0.5,)}
    values |= {"parts": BlockParts()}
    for entry in of:
        with pytest.raises(TypeError, match="nonsense"):
            entry.build(*arguments, **(values if of is NETWORKS else {}), nonsense=1)


@pytest.mark.parametrize("name", MERGES.names())
def test_a_merge_keeps_shape(name):
    merge = MERGES[name].build(8)
    x, f = torch.randn(2, 8, 5, 3), torch.randn(2, 8, 5, 3)
    assert merge(x, f).shape == x.shape
    assert torch.isfinite(merge(x, f)).all()


@pytest.mark.parametrize("name", [name for name in ATTENTIONS.names() if name != "none"])
def test_a_gate_gives_weights_in_the_unit_interval_that_broadcast(name):
    x = 3 * torch.randn(2, 8, 6, 4, generator=torch.Generator().manual_seed(0))
    a = ATTENTIONS[name].build(8)(x)
    pairs = (2, 24, 24) if ATTENTIONS[name].traits.get("pairwise") else None
    assert a.shape == pairs or torch.broadcast_shapes(a.shape, x.shape) == x.shape
    assert ((a >= 0) & (a <= 1)).all()


@pytest.mark.parametrize("name", DATASETS.names())
def test_a_dataset_is_what_it_says(name):
    try:
        with offline():
            dataset = load_dataset(name)
    except UserError as error:
        pytest.skip(str(error))
    # an explicit floor is a plug-in's; what is registered for a plan without images is what the images say
    assert dataset.name == name and dataset.accuracy_floor is None
    known = dataset_facts(name).accuracy_floor
    assert known == pytest.approx(near_chance(largest_share(dataset)), abs=1e-4) and 0 < known < 0.6
    assert len(dataset.mean) == len(dataset.deviation) == dataset.image_shape[0]
    assert 0 < dataset.num_val < len(dataset.pool)
    parts = split(dataset, 5)
    assert isinstance(parts, Splits)
    for whole in (parts.train, parts.val, parts.test):
        assert set(whole.labels.tolist()) == set(range(dataset.num_classes))
        part = whole.held()
        assert part.images.dtype == torch.uint8 and part.labels.dtype == torch.int64
        assert part.images.shape == (len(part), *dataset.image_shape)
        pixels = part.pixels()
        assert pixels.dtype == torch.float32 and pixels.min() >= 0 and 0.5 < pixels.max() <= 1
    model = build_network(
        TrialConfig(dataset=name, depth=8, width=4, seed=0, split_seed=0),
        num_classes=dataset.num_classes, mean=dataset.mean, deviation=dataset.deviation,
    )  # fmt: skip
    assert model(parts.train.held().pixels(slice(4))).shape == (4, dataset.num_classes)

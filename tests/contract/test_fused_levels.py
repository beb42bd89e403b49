"""For every registered level: a replicate trained with another one is the replicate trained alone (float64, first steps)."""

import dataclasses

import pytest
import torch
from operators import MATCHED as ALL_MATCHED
from operators import PLAIN

from study.config import TrialConfig
from study.data.parts import Together
from study.models import build_network
from study.registry import ATTENTION_FORMS, ATTENTIONS, MERGES, NETWORKS
from study.training.fused import Ended, train_together
from study.training.loop import train
from study.training.member import Member
from study.training.stack import obstacle

BASE = {"dataset": "fake", "depth": 8, "width": 4, "split_seed": 2, "epochs": 1, "batch_size": 4}
# two replicates that differ in all that replicates may differ in
ONE = {"seed": 1, "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3, "schedule": "constant"}
OTHER = {"seed": 2, "lr": 0.2, "momentum": 0.5, "weight_decay": 1e-2, "warmup_epochs": 0.5}

# matched operators are one class at widths of their own: all at the branch, whose first channels are taken, few at the skip
MATCHED = ["add_matched_mul_bn", "add_matched_concat", "add_matched_star"]
SITES = [(name, site) for name in PLAIN + ALL_MATCHED for site in ("skip", "branch")]
MERGED = [
    {"merge": name, "merge_site": site}
    for name, site in SITES
    if site == "branch" or "matches" not in MERGES[name].traits or name in MATCHED
]
ATTENDED = [
    {"attention": attention, "attention_form": form}
    for attention in ATTENTIONS.names()
    for form in ATTENTION_FORMS.names()
    if (attention == "none") == (form == "none")
]
BUILT = [
    {"network": e.name, "depth": e.traits["smallest_depth"], "width": 1 if "wrn" in e.name else 4} for e in NETWORKS
]
DROPPED = [{**levels, "dropout": 0.3} for levels in BUILT if NETWORKS[levels["network"]].traits.get("dropout")]
PENALISED = [{**levels, "jacobian_penalty": 1e-3} for levels in [*BUILT, {"merge": "mul"}]]
AUTHORS = next(levels for levels in BUILT if levels["network"] == "authors_wrn")
LITERAL = [
    {
        **AUTHORS,
        **settings,
        "norm_parts": 2,
        "norm_momentum": 0.5,
        "optimizer_made": "each_epoch",
        "last_batch": "keep",
    }
    for settings in ({}, {"merge": "authors_8", "dropout": 0.3}, {"merge": "authors_21", "jacobian_penalty": 1e-3})
]
# settings of the recipe, of which two values a case differ between the two replicates
RECIPES = [
    {"optimizer": "nesterov"},
    {"optimizer": "adamw", "beta2": (0.9, 0.999), "lr": (0.01, 0.02)},
    {"optimizer": "adamw", "decayed": "weights", "optimizer_made": "each_epoch", "lr": (0.01, 0.02)},
    {"decayed": "weights", "clip_norm": (0.3, 0.7)},
    {"label_smoothing": (0.1, 0.3)},
    {"mixup": (0.2, 1.0)},
    {"label_smoothing": (0.1, 0.3), "mixup": (0.2, 1.0), "jacobian_penalty": 1e-3},
    {"ema_decay": (0.5, 0.8)},
    {"norm": "group", "activation": "gelu", "width": 16},
    {"norm": "layer", "activation": "silu", "merge": "authors_8", "attention": "se", "attention_form": "add"},
    {"norm": "none", "merge": "authors_22", "lr": (0.001, 0.002), "ema_decay": (0.5, 0.8)},
    {
        "ema_decay": (0.5, 0.8),
        "network": "wrn",
        "depth": 10,
        "width": 1,
        "dropout": 0.3,
        "attention": "se",
        "attention_form": "add",
    },
    {"optimizer": "adamw", "clip_norm": (0.3, 0.7), "merge": "mul", "jacobian_penalty": 1e-3, "lr": (0.01, 0.02)},
]
CASES = MERGED + ATTENDED + BUILT + DROPPED + PENALISED + LITERAL + RECIPES


@dataclasses.dataclass
class Exact:
    """A part of made-up images in float64: 10, or 6 to be evaluated."""

    pixels: torch.Tensor
    labels: torch.Tensor
    image_shape = (1, 8, 8)

    @classmethod
    def of(cls, seed, num):
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.rand((num, 1, 8, 8), dtype=torch.float64, generator=generator)
        return cls(pixels, torch.arange(num) % 4)

    def __len__(self):
        return len(self.labels)

    def epoch(self, order, size, augment, seed, rows=slice(None), *, short=False):
        for start in range(0, len(order) if short else len(order) - size + 1, size):
            index = order[start : start + size]
            yield self.pixels[index], self.labels[index]

    def batches(self, size):
        yield self.pixels, self.labels


def prepared(levels):
    config = TrialConfig.from_mapping({**BASE, **levels})
    model = build_network(config, num_classes=4, mean=(0.5,), deviation=(0.3,)).double()
    return config, model, Exact.of(config.seed, 10), Exact.of(config.seed + 10, 6)


@pytest.mark.filterwarnings("error:.*could not train together")
@pytest.mark.parametrize("levels", CASES, ids=lambda levels: "-".join(map(str, levels.values())))
def test_a_fused_replicate_is_the_one_trained_alone(levels):
    owns = [
        own | {name: value[index] if isinstance(value, tuple) else value for name, value in levels.items()}
        for index, own in enumerate((ONE, OTHER))
    ]
    together = [prepared(own) for own in owns]
    assert obstacle(together[0][1]) == ""
    members = [
        Member(model=model, train_split=seen, val_split=held, config=config, checkpoint=None)
        for config, model, seen, held in together
    ]
    ended = {e.index: e.outcome for e in train_together(members, Together) if isinstance(e, Ended)}
    for index, own in enumerate(owns):
        config, model, seen, held = prepared(own)
        start = {name: value.clone() for name, value in model.state_dict().items()}
        one = Member(model=model, train_split=seen, val_split=held, config=config, checkpoint=None)
        list(train(one))
        alone = one.trained
        torch.testing.assert_close(members[index].average, one.average, rtol=1e-7, atol=1e-9, equal_nan=True)
        assert ended[index].stopped == alone.stopped
        for name, curve in alone.curves.items():
            assert ended[index].curves[name] == pytest.approx(curve, rel=1e-5, nan_ok=True), name  # summed in float32
        found = members[index].model.state_dict()
        for name, value in model.state_dict().items():
            torch.testing.assert_close(found[name], value, rtol=1e-7, atol=1e-9, equal_nan=True, msg=name)
        assert any(not torch.equal(found[name], value) for name, value in start.items())

"""What each of two processes does in ``test_ranks.py``: a module of its own, which they import without pytest."""

import dataclasses

import torch
import torch.distributed as dist

from study.config import TrialConfig
from study.data import load_dataset, split
from study.data.parts import Split
from study.models import build_network
from study.training import train
from study.training.member import Member
from study.training.process_group import ALONE, Ranks

DIGITS = TrialConfig(dataset="digits", depth=8, width=4, seed=1, split_seed=2, epochs=10, batch_size=256, lr=0.1)
# networks whose training by two is that by one: batch norm, a penalty (second derivatives through it), buffers that follow
# batches, augmentation; and the ends that a training can have
CASES = {
    name: dataclasses.replace(DIGITS, **{"epochs": 1, **changes})
    for name, changes in {
        "plain": {"augment": "pad_crop"},
        "penalised": {"merge": "sig_bn", "jacobian_penalty": 0.1},
        "attention": {"attention": "se", "attention_form": "add"},
        "untrained": {"attention": "se", "attention_form": "untrained"},
        "recipe": {
            "optimizer": "adamw",
            "lr": 0.01,
            "decayed": "weights",
            "clip_norm": 0.5,
            "label_smoothing": 0.1,
            "ema_decay": 0.8,
        },
        "other norm": {"norm": "group", "activation": "gelu", "optimizer": "nesterov"},
        "diverged": {"epochs": 3},
        "pruned": {"stop_curve": (0.0, 0.0, 0.0), "epochs": 3},
    }.items()
}
# beyond what a setting may be, so that weights overflow
object.__setattr__(CASES["diverged"], "lr", 1e30)


class Doubles(Split):
    """A part whose pixels are doubles, so that what is left of a difference is one of method and not of rounding."""

    def pixels(self, *given, **named):
        return super().pixels(*given, **named).double()


def _doubled(part):
    return Doubles(images=part.stored, labels=part.labels, scale=part.scale, rows=part.rows)


def trained(config, ranks=ALONE, double=True):
    """Weights, momenta, curves and how training ended; of a rank that is not the first, as far as it knows."""
    dataset = load_dataset(config.dataset)
    parts = split(dataset, config.split_seed)
    model = build_network(config, num_classes=10, mean=dataset.mean, deviation=dataset.deviation)
    if double:
        model = model.double()
        parts = dataclasses.replace(parts, **{name: _doubled(part) for name, part in vars(parts).items()})
    member = Member(model=model, train_split=parts.train, val_split=parts.val, config=config, checkpoint=None)
    told = list(train(member, ranks))
    states = member.optimizer.state_dict()["state"].values()
    momenta = [value for state in states for value in state.values()] + list(member.average.values())
    at_end = (member.trained.stopped, member.trained.epoch, len(told))
    return model.state_dict(), momenta, member.trained.curves, at_end


def train_all(rank, size, folder):
    """One of ``size`` processes; leaves what it has trained in ``folder``."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    ranks = Ranks(rank, size)
    found = {name: trained(config, ranks) for name, config in CASES.items()}
    found["single precision"] = trained(DIGITS, ranks, double=False)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()

"""An epoch in which the host never waits for the device: nothing is read from it, and nothing sent in a way that waits.

A tensor on the device ``meta`` has no values: whatever would read one raises. So steps that run there read nothing, with
every augmentation and alone as together. Copies to it are counted. On a GPU torch itself raises (``set_sync_debug_mode``).
"""

import dataclasses
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from study.config import TrialConfig
from study.data.parts import Split, Together
from study.models import build_network
from study.registry import AUGMENTATIONS
from study.training.lane import Lane
from study.training.loop import train_epoch, train_steps
from study.training.member import Member

CONFIG = TrialConfig(
    dataset="random",
    depth=8,
    width=4,
    seed=1,
    split_seed=2,
    epochs=2,
    batch_size=8,
    attention="se",
    attention_form="mul",
)
VARIANTS = [{"augment": entry.name} for entry in AUGMENTATIONS]
VARIANTS += [{"jacobian_penalty": 0.1}, {"network": "wrn", "depth": 10, "width": 1}]
VARIANTS += [
    {
        "optimizer": "adamw",
        "decayed": "weights",
        "clip_norm": 0.5,
        "label_smoothing": 0.1,
        "mixup": 0.4,
        "ema_decay": 0.8,
    }
]
WAYS = ["alone", "options", "together"]


class Copies(TorchDispatchMode):
    """Counts copies to the device from the host that the host waits for."""

    def __init__(self):
        super().__init__()
        self.waited = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name == "_to_copy" and args[0].device != out.device and not kwargs.get("non_blocking", False):
            self.waited[name] += 1
        if (
            name == "copy_"
            and args[0].device != args[1].device
            and not (kwargs.get("non_blocking") or args[2:3] == (True,))
        ):
            self.waited[name] += 1
        return out


def member(config, device, seed=1, num=24):
    config = dataclasses.replace(config, seed=seed)
    model = build_network(config, num_classes=10, mean=(0.5,) * 3, deviation=(0.5,) * 3).to(device)
    images = torch.zeros((num, 3, 16, 16), dtype=torch.uint8)
    split = Split(images=images, labels=torch.arange(num) % 10).to(torch.device(device))
    return Member(model=model, train_split=split, val_split=split, config=config, checkpoint=None)


def epoch_of(way, config, device):
    """A function that takes the steps of an epoch."""
    members = [member(config, device, seed) for seed in range(2 if way == "together" else 1)]
    if way == "alone":
        one = members[0]
        return lambda: train_steps(one, 0)
    lane = Lane(members, Together, ["fused", "channels_last"] if way == "options" else [])
    return lambda: (lane.train(0), lane.evaluate())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: str(next(iter(variant.values()))))
def test_no_value_is_read_and_no_copy_is_waited_for(way, variant):
    steps = epoch_of(way, dataclasses.replace(CONFIG, **variant), "meta")
    with Copies() as copies:
        steps()
    assert not copies.waited


def test_what_would_wait_is_seen():
    one = member(CONFIG, "meta")
    with pytest.raises(RuntimeError, match=r"item\(\)|meta"):
        train_epoch(one, 0)  # reads its loss in the end
    with Copies() as copies:
        torch.zeros(3).to("meta")
        torch.zeros(3, device="meta").copy_(torch.ones(3))
        torch.zeros(3).to("meta", non_blocking=True)
    assert copies.waited == {"_to_copy": 1, "copy_": 1}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("way", WAYS)
def test_a_gpu_is_not_waited_for(way):
    steps = epoch_of(way, dataclasses.replace(CONFIG, augment="pad_crop_flip_cutout"), "cuda")
    steps()  # what is made once is made
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps()
    finally:
        torch.cuda.set_sync_debug_mode("default")

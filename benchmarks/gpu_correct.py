"""Steps (a) and (h) of ``benchmarks.gpu_session``: what a GPU computes, beside what the CPU does.

``float64``, ``float32``: one training step of every operator, attention form and network on the device; its update of weights
and running statistics is compared with the CPU's in float64. The difference, as a share of the update (Euclidean norms), is at
most 1e-8 in float64; in float32 1e-3, or ten times the CPU's own where that is more. ``fused``: two replicates as one network,
each beside itself alone, in float64. ``options``: an epoch by a step with options beside the plain one. ``statistics``: each
estimate, float32, on the same weights. ``resume``: an epoch, then another after reading the checkpoint, beside two without a
break: tensors that differ in any bit. ``memory``: what the memory meter says of a group over what that group's training takes.

Without a GPU the device is the CPU by other kernels: images and weights have channels innermost.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cases import step_name
from benchmarks.gpu_session import Found, Given, Measurement
from study.config import TrialConfig
from study.data import split
from study.data.dataset import Dataset, dataset_facts
from study.data.parts import Split, Together
from study.measuring.replicate import estimates_of, measure_context
from study.models import build_network
from study.registry import ATTENTION_FORMS, ATTENTIONS, MERGES, NETWORKS, STATISTICS
from study.resources.sharing import CudaMeter
from study.resources.timing import random_split
from study.training.fused import train_together
from study.training.lane import Lane
from study.training.loop import train, train_epoch, validate
from study.training.member import Member
from study.training.options import obstacle
from study.worker.ahead import set_backend

Levels = Mapping[str, Any]
BASE = {"dataset": "random", "depth": 8, "width": 8, "seed": 1, "split_seed": 2, "epochs": 1, "batch_size": 8}
IMAGE, CLASSES = (3, 16, 16), 4
NETWORK_LEVELS = [
    {"network": e.name, "depth": e.traits["smallest_depth"], "width": 1 if "wrn" in e.name else 8} for e in NETWORKS
]
ATTENTION_LEVELS = [
    {"attention": attention, "attention_form": form}
    for attention in ATTENTIONS.names()
    for form in ATTENTION_FORMS.names()
    if (attention == "none") == (form == "none")
]
MERGE_LEVELS = [{"merge": name, "merge_site": site} for name in MERGES.names() for site in ("skip", "branch")]
RECIPES: list[Levels] = [
    {"optimizer": "adamw", "lr": 0.01, "decayed": "weights", "clip_norm": 0.5, "label_smoothing": 0.1, "mixup": 0.4,
     "ema_decay": 0.8},
    {"network": "wrn", "depth": 10, "width": 1, "dropout": 0.3, "augment": "pad_crop"},
    {"merge": "mul", "jacobian_penalty": 1e-3, "optimizer": "nesterov"},
    {"norm": "group", "activation": "gelu", "width": 16},
]  # fmt: skip
# Of a list of levels, one in so many is tried where all is small.
FEW = 12
# Shares of the update.
CLOSE = {torch.float64: 1e-8, torch.float32: 1e-3}
OPTIONS = (("fused",), ("channels_last",), ("graph",), ("channels_last", "graph"), ("bf16",))
# Settings by which a statistic takes little, where it has such settings.
LITTLE = {"num_samples": 16, "num_pairs": 8, "num_orders": 2, "num_planes": 2, "num_points": 9, "num_square": 5}
MERGED = {"attention": "se", "attention_form": "mul", "depth": 14}


class Exact:
    """A part whose pixels are of a floating-point type: float64 on both sides of a comparison."""

    def __init__(self, split: Split, dtype: torch.dtype) -> None:
        self.pixels, self.labels, self.image_shape = (
            split.images.to(dtype) / split.scale,
            split.labels,
            split.image_shape,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All of it at once."""
        yield self.pixels, self.labels

    def epoch(self, order: Tensor, size: int, *given: Any, **more: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """In ``order``, never augmented; a short rest is left out."""
        for index in order.to(self.labels.device).split(size):
            if len(index) == size:
                yield self.pixels[index], self.labels[index]


def correct(given: Given) -> Iterator[Measurement]:
    """Step (a)."""
    set_backend(1)
    some = FEW if given.small else 1
    skip, branch = MERGE_LEVELS[:: 2 * some], MERGE_LEVELS[1 :: 2 * some]
    attended = ATTENTION_LEVELS[::some]
    yield from steps([*NETWORK_LEVELS, *attended, *skip], given)
    yield from resumed(given)
    yield from optional(given, OPTIONS)
    for name in STATISTICS.names():
        yield f"statistics: {name}", lambda n=name: statistic(n, given.device)
    for options in ((), ("channels_last", "graph")):
        yield f"memory: {step_name(options)}, 4 as one", lambda o=options: metered(given, 4, o)
    yield from steps(branch, given)
    for levels in [*NETWORK_LEVELS[::some], *RECIPES, *attended, *skip]:
        yield f"fused: {_named(levels)}", lambda v=levels: fused(v, given.device)


def steps(some: Iterable[Levels], given: Given) -> Iterator[Measurement]:
    """One step of each, by both types."""
    for levels in some:
        for dtype in CLOSE:
            yield f"{_bits(dtype)}: {_named(levels)}", lambda v=levels, d=dtype: one_step(v, given.device, d)


def compiled(given: Given) -> Iterator[Measurement]:
    """Step (h): compiling takes half a minute and more a network."""
    set_backend(1)
    yield from optional(given, (("compile",), ("channels_last", "graph", "compile")))


def _named(levels: Levels) -> str:
    return " ".join(str(value) for value in levels.values())


def _bits(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _network(config: TrialConfig, device: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    model = build_network(config, num_classes=CLASSES, image_shape=IMAGE, mean=(0.5,) * 3, deviation=(0.3,) * 3)
    return model.to(device, dtype)


def _images(num: int, device: str, seed: int = 0) -> Split:
    """Images of classes that can be told apart: each is its class's pattern and noise."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randint(256, (CLASSES, *IMAGE), generator=torch.Generator().manual_seed(7))
    labels = torch.arange(num) % CLASSES
    noise = torch.randint(-40, 40, (num, *IMAGE), generator=generator)
    images = (patterns[labels] + noise).clamp(0, 255).to(torch.uint8)
    return Split(images=images, labels=labels).to(torch.device(device))


def _member(
    config: TrialConfig, device: str, dtype: torch.dtype | None = None, num: int = 8, checkpoint: Path | None = None
) -> Member:
    seen, held = _images(num, device, config.seed), _images(8, device, 100)
    if dtype:
        seen, held = Exact(seen, dtype), Exact(held, dtype)
    model = _network(config, device, dtype or torch.float32)
    return Member(model=model, train_split=seen, val_split=held, config=config, checkpoint=checkpoint)


State = tuple[Tensor, ...]


def _state(model: nn.Module) -> State:
    """All weights, and all running statistics, as float64 on the CPU."""
    statistics = [value for value in model.buffers() if value.is_floating_point()]
    both = (list(model.parameters()), statistics or [torch.zeros(1)])
    return tuple(torch.cat([value.detach().double().cpu().flatten() for value in values]) for values in both)


def _apart(found: State, expected: State, before: State) -> float:
    """The difference as a share of the update, of weights or of statistics; where values are not finite, others are alike."""
    apart = []
    for ours, theirs, start in zip(found, expected, before, strict=True):
        finite = theirs.isfinite()
        if not torch.equal(finite, ours.isfinite()):
            return math.inf
        difference, moved = (ours - theirs)[finite].norm(), (theirs - start)[finite].norm()
        apart.append(float(difference / moved.clamp_min(1e-12)))
    return max(apart)


def one_step(levels: Levels, device: str, dtype: torch.dtype) -> Found:
    """One step of a network with these levels on the device, beside the CPU's in float64."""
    config = TrialConfig.from_mapping({**BASE, **levels})

    def stepped(where: str, dtype: torch.dtype, *, other: bool = False) -> tuple[State, State]:
        member = _member(config, where, dtype)
        before = _state(member.model)
        if other:
            member.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        train_epoch(member, 0)
        return before, _state(member.model)

    before, expected = stepped("cpu", torch.float64)
    value, most = _apart(stepped(device, dtype, other=device == "cpu")[1], expected, before), CLOSE[dtype]
    if value > most and dtype == torch.float32:
        most = max(most, 10 * _apart(stepped("cpu", dtype)[1], expected, before))
    return Found(values=[value], unit="of the update", most=most)


def fused(levels: Levels, device: str) -> Found:
    """Two replicates as one network, float64, two steps: the one that is farther from itself alone."""
    configs = [TrialConfig.from_mapping({**BASE, "augment": "none", **levels, "seed": seed}) for seed in (1, 2)]
    configs = [dataclasses.replace(config, augment="none") for config in configs]
    together = [_member(config, device, torch.float64, 16) for config in configs]
    list(train_together(together, Together))
    apart = []
    for config, other in zip(configs, together, strict=True):
        alone = _member(config, device, torch.float64, 16)
        before = _state(alone.model)
        list(train(alone))
        apart.append(_apart(_state(other.model), _state(alone.model), before))
    return Found(values=[max(apart)], unit="of the update", most=CLOSE[torch.float64])


def optional(given: Given, ways: Sequence[Sequence[str]]) -> Iterator[Measurement]:
    """A step with options beside the plain one."""
    cases = [{"attention": "se", "attention_form": "mul"}, *RECIPES[:2]]
    for options in ways:
        for levels in cases[: 1 if given.small or "compile" in options else None]:
            for num in (1,) if given.small and "compile" in options else (1, 4):
                name = f"options: {step_name(options)}, {num} as one, {_named(levels)}"
                yield name, lambda o=options, v=levels, n=num: option(o, v, given.device, n)


def option(options: Sequence[str], levels: Levels, device: str, num: int) -> Found:
    """``num`` replicates by a step with ``options``, beside each alone by the plain step: four steps."""
    base = TrialConfig.from_mapping({**BASE, **levels})
    configs = [dataclasses.replace(base, seed=seed) for seed in range(num)]
    left_out = {name: reason for name in options if (reason := obstacle(name, base, device))}
    members = [_member(config, device, num=32) for config in configs]
    losses = [metrics["train/loss"] for metrics in Lane(members, Together, options).epoch(0)]
    apart, rounded = [], []
    for config, member, loss in zip(configs, members, losses, strict=True):
        alone = _member(config, device, num=32)
        before = _state(alone.model)
        expected = train_epoch(alone, 0)["train/loss"]
        apart.append(_apart(_state(member.model), _state(alone.model), before))
        rounded.append(abs(loss / expected - 1))
    more = {"left out": left_out} if left_out else {}
    if "bf16" in options:
        return Found(values=[max(rounded)], unit="of the loss", most=0.05, more=more)
    return Found(values=[max(apart)], unit="of the update", most=CLOSE[torch.float32], more=more)


_trained: dict[str, Tensor] = {}


def _weights(config: TrialConfig) -> dict[str, Tensor]:
    """Of a network that was trained a little on the CPU."""
    if not _trained:
        member = _member(config, "cpu", num=128)
        for epoch in range(2):
            train_epoch(member, epoch)
        _trained.update(member.model.state_dict())
    return _trained


def statistic(name: str, device: str) -> Found:
    """The estimate of a statistic on the device that is farthest from the CPU's: 1e-2 of it and a fifth of its error are 1."""
    config = TrialConfig.from_mapping({**BASE, **MERGED, "batch_size": 16})
    fields = {field.name for field in dataclasses.fields(STATISTICS[name].traits["settings"])}
    settings = {key: value for key, value in LITTLE.items() if key in fields}
    found = []
    for where, other in (("cpu", False), (device, device == "cpu")):
        model = _network(config, where)
        model.load_state_dict(_weights(config))
        if other:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        parts = {part: _images(64, where, seed) for seed, part in enumerate(("train", "val", "test"))}
        with measure_context(model, parts, CLASSES, seed=1, batch_size=16) as context:
            estimates, error = estimates_of(name, settings, context)
        if error:
            raise RuntimeError(error)
        found.append(estimates)
    expected, ours = found
    if ours.keys() != expected.keys():
        raise RuntimeError(f"estimates of one side alone: {sorted(ours.keys() ^ expected.keys())}")
    apart = {key: _distance(ours[key], expected[key]) for key in expected}
    worst = max(apart, key=lambda key: apart[key])
    more = {"estimates": len(apart), "farthest": worst, "here": ours[worst].value, "CPU": expected[worst].value}
    return Found(values=[apart[worst]], unit="of the tolerance", most=1.0, more=more)


def _distance(ours: Any, expected: Any) -> float:
    if not (math.isfinite(ours.value) and math.isfinite(expected.value)):
        return 0.0 if math.isfinite(ours.value) == math.isfinite(expected.value) else math.inf
    error = expected.stderr if math.isfinite(expected.stderr) else 0.0
    return float(abs(ours.value - expected.value) / (1e-2 * abs(expected.value) + 0.2 * error + 1e-6))


def resumed(given: Given) -> Iterator[Measurement]:
    """Trainings that are broken off after an epoch and continued, and the same training twice."""
    ways: list[tuple[int, tuple[str, ...]]] = [(1, ()), (4, ()), (4, ("channels_last", "graph"))]
    for num, options in ways:
        for broken in (False, True):
            name = f"resume: {'broken off' if broken else 'twice the same'}, {num} as one, {step_name(options)}"
            yield name, lambda n=num, o=options, b=broken: resume(given.device, n, o, broken=b)


def resume(device: str, num: int, options: Sequence[str], *, broken: bool) -> Found:
    """Tensors of weights, statistics and optimiser that differ in any bit after two epochs."""
    base = TrialConfig.from_mapping({**BASE, "epochs": 2, "augment": "pad_crop_flip", **MERGED})

    def trained(folder: Path, *, broken: bool) -> list[Tensor]:
        def members() -> list[Member]:
            configs = (dataclasses.replace(base, seed=seed) for seed in range(num))
            return [_member(each, device, None, 32, folder / f"{each.seed}.pt") for each in configs]

        def run(some: list[Member]) -> Iterator[Any]:
            return train(some[0]) if num == 1 and not options else train_together(some, Together, options=options)

        some = members()
        if broken:
            events = run(some)
            for _ in some:
                next(events)  # an epoch of each
            some = members()
        list(run(some))
        states = [value for one in some for value in one.model.state_dict().values()]
        moved = [value for one in some for held in one.optimizer.state.values() for value in held.values()]
        return [value for value in [*states, *moved] if isinstance(value, Tensor)]

    with TemporaryDirectory() as first, TemporaryDirectory() as second:
        whole, other = trained(Path(first), broken=False), trained(Path(second), broken=broken)
    differing = sum(not torch.equal(a, b) for a, b in zip(whole, other, strict=True))
    return Found(values=[differing], unit="tensors", most=0.0, more={"of": len(whole)})


class Meter(CudaMeter):
    """The product's meter; without a GPU its work is done, and its bytes are counted as those that operators give."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def filled(self, work: Callable[[], None]) -> int:
        """Bytes that ``work`` takes at most, as torch's allocator reserves them."""
        if self.kind == "cuda":
            return super()._filled(work)
        with torch.profiler.profile(profile_memory=True) as profiled:
            work()
        return sum(max(0, event.self_cpu_memory_usage) for event in profiled.key_averages())

    _filled = filled


def metered(given: Given, num: int, options: Sequence[str]) -> Found:
    """What the meter says of a group over the most that torch reserves in an epoch of that group: nothing that fits not."""
    dataset = "fake" if given.small else "cifar10"
    known = dataset_facts(dataset)
    config = TrialConfig(
        dataset=dataset, depth=8 if given.small else 20, width=4 if given.small else 16, seed=0, split_seed=0, lr=0.01,
        batch_size=16 if given.small else 128, augment="pad_crop_flip",
    )  # fmt: skip
    meter = Meter(given.device)
    said = meter.training(config, num, options)

    def epoch() -> None:
        pool = random_split(known, min(known.num_train, 50 * config.batch_size), given.device)
        held = random_split(known, known.num_val, given.device)
        data = Dataset(name=dataset, pool=pool, test=held, num_val=len(pool) // 10, num_classes=known.num_classes,
                       mean=(0.5,) * known.image_shape[0], deviation=(0.3,) * known.image_shape[0])  # fmt: skip
        members = []
        for seed in range(num):
            one = dataclasses.replace(config, seed=seed)
            model = build_network(one, num_classes=data.num_classes, mean=data.mean, deviation=data.deviation)
            parts = split(data, 0)
            members.append(Member(model=model.to(given.device), train_split=parts.train, val_split=held, config=one,
                                  checkpoint=None))  # fmt: skip
        Lane(members, Together, options).epoch(0)
        for member in members:
            validate(member)

    taken = meter.filled(epoch)
    return Found(values=[said / taken], unit="of what is taken", least=0.9 if given.device == "cuda" else None,
                 more={"said MiB": said >> 20, "taken MiB": taken >> 20})  # fmt: skip

"""Seconds of training to a given accuracy.

    python -m benchmarks.to_accuracy                  # the CPU, one thread: a small network, a target that it can reach
    python -m benchmarks.to_accuracy --device cuda

The step that studies take, plain and with options, trains a network of this project; after each epoch the test images are
classified (for the benchmark alone: studies read them at the end), and training is over once the target is reached. Seconds
are of the clock, and of the processor on a CPU; reading the data is not in them, evaluation and compiling are. Datasets
that are absent are left out. Published, for comparison on a like GPU alone: CIFAR-10 to .94 in 2.59 s on an A100 (airbench94,
a network and a training built for that), ResNet-18 to .96 in about 7 minutes.

Source: https://arxiv.org/abs/2404.00498 (Jordan 2024)
"""

import argparse
import time
from dataclasses import dataclass

import torch

from benchmarks.cases import step_name
from benchmarks.common import hardware, print_table, spread, versions
from study.config import TrialConfig
from study.data import load_dataset, split
from study.data.parts import Together
from study.errors import UserError
from study.models import build_network
from study.training.fused import train_together
from study.training.member import Member

PUBLISHED = (
    "airbench94: CIFAR-10 to .94 in 2.59 s on an A100 (arXiv 2404.00498); ResNet-18 there to .96 in about 7 minutes"
)


@dataclass(frozen=True)
class Target:
    """What is trained, and how far."""

    config: TrialConfig
    accuracy: float


def _target(accuracy: float, dataset: str, network: str, depth: int, width: int, epochs: int, augment: str) -> Target:
    config = TrialConfig(
        dataset=dataset, network=network, depth=depth, width=width, epochs=epochs, augment=augment, seed=0, split_seed=0,
        batch_size=128, lr=0.2, weight_decay=5e-4, warmup_epochs=0.5,
    )  # fmt: skip
    return Target(config, accuracy)


TARGETS = {
    "cpu": (_target(0.85, "fashion_mnist", "cifar_resnet", 8, 8, 1, "none"),),
    "cuda": (
        _target(0.93, "fashion_mnist", "cifar_resnet", 20, 16, 20, "pad_crop_flip"),
        _target(0.94, "cifar10", "wrn", 16, 4, 40, "pad_crop_flip"),
    ),
}
STEPS: dict[str, tuple[tuple[str, ...], ...]] = {
    "cpu": ((), ("channels_last",), ("channels_last", "bf16")),
    "cuda": ((), ("channels_last", "graph"), ("channels_last", "graph", "compile", "bf16")),
}


def reach(target: Target, options: tuple[str, ...], seed: int, device: str) -> tuple[float, float, int, float]:
    """Seconds of the clock and of the processor, epochs, and the accuracy then."""
    config = TrialConfig.from_mapping({**target.config.as_dict(), "seed": seed})
    dataset = load_dataset(config.dataset)
    parts, where = split(dataset, 0), torch.device(device)
    model = build_network(config, num_classes=dataset.num_classes, mean=dataset.mean, deviation=dataset.deviation)
    member = Member(
        model=model.to(where),
        train_split=parts.train.to(where),
        val_split=parts.test.to(where),
        config=config,
        checkpoint=None,
    )
    clock, processor = time.perf_counter(), time.process_time()
    for _ in train_together([member], Together, options=options):
        if member.trained.curves["val/accuracy"][-1] >= target.accuracy:
            break
    seconds = time.perf_counter() - clock, time.process_time() - processor
    return *seconds, member.trained.epoch, member.trained.curves["val/accuracy"][-1]


def show(device: str, seeds: int) -> None:
    """Print the table, all steps in turn."""
    rows = []
    for target in TARGETS[device]:
        config = target.config
        what = f"{config.dataset}, {config.network} depth {config.depth} width {config.width}, to {target.accuracy}"
        try:
            found = {options: [] for options in STEPS[device]}  # type: dict[tuple[str, ...], list[tuple[float, ...]]]
            for seed in range(seeds):
                for options, values in found.items():
                    values.append(reach(target, options, seed, device))
        except UserError as absent:
            print(f"{what}: left out ({absent})")
            continue
        for options, values in found.items():
            clock, processor, epochs, accuracy = ([row[at] for row in values] for at in range(4))
            reached = f"{sum(value >= target.accuracy for value in accuracy)} of {seeds}"
            rows.append([what, step_name(options), reached, *map(spread, (clock, processor, epochs, accuracy))])
    print_table("Time to accuracy", ["training", "step", "reached", "s", "s of the CPU", "epochs", "accuracy"], rows)
    print(f"Published, on other hardware: {PUBLISHED}.")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"# {hardware(gpu=given.device == 'cuda')}; {versions('torch')}; n = {given.seeds} seeds")
    show(given.device, given.seeds)


if __name__ == "__main__":
    main()

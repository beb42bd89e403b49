"""Do replicates that train together end where those trained alone end?

    python -m benchmarks.fusion_agreement
    python -m benchmarks.fusion_agreement --group 1 --step channels_last bf16    # options of the step, one by one

The same replicates of digits (depth 8, width 8, batch 128, 6 epochs), once in groups of eight and once one by one. They start
equal and part by rounding, which training amplifies; so the ends are compared as pairs: mean difference, its standard
deviation and t. ``ratio`` is the standard deviation of validation accuracy among replicates over that of the pairs'
differences, the smaller of two operators: how far fusing moves a replicate beside what its seed does.

Source: https://arxiv.org/abs/2102.02344 (HFTA)
"""

import argparse
import statistics

import torch

from benchmarks.common import result
from study.config import TrialConfig
from study.data import load_dataset, split
from study.data.parts import Together
from study.models import build_network
from study.training import Trained, train
from study.training.fused import Ended, train_together
from study.training.member import Member
from study.training.options import OPTIONS


def member(config: TrialConfig) -> Member:
    """A replicate at its start."""
    data = load_dataset(config.dataset)
    parts = split(data, config.split_seed)
    model = build_network(config, num_classes=data.num_classes, mean=data.mean, deviation=data.deviation)
    return Member(model=model, train_split=parts.train, val_split=parts.val, config=config, checkpoint=None)


def alone(config: TrialConfig) -> Trained:
    """Its training by itself."""
    one = member(config)
    list(train(one))
    trained = one.trained
    assert isinstance(trained, Trained)
    return trained


def main() -> None:
    """Print a row an operator and outcome, and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--group", type=int, default=8, help="how many train together")
    parser.add_argument("--step", nargs="*", default=[], choices=list(OPTIONS), help="options of their step")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| merge | outcome | alone: mean (sd) | together - alone: mean (sd) | t | first epoch's loss, relative |")
    print("|---|---|---|---|---|---|")
    ratios = []
    for merge in ("add", "mul"):
        configs = [
            TrialConfig(
                dataset="digits", depth=8, width=8, seed=seed, split_seed=seed, epochs=given.epochs, batch_size=128, lr=0.1,
                weight_decay=5e-4, warmup_epochs=1.0, merge=merge,
            )
            for seed in range(given.replicates)
        ]  # fmt: skip
        together: list[Trained] = []
        for start in range(0, len(configs), given.group):
            members = [member(config) for config in configs[start : start + given.group]]
            events = train_together(members, Together, options=given.step)
            ended = {event.index: event.outcome for event in events if isinstance(event, Ended)}
            together += [outcome for _, outcome in sorted(ended.items()) if isinstance(outcome, Trained)]
        by_themselves = [alone(config) for config in configs]
        pairs = list(zip(together, by_themselves, strict=True))
        first = max(abs(a.curves["train/loss"][0] / b.curves["train/loss"][0] - 1) for a, b in pairs)
        for name in ("val/accuracy", "val/loss"):
            ends = [b.curves[name][-1] for _, b in pairs]
            apart = [a.curves[name][-1] - b.curves[name][-1] for a, b in pairs]
            mean, deviation = statistics.mean(apart), statistics.stdev(apart)
            t = mean / (deviation / len(apart) ** 0.5) if deviation else 0.0
            row = (
                f"{statistics.mean(ends):.4f} ({statistics.stdev(ends):.4f}) | {mean:+.5f} ({deviation:.5f}) | {t:.2f}"
            )
            print(f"| {merge} | {name} | {row} | {first:.1e} |", flush=True)
            if name == "val/accuracy":
                ratios.append(round(statistics.stdev(ends) / max(deviation, 1e-9), 2))
    more = {"replicates": given.replicates, "group": given.group, "step": given.step}
    print(result("fusion_agreement", ratios, 1.0, packages=("torch",), more=more))


if __name__ == "__main__":
    main()

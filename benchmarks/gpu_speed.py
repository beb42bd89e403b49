"""Steps (b) to (g) of ``benchmarks.gpu_session``: how fast a GPU is at what studies do, beside how others do it.

Each calls the benchmark of its subject (``fusion``, ``roofline``, ``trainable``, ``to_accuracy``) in what fits into minutes,
or the product. ``--small`` takes networks and data by which a CPU is through in seconds; the numbers then say nothing.
"""

import contextlib
import dataclasses
import functools
import os
import shutil
import signal
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import fusion, roofline
from benchmarks.cases import Case, in_turn, step_name
from benchmarks.driven import run_command, write_spec
from benchmarks.gpu_session import Found, Given, Measurement
from benchmarks.scales import SCALES, load_plugins
from benchmarks.to_accuracy import TARGETS, reach
from benchmarks.trainable import epochs, parts_of
from search_spaces import load_spec
from study.config import Task, TrialConfig
from study.data.dataset import dataset_facts, load_dataset
from study.data.files import OFFLINE_VARIABLE, ROOT_VARIABLE
from study.measuring.replicate import estimates_of, measure_context
from study.planning.networks import untrained
from study.resources.timing import random_split, timer
from study.results.ledger import read_ledger
from study.smoothness import in_turn as measured_in_turn
from study.training.options import usable
from study.worker.ahead import backend_kept, set_backend
from study.worker.group import run_group

SMALL, LARGE = roofline.CASES[:1], roofline.CASES[1:3]
# Ways of a group's step; the first is plain.
WAYS: tuple[tuple[str, ...], ...] = ((), ("graph",), ("channels_last", "graph"))
BEST = WAYS[-1]
GOAL = {"cifar_resnet": 8.0}
AIRBENCH = "airbench94 on an A100 2.59 s (arXiv 2404.00498)"
# What a replicate's statistics may take of its training.
SUITE = 0.1


def fusion_by_group(given: Given) -> Iterator[Measurement]:
    """Step (b): serial time over that of a group, a replicate and step; and several processes at once."""
    set_backend(1)
    cases = SMALL if given.small else LARGE
    sizes, processes, rounds, steps = ((4,), 2, 2, 2) if given.small else ((16, 8, 4, 2), 4, 5, 10)
    for size in sizes:
        for case in cases:
            for options in WAYS if size == sizes[0] else (WAYS[0], BEST):
                name = f"{case.name}, {size} as one, {step_name(options)}, over one by one"
                yield name, lambda c=case, s=size, o=options: _group(c, s, o, given.device, rounds, steps)
        for case in cases if size == sizes[0] else ():
            name = f"{case.name}, {processes} processes, over one by one"
            yield name, lambda c=case: _processes(c, processes, given.device, 1.0 if given.small else 3.0)


def _group(case: Case, size: int, options: tuple[str, ...], device: str, rounds: int, steps: int) -> Found:
    found = fusion.measure(case, device, rounds, (size,), options, steps)
    ratios = [serial / own for serial, own in zip(found[1], found[size], strict=True)]
    more = {"serial ms": _middle(found[1]), "ms": _middle(found[size])}
    goal = GOAL.get(case.network) if size == 16 and options == BEST else None
    return Found(values=ratios, unit="times", least=goal, more=more)


def _processes(case: Case, processes: int, device: str, seconds: float) -> Found:
    alone = _middle(fusion.measure(case, device, 3, ())[1])
    together = fusion.in_processes(case, device, processes, seconds)
    return Found(values=[alone / together], unit="times", more={"serial ms": alone, "ms": float(f"{together:.3g}")})


def _middle(values: Sequence[float]) -> float:
    return float(f"{statistics.median(values):.4g}")


def trials_an_hour(given: Given) -> Iterator[Measurement]:
    """Step (c): ResNet-20 on images of CIFAR-10's number and shape, three epochs, in one process.

    From the images in memory to the last epoch's end. The other side has torch as it comes, TF32 in convolutions included.
    """
    torch.set_num_threads(1)
    load_plugins("cifar")
    fixed = {**SCALES["cifar"]["fixed"], "epochs": 3}
    if given.small:
        fixed |= {"dataset": "made_up_few", "width": 4, "epochs": 1}
    depth, group, rounds = (8, 2, 1) if given.small else (20, 16, 2)
    best, plain = (f"fmm-study, {group} as one, {way}" for way in ("graph", "plain"))
    yield "fmm-study, one by one", lambda: _ours(fixed, depth, 1, 1, (), given, rounds)
    yield best, lambda: _ours(fixed, depth, group, group, BEST, given, rounds)
    others = {"the tutorials' trainable": (2, True), "a plain loop, 8 loaders": (8, False)}
    for name, (loaders, kept) in others.items():
        yield name, lambda p=loaders, k=kept: _theirs(fixed, depth, given.device, p, k, rounds)
    for name in others:
        least = 10.0 if name.startswith("the") and not given.small else None
        yield f"{best}, over {name}", lambda o=name, at=least: _over(given, best, o, at)
    yield plain, lambda: _ours(fixed, depth, group, group, (), given, 1)


def _ours(
    fixed: Mapping[str, Any], depth: int, num: int, together: int, options: tuple[str, ...], given: Given, rounds: int
) -> Found:
    """Replicates as a worker trains them: evaluated, with a checkpoint an epoch, and their records written."""
    load_dataset(fixed["dataset"])
    seconds = []
    for number in range(rounds):
        tasks = [
            Task(
                config=TrialConfig.from_mapping(
                    {**fixed, "depth": depth, "seed": seed, "split_seed": seed, "lr": 0.1, "weight_decay": 5e-4}
                ),
                cell="add", phase="confirm", block=seed, replicate=seed, number=0, together=together, step=options,
            )
            for seed in range(number * num, (number + 1) * num)
        ]  # fmt: skip
        with tempfile.TemporaryDirectory() as folder, backend_kept():
            started = time.perf_counter()
            events = [event for event in run_group(tasks, Path(folder), device=given.device) if isinstance(event, list)]
            seconds.append(time.perf_counter() - started)
        if faults := [event[0].get("reason") for event in events if event[0].get("state") == "failed"]:
            raise RuntimeError(f"{len(faults)} of {num} failed: {faults[0]}")
    left_out = set(options) - usable(options, tasks[0].config, given.device)
    more = {"trainings": num, **({"left out": sorted(left_out)} if left_out else {})}
    return Found(values=[3600 * num / each for each in seconds], unit="trials an hour", more=more)


def _theirs(fixed: Mapping[str, Any], depth: int, device: str, loaders: int, kept: bool, rounds: int) -> Found:
    """``benchmarks.trainable`` in a loop; ``kept``: with a checkpoint an epoch, as the tutorials have it."""
    data, moments, num_classes = parts_of(fixed["dataset"])
    config = {"fixed": fixed, "merge": "add", "depth": depth, "seed": 1, "lr": 0.1, "weight_decay": 5e-4}
    config |= {"moments": moments, "num_classes": num_classes}
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _, state in epochs(config, data, device, loaders=loaders):
            if kept:
                with tempfile.TemporaryDirectory() as folder:
                    torch.save(state, Path(folder) / "checkpoint.pt")
        seconds.append(time.perf_counter() - started)
    return Found(values=[3600 / each for each in seconds], unit="trials an hour", more={"loaders": loaders})


def _over(given: Given, ours: str, theirs: str, least: float | None) -> Found:
    return Found(
        values=[statistics.median(given.held(ours)) / statistics.median(given.held(theirs))], unit="times", least=least
    )


def shares(given: Given) -> Iterator[Measurement]:
    """Step (d)."""
    set_backend(1)
    rounds = 2 if given.small else 5
    for name, unit in (("float32", "operations"), ("bfloat16", "operations"), ("copy", "bytes")):
        yield (
            f"the device itself, {name}",
            lambda n=name, u=unit: Found(values=[v / 1e9 for v in _peaks(given.device, rounds)[n]], unit=f"G{u}/s"),
        )
    ways = [(options, size) for options, size in roofline.WAYS[given.device] if "compile" not in options]
    for case in SMALL if given.small else LARGE:
        for options, size in [*ways, (("channels_last", "graph", "bf16"), 1), (BEST, 16)][:: 3 if given.small else 1]:
            name = f"{case.name}, {step_name(options)}, {size} as one, of the matrix rate"
            yield name, lambda c=case, o=options, s=size: _share(c, o, s, given.device, rounds)


@functools.cache
def _peaks(device: str, rounds: int) -> dict[str, list[float]]:
    return in_turn(roofline.hardware_timers(device), rounds)


def _share(case: Case, options: tuple[str, ...], size: int, device: str, rounds: int) -> Found:
    peaks = {name: max(values) for name, values in _peaks(device, rounds).items()}
    timing = case.timer(device, size, 20 if device == "cuda" else 2, options)
    seconds = [timing() for _ in range(rounds)]
    rate, copy = roofline.shares_of(roofline.work(case, device), options, seconds, peaks)
    more = {"of copy bandwidth": _middle(copy), "ms": _middle([1000 * each for each in seconds])}
    return Found(values=rate, unit="of 1", more=more)


def suite(given: Given) -> Iterator[Measurement]:
    """Step (e): what a worker measures on a network of the preset ``cifar10``, over what training it takes."""
    set_backend(1)
    ways: dict[str, tuple[int, tuple[str, ...]]] = {"one by one": (1, ()), "16 as one, graph": (16, BEST)}
    for name, (size, options) in ways.items():
        yield (
            f"the preset's statistics, over training {name}",
            lambda s=4 if given.small and size > 1 else size, o=options: _suite(given, s, o),
        )


def _suite(given: Given, size: int, options: tuple[str, ...]) -> Found:
    spec = load_spec("cifar10")
    dataset, rounds = ("fake", 1) if given.small else ("cifar10", 2)
    known = dataset_facts(dataset)
    config = TrialConfig.from_mapping(
        {**spec.fixed, "dataset": dataset, "depth": 8 if given.small else 20, "seed": 0, "split_seed": 0, "attention": "se",
         "attention_form": "mul", "batch_size": 16 if given.small else spec.fixed["batch_size"]}
    )  # fmt: skip
    steps = config.epochs * (known.num_train // config.batch_size)
    timing = timer(config, known, size, given.device, 2 if given.small else 20, options)
    shares, seconds = [], {}
    for number in range(rounds):
        training = steps * timing()
        seconds = _measured(config, number, {} if given.small else spec.measure.statistics, given.device)
        shares.append(sum(seconds.values()) / training)
    more = {"training s": _middle([training]), **{name: _middle([value]) for name, value in seconds.items()}}
    return Found(values=shares, unit="of training", most=None if given.small else SUITE, more=more)


def _measured(config: TrialConfig, seed: int, chosen: Mapping[str, Any], device: str) -> dict[str, float]:
    """Seconds of batch norm's re-estimation and of each statistic, as a worker takes them, on random pixels."""
    known = dataset_facts(config.dataset)
    sizes = {"train": known.num_train, "val": known.num_val, "test": known.num_test}
    parts = {name: random_split(known, num, device) for name, num in sizes.items()}
    model = untrained(dataclasses.replace(config, seed=seed), known).to(device)
    chosen = chosen or {"input_jacobian": {"num_samples": 8}, "path": {"num_pairs": 4}}
    seconds, last = {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal last
        if device == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        seconds[name], last = now - last, now

    with measure_context(model, parts, known.num_classes, seed=seed, batch_size=config.batch_size) as context:
        lap("batch norm anew")
        for name in measured_in_turn(chosen):
            _, error = estimates_of(name, chosen[name], context)
            if error:
                raise RuntimeError(f"{name}: {error}")
            lap(name)
    return seconds


def data_of(given: Given, small: str) -> str:
    """``cifar10_jpeg``, unpacked from the images that were brought; in small, without images, ``small``."""
    if given.images is None:
        if given.small:
            return small
        raise RuntimeError("no images were brought: --images")
    root = given.out / "data"
    os.environ[ROOT_VARIABLE], os.environ[OFFLINE_VARIABLE] = str(root), "1"
    if not root.exists():
        partial = given.out / "data.partial"
        shutil.rmtree(partial, ignore_errors=True)
        with tarfile.open(given.images) as packed:
            packed.extractall(partial / "cifar10_jpeg", filter="data")
        partial.rename(root)
    return "cifar10_jpeg"


def time_to_accuracy(given: Given) -> Iterator[Measurement]:
    """Step (f): the test images are classified after each epoch, and training is over at .94."""
    set_backend(1)
    for options in (*((*BEST, "bf16"), BEST), ()):
        yield f"to accuracy, {step_name(options)}", lambda o=options: _to_accuracy(given, o)


def _to_accuracy(given: Given, options: tuple[str, ...]) -> Found:
    dataset, target = data_of(given, "fake"), TARGETS["cuda"][1]
    changes: dict[str, Any] = {"dataset": dataset, "epochs": 30}
    if given.small:
        changes |= {"network": "cifar_resnet", "depth": 8, "width": 4, "epochs": 1 if given.images else 3}
    config = dataclasses.replace(target.config, **changes)
    accuracy = 0.2 if given.small else target.accuracy
    seconds, _, epochs, found = reach(
        dataclasses.replace(target, config=config, accuracy=accuracy), options, 0, given.device
    )
    more = {
        "accuracy": round(found, 4),
        "epochs": epochs,
        "on": f"{dataset}, {config.network}-{config.depth}-{config.width}",
    }
    if found < accuracy:
        return Found(values=[found], unit="accuracy in the end", least=accuracy, more={**more, "s": round(seconds, 1)})
    return Found(values=[seconds], unit="s", more={**more, "published": AIRBENCH})


def product(given: Given) -> Iterator[Measurement]:
    """Step (g): a study of the paper's question in small, on the images that were brought; as far as the time goes."""
    yield "fmm-study run --in-process", lambda: _run(given)
    yield "fmm-study audit, faults", lambda: _audit(given)


def _specification(given: Given, dataset: str) -> Path:
    fixed = {"dataset": dataset, "network": "cifar_resnet", "batch_size": 128, "warmup_epochs": 1.0}
    fixed |= {"width": 4, "epochs": 1} if given.small else {"width": 16, "epochs": 8, "augment": "pad_crop_flip"}
    merges = ["add", "add_alias", "mul", "authors_8"]
    measured = {
        "input_jacobian": {"num_samples": 256},
        "path": {"num_pairs": 100},
        "noise_accuracy": {"num_samples": 256},
    }
    resources = {
        "cpus": 1,
        "gpus": float(given.device == "cuda"),
        "group": 4,
        "threads": 1,
        "fuse": "auto",
        "step": "auto",
    }
    return write_spec(
        given.out / "product.yaml",
        seed=1,
        factors={"merge": merges, "depth": [8 if given.small else 20]},
        fixed=fixed,
        nuisance={"lr": {"low": 0.03, "high": 1.0, "log": True, "default": 0.2}},
        blocks=2 if given.small else 4,
        budget={"search_trials": 2, "startup_trials": 1, **({} if given.small else {"search_epochs": 2})},
        resources=resources,
        measure={"statistics": measured},
        control={"arm": {"merge": "add_alias"}, "reference": {"merge": "add"}},
        contrasts=[{"arm": {"merge": name}, "reference": {"merge": "add"}} for name in merges[2:]],
    )


def _run(given: Given) -> Found:
    path, storage = _specification(given, data_of(given, "fake")), given.out / "results"
    shutil.rmtree(storage, ignore_errors=True)  # of a session before, which was ended within it
    # seconds of training, after which nothing more is begun; then what is begun may end, then no more
    begun, ended, last = (40, 30, 10) if given.small else (75, 40, 15)
    command = [*run_command(path, storage), "--in-process", "--quiet", "--max-hours", str(begun / 3600)]
    started = time.perf_counter()
    process = subprocess.Popen(command)
    code: int | str = "ended"
    try:
        code = process.wait(begun + ended)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(last)
    finally:
        process.kill()
        process.wait()
    seconds = time.perf_counter() - started
    contents = read_ledger(storage / "product" / "ledger")
    states = [record["state"] for record in contents.replicates.values()]
    more = {"trainings": len(states), "failed": states.count("failed"), "measurements": len(contents.measures)}
    more |= {"exit code": code, "seconds": round(seconds, 1), "report": (storage / "product" / "report.html").is_file()}
    if not states or more["failed"]:
        raise RuntimeError(f"no training, or failed ones: {more}")
    return Found(values=[3600 * len(states) / seconds], unit="trainings an hour", more=more)


def _audit(given: Given) -> Found:
    command = run_command(given.out / "product.yaml", given.out / "results")
    done = subprocess.run(
        [*command[: command.index("run")], "audit", *command[command.index("run") + 1 :]],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = (done.stdout + done.stderr).strip().splitlines()[-1:]
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {said}")
    return Found(values=[0.0], unit="faults", most=0.0, more={"said": said})

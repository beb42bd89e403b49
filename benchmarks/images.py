"""Images on the host: the peak memory of a worker, and the time to decode many small files, first and from what was kept.

    python -m benchmarks.images [--images 60000] [--files 20000] [--only memory|files]

Memory: a worker (a process of its own) trains a network of some 7,000 parameters for an epoch on made-up images of 3x64x64 as
uint8, tests and measures it, and holds the splits of eight blocks. Its convolutions have strides, so that what it computes
takes little beside the images. Files: JPEG files of 64x64, one folder a class.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks.common import machine_load, result
from study.config import Task, TrialConfig
from study.data import Dataset, Split, load_dataset
from study.models import build_network, num_params
from study.models.networks import Normalize
from study.registry import DATASETS, NETWORKS
from study.worker.ahead import splits_on
from study.worker.group import run_group

SHAPE = 3, 64, 64
STATISTICS = {
    "input_jacobian": {"num_samples": 32},
    "path": {"num_pairs": 32, "num_steps": 8},
    "hessian": {"num_samples": 64, "num_probes": 1, "num_steps": 2, "max_steps": 4},
}
BLOCKS = 8
GIB = 2**30


def main() -> None:
    """Run both, each in a process of its own; print, and as the last line what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--only", choices=("memory", "files"))
    parser.add_argument("--child", choices=("memory", "files"))
    given = parser.parse_args()
    if given.child:
        print(worker_memory(given.images) if given.child == "memory" else seconds_to_load())
        return
    found: dict[str, float] = {}
    if given.only != "files":
        stored = given.images * int(np.prod(SHAPE))
        peak = int(_child("memory", given.images))
        allowed = 1.5 * stored + GIB
        print(
            f"memory: peak {peak / GIB:.2f} GiB; images {stored / GIB:.2f}, goal {allowed / GIB:.2f} ({machine_load()})"
        )
        found |= {"peak_gib": peak / GIB, "ratio_memory": allowed / peak}
    if given.only != "memory":
        with tempfile.TemporaryDirectory() as root:
            write_files(Path(root), given.files)
            first, again = (float(_child("files", given.images, FMM_STUDY_DATA=root)) for _ in range(2))
        print(
            f"files: {given.files:,} decoded in {first:.1f} s, from what was kept in {again:.1f} s ({machine_load()})"
        )
        found |= {"decode_seconds": first, "kept_seconds": again}
    ratios = [found.get("ratio_memory", 0.0)]
    print(result("images", ratios, 1.0, packages=("torch", "pillow"), more=found))


def _child(what: str, images: int, **environment: str) -> str:
    command = [sys.executable, "-m", "benchmarks.images", "--child", what, "--images", str(images)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    return done.stdout.splitlines()[-1]


def worker_memory(num_images: int) -> int:
    """Bytes that a worker takes at most."""

    @DATASETS.register("large", formula="noise around a colour a class", source="this file")
    def large() -> Dataset:
        generator = torch.Generator().manual_seed(0)

        def draw(num: int) -> Split:
            labels = torch.arange(num) % 10
            images = torch.randint(0, 200, (num, *SHAPE), dtype=torch.uint8, generator=generator)
            for start in range(0, num, 1000):
                images[start : start + 1000] += (labels[start : start + 1000, None, None, None] * 5).to(torch.uint8)
            return Split(images=images, labels=labels)

        test = num_images // 10
        return Dataset(
            name="large", pool=draw(num_images - test), test=draw(test), num_val=test, num_classes=10,
            mean=(0.5,) * 3, deviation=(0.25,) * 3,
        )  # fmt: skip

    @NETWORKS.register("small", formula="two convolutions with strides", source="this file")
    def small(*, num_classes: int, mean: Sequence[float], deviation: Sequence[float], **_: Any) -> nn.Module:
        first = [nn.Conv2d(3, 16, 4, stride=4), nn.BatchNorm2d(16), nn.ReLU()]
        second = [nn.Conv2d(16, 40, 3, stride=2), nn.BatchNorm2d(40), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(Normalize(mean, deviation), *first, *second, nn.Linear(40, num_classes))

    config = TrialConfig(
        dataset="large", network="small", depth=8, seed=1, split_seed=0, epochs=1, augment="pad_crop_flip"
    )
    network = build_network(config, num_classes=10, mean=(0.5,) * 3, deviation=(0.25,) * 3)
    print(f"{num_params(network):,} parameters")
    for block in range(1, BLOCKS):
        splits_on("large", block, "cpu")
    task = Task(config=config, cell="c", phase="confirm", block=0, replicate=0, number=0, statistics=STATISTICS)
    with tempfile.TemporaryDirectory() as storage:
        *_, records = run_group([task], Path(storage))
    assert records[0]["state"] in ("completed", "collapsed"), records[0]["reason"]
    assert not any(record["error"] for record in records[1:])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def seconds_to_load() -> float:
    """Seconds to load ``image_folder``."""
    started = time.perf_counter()
    load_dataset("image_folder")
    return time.perf_counter() - started


def write_files(root: Path, num: int) -> None:
    """``num`` JPEG files, ten classes."""
    generator = np.random.default_rng(0)
    for i in range(num):
        folder = root / "image_folder" / "train" / f"class_{i % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.kron(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
        Image.fromarray(pixels).save(folder / f"{i:06d}.jpg", quality=90)


if __name__ == "__main__":
    main()

"""Networks whose training steps are timed, and timing in turn."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from study.config import TrialConfig
from study.data.dataset import Facts
from study.resources.timing import timer

Timer = Callable[[], float]
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Case:
    """A network whose training step is timed, on images of a shape (C, H, W)."""

    name: str
    network: str
    depth: int
    width: int
    shape: tuple[int, int, int]
    batch: int
    augment: str = "pad_crop_flip"
    # groups of eight are for steps that leave the device idle
    small: bool = False

    def timer(self, device: str, size: int, steps: int, options: tuple[str, ...] = ()) -> Timer:
        """See ``study.resources.timing.timer``."""
        config = TrialConfig(
            dataset="random", network=self.network, depth=self.depth, width=self.width, batch_size=self.batch, seed=0,
            split_seed=0, weight_decay=5e-4, augment=self.augment,
        )  # fmt: skip
        known = Facts(image_shape=self.shape, num_classes=10, num_train=50_000, num_val=0, num_test=0)
        return timer(config, known, size, device, steps, options)


def in_turn(timers: Mapping[Name, Timer], rounds: int) -> dict[Name, list[float]]:
    """Seconds of each timer, one value per round, all called in turn."""
    found: dict[Name, list[float]] = {name: [] for name in timers}
    for _ in range(rounds):
        for name, seconds in timers.items():
            found[name].append(seconds())
    return found


def step_name(options: Sequence[str]) -> str:
    """Options of a training step with ``+`` between them; ``plain`` without any."""
    return "+".join(options) or "plain"

"""https://docs.ray.io/en/latest/ray-core/scheduling/resources.html: what a group of replicates occupies, and how it trains."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from search_spaces.strict import Strict


class Resources(Strict):
    """What one group of replicates occupies. ``gpus`` may be a fraction; ``group`` replicates are run by one actor.

    ``data_parallel``: how many processes of one host train a replicate, each on a GPU of its own and on a share of every
    batch; ``threads`` are each one's.
    ``fuse``: whether they train as one network, ``auto`` being where that is measured to be faster before the first result.
    Not by default: last digits then depend on who trains together, so that a study that was killed need not repeat them.
    ``step``: options of the training step; ``plain``, the default, has none, ``auto`` those that are measured to be faster,
    beside what is named. ``bf16`` is had by name alone, for it changes more than last digits.
    """

    cpus: float = Field(default=1, gt=0)
    gpus: float = Field(default=0, ge=0)
    group: int = Field(default=1, ge=1)
    threads: int = Field(default=1, ge=1)
    fuse: Literal["auto", "never", "always"] = "never"
    data_parallel: int = Field(default=1, ge=1)
    step: list[Literal["auto", "fused", "channels_last", "graph", "compile", "bf16"]] = []

    @field_validator("step", mode="before")
    @classmethod
    def _one_word(cls, step: Any) -> Any:
        return {"plain": [], "auto": ["auto"]}.get(step, step) if isinstance(step, str) else step

    @model_validator(mode="after")
    def _graphs_need_a_gpu(self) -> "Resources":
        if "graph" in self.step and not self.gpus:
            raise ValueError("step: 'graph' needs a GPU, and gpus=0")
        return self

    @field_validator("gpus")
    @classmethod
    def _fraction_or_whole(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"gpus={gpus:g}: a fraction of one GPU or a whole number of them")
        return gpus

    @model_validator(mode="after")
    def _a_gpu_a_process(self) -> "Resources":
        num, gpus = self.data_parallel, self.gpus
        if gpus > 1 and gpus != num:
            raise ValueError(
                f"gpus={gpus:g} with data_parallel={num}: each process uses one GPU, so both must be {gpus:g}"
            )
        if num > 1 and gpus not in (0, num):
            raise ValueError(f"data_parallel={num} with gpus={gpus:g}: a GPU for each process is needed, gpus={num}")
        if num > 1 and (self.group > 1 or self.fuse != "never"):
            raise ValueError(
                f"data_parallel={num} with group={self.group}, fuse={self.fuse}: one replicate at a time, so group=1 and "
                "fuse=never"
            )
        if num > 1 and self.step:
            raise ValueError(f"data_parallel={num} with step={self.step}: the step of several processes is plain")
        return self

"""What a group of replicates occupies, and how it trains."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from search_spaces.strict import Strict

_Option = Literal["auto", "fused", "channels_last", "graph", "compile", "bf16"]


class Resources(Strict):
    """What one group of replicates occupies, and how it trains. A group is run by one actor of Ray's."""

    cpus: float = Field(default=1, gt=0, description="Cores.", examples=[2])
    gpus: float = Field(default=0, ge=0, description="A fraction of a GPU, or whole ones.", examples=[0.25])
    group: int = Field(default=1, ge=1, description="Replicates of a cell in a group.", examples=[8])
    threads: int = Field(default=1, ge=1, description="Threads of each process that trains.", examples=[2])
    fuse: Literal["auto", "never", "always"] = Field(
        default="never",
        description="Train a group as one network: `auto` where that is measured to be faster before the first result. "
        "Last digits then depend on who trains together, so after a kill they may differ.",
    )
    data_parallel: int = Field(
        default=1,
        ge=1,
        description="Processes of one host that train a replicate, each on a GPU of its own and on a share of every batch.",
        examples=[4],
    )
    step: list[_Option] = Field(
        default=[],
        description="Options of the training step; `plain` is none, `auto` adds those that are measured to be faster. "
        "`bf16`, which changes more than last digits, is taken only by name.",
        examples=["auto"],
    )

    @field_validator("step", mode="before", json_schema_input_type=Literal["plain", "auto"] | list[_Option])
    @classmethod
    def _one_word(cls, step: Any) -> Any:
        return {"plain": [], "auto": ["auto"]}.get(step, step) if isinstance(step, str) else step

    @field_validator("gpus")
    @classmethod
    def _fraction_or_whole(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"gpus={gpus:g}: a fraction of one GPU or a whole number of them")
        return gpus

    @model_validator(mode="after")
    def _consistent(self) -> "Resources":
        if "graph" in self.step and not self.gpus:
            raise ValueError("step: 'graph' needs a GPU, and gpus=0")
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

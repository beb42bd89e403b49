"""https://doi.org/10.1093/biomet/70.3.659 (Lan and DeMets 1983): looks at a study before its last block."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from pydantic import Field, field_validator

from search_spaces.strict import Strict


class Sequential(Strict):
    """Numbers of blocks after which the claims are looked at. Cells that no undecided claim needs stop there."""

    looks: list[int] = Field(min_length=2)

    @field_validator("looks")
    @classmethod
    def _rising(cls, looks: list[int]) -> list[int]:
        if looks[0] < 2 or any(a >= b for a, b in pairwise(looks)):
            raise ValueError(f"needs two or more rising numbers of blocks, the first at least 2, got {looks}")
        return looks


def check_looks(looks: Sequence[int], spec: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` naming what of a specification, as plain values, does not go with ``looks``."""
    last, blocks = looks[-1], spec["blocks"]
    if blocks != last:
        raise ValueError(f"blocks={blocks} with sequential.looks up to {last}: blocks is the last look, {last}")
    if spec["joint"]:
        raise ValueError("sequential with joint: a joint search decides no claim; remove one")
    if not (spec["claims"] or spec["level_claims"]):
        raise ValueError("sequential without claims: looks are there to decide claims; add one or remove sequential")
    if spec["control"] is None:
        raise ValueError(
            "sequential without control: no number of blocks gives a verdict without an A/A control; add one"
        )

"""Networks, merge operators and attention, each a registered part."""

from study.models.build import build_network
from study.models.cost import num_flops, num_params
from study.registry import discover

discover(__name__)

__all__ = ["build_network", "num_flops", "num_params"]

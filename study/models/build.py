"""From a replicate's settings to an initialised network."""

from collections.abc import Sequence

from torch import nn

from study.config import TrialConfig
from study.models.initialise import initialise
from study.registry import NETWORKS


def build_network(
    config: TrialConfig, *, num_classes: int, mean: Sequence[float], deviation: Sequence[float]
) -> nn.Module:
    """Return the network of ``config``, its weights drawn from ``config.seed``. Raises ``UserError`` for bad levels."""
    network: nn.Module = NETWORKS[config.network].build(
        depth=config.depth,
        width=config.width,
        num_classes=num_classes,
        mean=mean,
        deviation=deviation,
        merge=config.merge,
        merge_site=config.merge_site,
        merge_where=config.merge_where,
        attention=config.attention,
        attention_form=config.attention_form,
    )
    initialise(network, config.seed)
    return network

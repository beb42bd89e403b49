"""From a replicate's settings to an initialised network."""

from collections.abc import Sequence

from torch import nn

from study.config import TrialConfig
from study.errors import UserError
from study.models.blocks import BlockParts
from study.models.initialise import initialise
from study.registry import NETWORKS


def build_network(
    config: TrialConfig, *, num_classes: int, mean: Sequence[float], deviation: Sequence[float]
) -> nn.Module:
    """Return the network of ``config``, its weights drawn from ``config.seed``.

    Raises ``UserError`` for bad levels, and for dropout in a network that has no place for it.
    """
    entry = NETWORKS[config.network]
    if config.dropout and not entry.traits.get("dropout"):
        places = [entry.name for entry in NETWORKS if entry.traits.get("dropout")]
        raise UserError(
            f"setting 'dropout' = {config.dropout!r}: network {config.network!r} has no place for it"
            f" (networks that have: {', '.join(places)})"
        )
    parts = BlockParts(
        merge=config.merge,
        merge_site=config.merge_site,
        merge_where=config.merge_where,
        attention=config.attention,
        attention_form=config.attention_form,
        dropout=config.dropout,
    )
    network: nn.Module = entry.build(
        depth=config.depth, width=config.width, num_classes=num_classes, mean=mean, deviation=deviation, parts=parts
    )
    initialise(network, config.seed)
    return network

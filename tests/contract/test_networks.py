"""Every operator trains at either site of every network; of CIFAR's own, ``test_contract.py`` asks more."""

import pytest
import torch
from operators import PLAIN
from torch.nn import functional

from study.config import TrialConfig
from study.models import build_network
from study.registry import NETWORKS

WIDTHS = {
    "cifar_resnet_bottleneck": 4,
    "wrn": 1,
    "authors_wrn": 1,
    "imagenet_resnet": 4,
    "cifar_starnet": 2,
}
OPERATORS = PLAIN


def test_every_network_is_in_these_tests():
    assert {"cifar_resnet", *WIDTHS} == set(NETWORKS.names())


@pytest.mark.parametrize("site", ["skip", "branch"])
@pytest.mark.parametrize("name", WIDTHS)
def test_every_operator_trains_in_every_network(name, site):
    pixels = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    for merge in [*OPERATORS, "add_matched_star", "add_matched_concat"]:
        config = TrialConfig(
            dataset="fake", network=name, depth=NETWORKS[name].traits["smallest_depth"], width=WIDTHS[name], seed=1,
            split_seed=0, merge=merge, merge_site=site,
        )  # fmt: skip
        model = build_network(config, num_classes=4, mean=(0.5,), deviation=(0.25,))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
        for _ in range(2):  # at the start the gradient of a part behind a zero is zero
            model.zero_grad()
            functional.cross_entropy(model(pixels), torch.arange(6) % 4).backward()
            optimizer.step()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), (merge, key)

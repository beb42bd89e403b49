"""The page of levels is the registry's, and levels start as their formulas say."""

from pathlib import Path

import torch

from study.config import TrialConfig
from study.models import build_network
from study.printing.levels import levels
from study.printing.registered import REGENERATE, markdown, own
from study.registry import MERGES

PAGE = Path(__file__).parents[2] / "docs" / "levels.md"


def test_the_page_of_levels_is_the_registrys():
    assert PAGE.read_text() == markdown(), f"docs/levels.md is not what the registry says: run `{REGENERATE}`"
    assert levels() == own(), f"levels.json is not what the registry says: run `{REGENERATE}`"


def test_every_level_is_on_the_page_once():
    lines = markdown().splitlines()
    for row in levels():
        assert sum(line.startswith(f"| `{row['name']}` |") and row["source"] in line for line in lines) >= 1, row


def test_the_authors_baseline_is_addition_where_the_block_normalises_its_branch():
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    logits = {}
    for merge in ("add", "add_bn_f", "sig1_bn"):
        config = TrialConfig(dataset="fake", depth=8, width=4, seed=1, split_seed=0, merge=merge)
        logits[merge] = build_network(config, num_classes=3, mean=(0.5,), deviation=(0.25,))(x)
    torch.testing.assert_close(logits["add"], logits["add_bn_f"])
    assert not torch.allclose(logits["add"], logits["sig1_bn"])


def test_only_the_named_shift_starts_at_one():
    for merge, expected in (("sig_bn_shift_x", (1, 0)), ("bn_sig_shift_f", (0, 1)), ("mul_bn_shift1", (1, 1))):
        built = MERGES[merge].build(4)
        assert built.bn_x.bias.eq(expected[0]).all() and built.bn_f.bias.eq(expected[1]).all(), merge

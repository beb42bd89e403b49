"""Each layer's cost against torchinfo, the totals against torch's own counter, and the command that prints them."""

import io
import math

import pytest
import torch
import torchinfo
from operators import PLAIN
from rich.console import Console
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from analysis.trials.columns import RECORDED
from analysis.words.columns import shared
from search_spaces import load_spec
from study.config import TrialConfig
from study.errors import UserError
from study.models import build_network, num_flops, num_params
from study.models.cost import layer_costs
from study.planning.plan import make_plan
from study.printing.describe import print_cost
from study.registry import ATTENTION_FORMS, ATTENTIONS, NETWORKS

IMAGE = (3, 16, 16)
WIDTHS = {"wrn": 1, "authors_wrn": 1}
MERGED = ("add", "none", "highway", "star", "concat", "sig_bn", "rezero")
ATTENDED = ("none", "se", "cbam", "eca", "sk", "non_local", "gc")


def network(name="cifar_resnet", depth=None, width=None, image=IMAGE, **changes) -> nn.Module:
    depth = depth or NETWORKS[name].traits["smallest_depth"]
    config = TrialConfig(
        dataset="fake", network=name, depth=depth, width=width or WIDTHS.get(name, 4), seed=1, split_seed=0, **changes
    )
    return build_network(config, num_classes=10, mean=(0.5,) * image[0], deviation=(0.5,) * image[0])


def assert_totals(model: nn.Module, image=IMAGE) -> None:
    """Against the sum over parameters and torch's own counter."""
    model.eval()
    rows = layer_costs(model, image)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, *image))
    assert 2 * sum(row.flops for row in rows) == counter.get_total_flops() > 0
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert sum(row.params for row in rows) == sum(parameter.numel() for parameter in trained) == num_params(model)
    assert len({row.name for row in rows}) == len(rows)


@pytest.mark.parametrize("name", NETWORKS.names())
def test_totals_are_those_of_torchs_counter(name):
    for merge, attention in zip(MERGED, ATTENDED, strict=True):
        form = "none" if attention == "none" else "mul"
        assert_totals(network(name, merge=merge, attention=attention, attention_form=form))
    assert_totals(network(name, merge="star", merge_site="branch"))


def test_totals_hold_for_every_operator_gate_and_form():
    merges = PLAIN  # matched ones are ``add``, wider
    gates = [name for name in ATTENTIONS.names() if name != "none"]
    for index in range(max(len(merges), len(gates))):
        merge, gate = merges[index % len(merges)], gates[index % len(gates)]
        assert_totals(network(merge=merge, attention=gate, attention_form="native"))
    for form in (name for name in ATTENTION_FORMS.names() if name != "none"):
        assert_totals(network(attention="non_local", attention_form=form))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("cifar_resnet", {"merge": "highway", "attention": "cbam", "attention_form": "native"}),
        ("cifar_resnet_bottleneck", {"merge": "star", "attention": "gc", "attention_form": "mul"}),
        ("wrn", {"merge": "concat", "attention": "sk", "attention_form": "native"}),
        ("imagenet_resnet", {"merge": "sig_bn", "attention": "non_local", "attention_form": "add"}),
    ],
)
def test_layers_agree_with_torchinfo(name, changes):
    """torchinfo counts a multiply-add as one, and each addition of a bias as one more."""
    model = network(name, **changes)
    rows = {row.name: row for row in layer_costs(model, IMAGE)}
    summary = torchinfo.summary(model, input_data=torch.zeros(2, *IMAGE), verbose=0, mode="eval")
    names = {id(module): module_name for module_name, module in model.named_modules()}
    theirs: dict[str, list[int]] = {}
    sizes = {}
    for info in summary.summary_list:
        if isinstance(info.module, (nn.Conv2d, nn.Linear)):
            layer = names[info.layer_id]
            biases = math.prod(info.output_size) if info.module.bias is not None else 0
            theirs.setdefault(layer, []).append(info.macs - biases)
            sizes[layer] = (tuple(info.output_size[1:]), info.num_params)
    assert len(theirs) == sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in model.modules())
    for layer, macs in theirs.items():
        assert rows[layer].flops == sum(macs), layer  # of two images there, of one but twofold here
        assert (rows[layer].shape, rows[layer].params) == sizes[layer]
        assert rows[layer].activations == len(macs) * math.prod(rows[layer].shape)
    norms = [info for info in summary.summary_list if isinstance(info.module, nn.BatchNorm2d) and info.executed]
    assert norms and all(rows[names[info.layer_id]].params == info.num_params for info in norms)
    if changes["attention"] == "cbam":
        assert max(len(macs) for macs in theirs.values()) == 2  # the shared layers run twice


def test_rows_of_a_small_network_by_hand():
    model = network(width=4, image=(1, 8, 8), merge="star", attention="non_local", attention_form="native")
    costs = layer_costs(model, (1, 8, 8))
    assert layer_costs(model.to("meta"), (1, 8, 8)) == costs
    rows = {row.name: row for row in costs}
    places, inner = 8 * 8, 2
    product = 2 * places * places * inner
    gate, form = rows["stages.0.0.attention.gate"], rows["stages.0.0.attention"]
    assert (gate.kind, gate.flops, gate.shape, gate.params) == ("NonLocal", product, (places, places), 0)
    assert (form.kind, form.flops, form.activations) == ("Native", product, 4 * places)
    merge = rows["stages.0.0.merge"]
    assert (merge.kind, merge.flops, merge.activations, merge.shape) == ("Star", 0, 4 * places, (4, 8, 8))
    assert rows["conv"].flops == 2 * 9 * 4 * places and rows["head"].flops == 2 * 16 * 10
    assert rows["stages.1.0.conv1"].flops == 2 * 9 * 4 * 8 * 16 and rows["stages.1.0.conv1"].shape == (8, 4, 4)
    assert rows["bn"].params == 8 and rows["bn"].flops == 0
    # a sequence hands on what its last block gave, an identity what it took
    assert not {"", "stages", "stages.0", "stages.0.0.shortcut"} & rows.keys()


def test_a_multiply_add_is_two_flops_and_the_unit_says_flops():
    """A 1x1 convolution from 3 to 5 channels on 4x4 positions: 240 multiply-adds."""
    model = nn.Sequential(nn.Conv2d(3, 5, 1, bias=False))
    assert num_flops(model, (3, 4, 4)) == 2 * 3 * 5 * 16
    (column,) = shared("flops")
    assert column.unit == RECORDED["flops"].unit == "FLOPs an image"


def test_what_is_frozen_is_no_trained_parameter():
    trained, frozen = (network(attention="se", attention_form=form) for form in ("mul", "untrained"))
    gates = [module.gate for module in frozen.modules() if hasattr(module, "gate")]
    held = sum(parameter.numel() for gate in gates for parameter in gate.parameters())
    assert held and num_params(frozen) == num_params(trained) - held
    assert sum(row.params for row in layer_costs(frozen, IMAGE)) == num_params(frozen)


def test_parameters_of_modules_that_hold_modules_or_do_not_run_and_shared_ones():
    model = nn.Sequential(nn.Conv2d(3, 2, 1, groups=1), nn.Flatten(), nn.Linear(8, 3), nn.ReLU())
    model.scale = nn.Parameter(torch.ones(5))
    model[0].idle = nn.Linear(4, 4)
    model[0].idle.weight = nn.Parameter(torch.ones(4, 4))
    model[0].again = nn.Linear(4, 4)
    model[0].again.weight = model[0].idle.weight
    model.train()
    rows = {row.name: row for row in layer_costs(model, (3, 2, 2))}
    assert model.training and not any(module._forward_hooks for module in model.modules())
    assert (rows[""].params, rows[""].flops, rows[""].activations) == (5, 0, 0)
    assert (rows["0.idle"].params, rows["0.again"].params) == (20, 4) and rows["0.idle"].shape == ()
    assert sum(row.params for row in rows.values()) == num_params(model)
    assert sum(row.flops for row in rows.values()) == num_flops(model, (3, 2, 2)) == 2 * (3 * 2 * 4 + 8 * 3)


def test_the_command_prints_one_cell_and_the_others_totals():
    plan = make_plan(load_spec("digits", []), needs_data=False)
    console = Console(width=120, file=io.StringIO())
    print_cost(plan, "", console)
    text = console.file.getvalue()
    assert text.startswith(plan.cells[0].name) and "stages.0.0.conv1" in text
    first = network(depth=8, width=8, image=(1, 8, 8))
    total = next(line.split() for line in text.splitlines() if line.startswith(" total "))
    assert total[1:3] == [f"{num_params(first):,}", f"{num_flops(first, (1, 8, 8)):,}"]
    assert all(text.count(f"\n {cell.name} ") == 1 for cell in plan.cells[1:])
    with pytest.raises(UserError, match=rf"unknown cell '{plan.cells[1].name}x' \(did you mean '{plan.cells[1].name}'"):
        print_cost(plan, f"{plan.cells[1].name}x", console)

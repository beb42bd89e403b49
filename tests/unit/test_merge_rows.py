"""The authors' rows at the skip against their notes, and clamped norms: constants in training and in evaluation."""

import re

import pytest
import torch
from operators import OF_SHAPES, PLAIN, authors_rows, shape
from torch import nn
from torch.nn import functional

from study.config import TrialConfig
from study.models import build_network, num_params
from study.models.build import initialise
from study.models.merges.normalised import FORMS
from study.models.merges.rows import ROWS
from study.registry import MERGES

AT_SKIP = {int(row["row"]): row for row in authors_rows() if int(row["row"]) <= 50}


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def notes(row):
    """(path, what) -> value that the notes clamp."""
    found = re.findall(r"(shift|scale) of BN\((x|F)\) = (\d)", AT_SKIP[row]["clamped_before_every_forward"])
    return {(path, what): float(value) for what, path, value in found}


def by_hand(row, merge, x, f):
    """The formula of the notes, read by Python itself, on norms in training mode."""

    def bn(values):
        path = "x" if values is x else "F"
        norm, clamped = (merge.bn_x if path == "x" else merge.bn_f), notes(row)
        mean, variance = values.mean((0, 2, 3), keepdim=True), values.var((0, 2, 3), unbiased=False, keepdim=True)
        scale = clamped.get((path, "scale"), norm.weight.view(1, -1, 1, 1))
        shift = clamped.get((path, "shift"), norm.bias.view(1, -1, 1, 1))
        return (values - mean) / (variance + 1e-5).sqrt() * scale + shift

    return eval(AT_SKIP[row]["merge"], {"BN": bn, "s": lambda values: 1 / (1 + torch.exp(-values)), "x": x, "F": f})


def test_all_rows_are_registered_by_their_number():
    assert set(ROWS) == set(AT_SKIP) == set(range(1, 51))
    assert all(MERGES[f"authors_{row}"].traits["row"] == row for row in ROWS)
    # a new row of an old shape is one line; the sample has each shape once
    assert {shape(ROWS[row]) for row in OF_SHAPES} == {shape(form) for form in ROWS.values()} and len(OF_SHAPES) == 10
    assert "authors_24" in PLAIN and "authors_18" not in PLAIN


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_what_the_notes_say(row):
    entry = MERGES[f"authors_{row}"]
    merge = entry.build(3).double()
    initialise(merge, 5)
    for index, parameter in enumerate(merge.parameters()):
        parameter.data.copy_(draw(*parameter.shape, seed=10 + index))
    x, f = 2 * draw(4, 3, 3, 2, seed=1), 2 * draw(4, 3, 3, 2, seed=2)
    torch.testing.assert_close(merge(x, f), by_hand(row, merge, x, f), rtol=1e-12, atol=1e-12)
    norms = AT_SKIP[row]["merge"].count("BN")
    assert (
        num_params(entry.build(8)) == 8 * (2 * norms - len(notes(row))) == eval(entry.traits["extra_params"], {"C": 8})
    )
    for (path, what), value in notes(row).items():
        assert f"{what} of BN({path}) clamped to {value:g}" in entry.formula
    assert entry.formula.count("clamped") == len(notes(row))


def test_operators_of_older_names_say_which_row_they_are():
    # named by hand from the notes; what is clamped there and learned here is no row
    rows = {"add_bn_f": 1, "mul_bn": 18, "sig1_bn": 2, "bn_sig": 12, "sig_sig_raw": 25, "sig_sig_bn_f": 30}
    for name in FORMS:
        said = f"(row {rows[name]} of the authors')" if name in rows else "(no row of the authors')"
        assert MERGES[name].formula.endswith(said), name
    assert MERGES["sig_bn_shift_x"].formula.startswith("sigmoid(BN(F)) * BN(x); shift of BN(x) learned from 1")


def network(merge):
    config = TrialConfig(dataset="fake", depth=8, width=4, seed=1, split_seed=0, merge=merge)
    return build_network(config, num_classes=3, mean=(0.5,), deviation=(0.25,))


def test_a_clamped_norm_stays_where_it_is_and_a_start_moves_away():
    """Weight decay, momentum and gradients reach learned values alone, in training; evaluation has the constants too."""
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    clamped, started = network("authors_21"), network("mul_bn_shift1")
    assert torch.equal(clamped(x), started(x))  # one network at the start
    for model in (clamped, started):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            functional.cross_entropy(model.train()(x), torch.arange(6) % 3).backward()
            optimizer.step()
    merge, moved = clamped.stages[0][0].merge, started.stages[0][0].merge
    assert [name for name, _ in merge.named_parameters()] == ["bn_f.weight", "bn_x.weight"]
    for norm, free in ((merge.bn_f, moved.bn_f), (merge.bn_x, moved.bn_x)):
        assert isinstance(norm, nn.BatchNorm2d) and norm.bias.eq(1).all() and not free.bias.eq(1).any()
    assert num_params(started) - num_params(clamped) == 2 * (4 + 8 + 16)
    # nothing that is loaded moves them: they are kept in no state
    assert not [name for name in clamped.state_dict() if name.endswith(("bn_f.bias", "bn_x.bias"))]
    a, b = 2 * draw(4, 4, 3, 2, seed=1), draw(4, 4, 3, 2, seed=2)
    merge.double().eval()
    expected = [
        (v - n.running_mean.view(1, -1, 1, 1)) / (n.running_var.view(1, -1, 1, 1) + 1e-5).sqrt()
        * n.weight.view(1, -1, 1, 1) + 1
        for v, n in ((a, merge.bn_x), (b, merge.bn_f))
    ]  # fmt: skip
    torch.testing.assert_close(merge(a, b), expected[0] * expected[1], rtol=1e-12, atol=1e-12)

"""Levels from outside with one fault each: ``plan`` refuses a study of them in a line that names cell (or key) and file."""

import pytest

from study.commands.claimed import checked_plan
from study.errors import UserError
from study.planning.outside import check_outside
from study.plugins import load_plugins

HEAD = """
from dataclasses import dataclass
import torch
from torch import nn
from study.data import Dataset, Split
from study.models.attention.forms import Form
from study.models.attention.gates import Gate
from study.models.merges import Merge
from study.registry import *
from study.smoothness import Estimate
told = dict(formula="", source="")
"""
MERGE = """
@MERGES.register("bad", **told)
class Bad(Merge):
    def forward(self, x, f):
        {}
"""
GATE = """
@ATTENTIONS.register("bad", **told)
class Bad(Gate):
    last = ("fc",)
    def __init__(self, channels):
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1, groups=channels)
    def forward(self, x):
        {}
"""
FORM = """
@ATTENTION_FORMS.register("bad", **told)
class Bad(nn.Module):
    def __init__(self, gate, channels):
        super().__init__()
        self.gate = gate
    def forward(self, x):
        {}
"""
NETWORK = """
@NETWORKS.register("bad", **told)
class Bad(nn.Module):
    def __init__(self, depth, width, num_classes, mean, deviation, parts):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(len(mean), width, 3), nn.Linear(width, num_classes)
    def forward(self, x):
        {}
"""
DATASET = """
labels = torch.arange(80) % 2
def part(num, images=None):
    return Split(images=torch.randint(0, 255, (num, 1, 8, 8), dtype=torch.uint8), labels=labels[:num])
given = dict(name="bad", pool=part(60), test=part(20), num_val=20, num_classes=2, mean=(0.5,), deviation=(0.3,))
@DATASETS.register("bad", **told)
def bad():
    {}
"""
AUGMENTATION = """
from study.data.augment import Augmentation, Step
def draw(num, size, generator):
    return torch.zeros((num, 1), dtype=torch.int64)
@AUGMENTATIONS.register("bad", **told)
def bad():
    return Augmentation((Step(1, draw, lambda images, drawn: {}),))
"""
STATISTIC = """
@dataclass(frozen=True, kw_only=True)
class Settings:
    num_samples: int = 4
@STATISTICS.register("bad", settings=Settings, names=lambda _: ["one"], **told)
def bad(settings, context):
    one = Estimate(1.0, 0.1, 4, True)
    {}
"""
OWN = """
class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, num_classes)
    def forward(self, x):
        {}
def net(num_classes, kernel=3):
    return Net(num_classes)
"""
# classes whose constructor, or base, is the fault
MADE = """
@{0}S.register("bad", **told)
class Bad({1}):
    last = ("fc",)
    def __init__({2}):
        super().__init__({3})
    def forward(self, *maps):
        return sum(maps)
"""
LOGITS = "return self.fc(self.conv(x).mean((2, 3)))"
OF = {
    "merge": {"factors": {"merge": ["add", "bad"]}},
    "gate": {"factors": {"attention": ["bad"], "attention_form": ["mul"]}},
    "form": {"factors": {"attention": ["se"], "attention_form": ["bad"]}},
    "network": {"fixed": {"network": "bad", "dataset": "fake", "depth": 8, "width": 4, "epochs": 2, "batch_size": 16}},
    "dataset": {"fixed": {"dataset": "bad", "depth": 8, "width": 4, "epochs": 2, "batch_size": 16}},
    "augmentation": {"fixed": {"augment": "bad", "dataset": "fake", "depth": 8, "width": 4, "epochs": 2, "batch_size": 16}},
    "statistic": {"measure": {"statistics": {"bad": {}}}},
    "own": {"factors": {"kernel": [3]}, "fixed": {"network": "bad_one:net", "dataset": "fake", "epochs": 2, "batch_size": 16}},
}  # fmt: skip
CELLS = {
    "merge": "cell fake/d8/bad, ",
    "gate": "cell fake/d8/add/bad.mul, ",
    "form": "cell fake/d8/add/se.bad, ",
    "network": "cell fake/d8/",
    "dataset": "cell bad/d8/",
    "augmentation": "cell fake/d8/",
    "statistic": "measure.statistics.bad, ",
    "own": "cell fake/net/",
}
FAULTS = [
    ("merge", MERGE.format("return x[:, :1] + f[:, :1]"),
     "merge 'bad': gives shape (4, 1, 5, 5) for (4, 8, 5, 5) in training"),
    ("merge", MERGE.format("return x.mul_(f)"), "merge 'bad': changes its input in place in training"),
    ("merge", MERGE.format("return x + f.relu_()"), "merge 'bad': changes its input in place in training"),
    ("merge", MERGE.format("s = (x + f).sigmoid(); y = s * 1; s += 1; return y"), "modified by an inplace operation"),
    ("merge", MERGE.format("return self.scale * f"), "merge 'bad': raises in training: AttributeError"),
    ("merge", MERGE.format("return (x, f)"), "merge 'bad': gives a tuple, not a tensor"),
    ("merge", MERGE.format("return x + f + torch.rand(())"), "merge 'bad': draws from the global random state in training"),
    ("merge", '@MERGES.register("bad", **told)\nclass Bad(Merge):\n    pass\n', "TypeError: Bad defines no merge"),
    ("merge", MADE.format("MERGE", "Merge", "self", 8), "Bad.__init__() takes 1 positional argument but 2 were given"),
    ("merge", MADE.format("MERGE", "Merge", "self, channels, rank", 8), "missing 1 required positional argument: 'rank'"),
    ("merge", MADE.format("MERGE", "nn.Module", "self, channels", ""), "'Bad' object has no attribute 'normalizes_branch'"),
    ("merge", MERGE.format("return x + f").replace("**told", 'extra_params="C", **told'), "is not its 0 parameters at C = 8"),
    ("merge", MERGE.format("return x + f").replace("**told", 'extra_params="D", **told'),
     "NameError: name 'D' is not defined"),
    ("gate", GATE.format("return self.fc(x)[:, :3].sigmoid()"),
     "attention 'bad' in form 'mul': raises in training: RuntimeError"),
    ("gate", GATE.format("return self.fc(x.zero_()).sigmoid()"), "attention 'bad' in form 'mul': changes its input in place"),
    ("gate", GATE.format("return self.fc(x).sigmoid()").replace('last = ("fc",)', ""), "Bad names no last layers"),
    ("gate", GATE.format("return self.fc(x).sigmoid()").replace('("fc",)', '("fd",)'),
     "Bad names last layers that it does not have: Bad has no attribute `fd`"),
    ("gate", MADE.format("ATTENTION", "Gate", "self", ""), "Bad.__init__() takes 1 positional argument but 2 were given"),
    ("gate", MADE.format("ATTENTION", "nn.Module", "self, channels", ""), "AttributeError: 'Bad' object has no attribute"),
    ("form", FORM.format("return self.gate(x)[:, :, :1]"), "attention 'se' in form 'bad': gives shape (4, 8, 1, 1) for"),
    ("form", FORM.format("return x.mul_(self.gate(x))"), "attention 'se' in form 'bad': changes its input in place"),
    ("form", FORM.format("return self.gates(x)"), "'Bad' object has no attribute 'gates'"),
    ("form", FORM.format("return x").replace("gate, channels", "gate"), "takes 2 positional arguments but 3 were given"),
    ("network", NETWORK.format(LOGITS + "[:, :2]"),
     "gives outputs of shape (2, 2) for images of shape (2, 1, 8, 8); fake has 4"),
    ("network", NETWORK.format("x.sub_(0.5); " + LOGITS), "a leaf Variable that requires grad is being used in an in-place"),
    ("network", NETWORK.format("s = self.conv(x).sigmoid(); y = self.fc((s * s).mean((2, 3))); s += 1; return y"),
     "modified by an inplace operation"),
    ("network", NETWORK.format("return self.head(x)"), "AttributeError: 'Bad' object has no attribute 'head'"),
    ("network", NETWORK.format(LOGITS).replace(", parts)", ")"), "unexpected keyword argument 'parts'"),
    ("own", OWN.format(LOGITS + "[:, :2]"), "gives outputs of shape (2, 2) for images of shape (2, 1, 8, 8); fake has 4"),
    ("own", OWN.format("s = self.conv(x).sigmoid(); y = self.fc((s * s).mean((2, 3))); s += 1; return y"),
     "inplace operation"),
    ("own", OWN.format(LOGITS).replace("Net(num_classes)", "Net()"), "missing 1 required positional argument: 'num_classes'"),
    ("dataset", DATASET.format("return Dataset(**given | {'labels': 3})"), "unexpected keyword argument 'labels'"),
    ("dataset", DATASET.format("given.pop('mean'); return Dataset(**given)"),
     "missing 1 required keyword-only argument: 'mean'"),
    ("dataset", DATASET.format("return None"), "dataset bad: gives a NoneType, not a study.data.Dataset"),
    ("dataset", DATASET.format("return Dataset(**given | {'num_classes': 1})"),
     "its pool part has the label 1; expected 0 to 0"),
    ("dataset", DATASET.format("return Dataset(**given | {'pool': labels})"),
     "AttributeError: 'Tensor' object has no attribute"),
    ("dataset", DATASET.format("return Dataset(**given | {'mean': (0.5,) * 3})"), "3 and 1 values for images of 1 channels"),
    ("augmentation", AUGMENTATION.format("images[:, :, 1:]"), "of shape (4, 3, 7, 8) for torch.uint8 of shape (4, 3, 8, 8)"),
    ("augmentation", AUGMENTATION.format("images / 2"), "gives torch.float32 of shape (4, 3, 8, 8) for torch.uint8"),
    ("augmentation", AUGMENTATION.format("images.zero_()"), "augmentation 'bad': changes its input in place"),
    ("augmentation", AUGMENTATION.format("images[torch.randperm(4)]"), "gives other images the second time"),
    ("statistic", STATISTIC.format("return one"), "statistic 'bad': gives a Estimate, not a dict of"),
    ("statistic", STATISTIC.format("return {'one': 1.0}"),
     "statistic 'bad': gives a dict, not a dict of study.smoothness.Estimate"),
    ("statistic", STATISTIC.format("return {'two': one}"), "gives no estimate 'one', which it lists"),
    ("statistic", STATISTIC.format("return {'one': one, 'two': one}"),
     "gives an estimate 'two', which it does not list (known: one)"),
    ("statistic", STATISTIC.format("return {'one': Estimate(torch.rand(()).item(), 0.1, 4, True)}"),
     "gives other values the second"),
    ("statistic", STATISTIC.format("context.split('test')[0].zero_(); return {'one': one}"), "changes images in place"),
    ("statistic", STATISTIC.format("return {'one': context.gradients}"),
     "'MeasureContext' object has no attribute 'gradients'"),
    ("statistic", STATISTIC.format("return {'one': one}").replace("int = 4", "int"),
     "missing 1 required keyword-only argument"),
    ("statistic", STATISTIC.format("return {'one': one}").replace('lambda _: ["one"]', "None"),
     "'NoneType' object is not callable"),
    ("import", STATISTIC.format("return {'one': one}").replace("settings=Settings, ", ""),
     "module 'bad_one' raises TypeError: statistic 'bad' is registered without settings="),
]  # fmt: skip


@pytest.fixture
def study_of(spec_of, tmp_path, monkeypatch):
    """A study of the levels in ``code``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FMM_STUDY_PLUGINS", "bad_one")

    def make(kind, code):
        (tmp_path / "bad_one.py").write_text(HEAD + code)
        changes = {"nuisance": {"lr": {"low": 0.1, "high": 1.0, "default": 0.5}}, "blocks": 1, **OF.get(kind, {})}
        return spec_of(plugins=["bad_one"], **changes)

    return make


@pytest.mark.parametrize(("kind", "code", "told"), FAULTS, ids=[f"{kind}: {told[:60]}" for kind, _, told in FAULTS])
def test_a_fault_is_one_line_with_cell_and_file(study_of, tmp_path, kind, code, told):
    with pytest.raises(UserError) as caught:
        checked_plan(study_of(kind, code))
    message = str(caught.value)
    assert told in message and "\n" not in message and len(message) < 600, message
    if kind != "import":
        assert message.startswith(CELLS[kind]) and f"{tmp_path}/bad_one.py: " in message, message


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("merge", MERGE.format("return x + f.relu()").replace("**told", 'extra_params="0", **told')),
        ("gate", GATE.format("return self.fc(x).sigmoid()")),
        ("form", FORM.format("return x * self.gate(x)")),
        ("network", NETWORK.format(LOGITS)),
        ("dataset", DATASET.format("return Dataset(**given)")),
        ("augmentation", AUGMENTATION.format("images.flip(3)")),
        ("statistic", STATISTIC.format("return {'one': one}")),
        (
            "statistic",
            STATISTIC.format("return {'one': one, 'layer_3': one}").replace('["one"]', '["one", "layer_{number}"]'),
        ),
        ("statistic", "from study.errors import UserError\n" + STATISTIC.format("raise UserError('not this network')")),
        ("own", OWN.format("x.sub_(0.5); " + LOGITS)),  # it is handed images normalised, of its own
    ],
)
def test_what_keeps_the_contract_is_planned(study_of, kind, code):
    assert checked_plan(study_of(kind, code)).cells


def test_levels_of_ours_are_left_to_our_own_tests(spec_of, monkeypatch):
    load_plugins()
    for name in ("check_merge", "check_attention", "check_augmentation", "check_statistic"):
        monkeypatch.setattr(f"study.planning.outside.{name}", lambda *_: 1 / 0)
    plan = checked_plan(spec_of(blocks=1, measure={"statistics": {"path": {}}}))
    check_outside(plan.spec, {cell.name: plan.default_config(cell) for cell in plan.cells})

"""Operators of the form of ``joined.py`` that are no row of the authors', or were named before the rows were.

Shifts that start at 1 are learned from there: the authors clamp theirs (``rows.py``), which is another network. Each formula
says which row the operator is, or that it is none.

Source: https://arxiv.org/abs/2106.15067
"""

import functools

from study.models.merges.base import FMMNET, RESNET
from study.models.merges.joined import BN, RAW, Form, Joined, bn, sigmoid
from study.models.merges.rows import ROWS
from study.registry import MERGES

FORMS = {
    # additive twin of mul_bn
    "add_bn": Form(x=BN, f=BN, add=True),
    # where a block normalises its branch it is ``add``
    "add_bn_f": Form(x=RAW, f=BN, add=True),
    "mul_bn": Form(x=BN, f=BN),
    # starts near 1 + x' + F' + x' F' rather than at x' F'
    "mul_bn_shift1": Form(x=bn(start=1), f=bn(start=1)),
    "sig_bn": Form(x=BN, f=sigmoid(BN)),
    "sig_bn_shift_x": Form(x=bn(start=1), f=sigmoid(BN)),
    "sig1_bn": Form(x=BN, f=sigmoid(RAW, 1)),
    "bn_sig": Form(x=sigmoid(BN, 0.5), f=BN),
    "bn_sig_shift_f": Form(x=sigmoid(BN, 0.5), f=bn(start=1)),
    "sig_sig": Form(x=sigmoid(BN, 0.5), f=sigmoid(BN)),
    "sig_sig_raw": Form(x=sigmoid(RAW), f=sigmoid(RAW)),
    "sig_sig_bn_f": Form(x=sigmoid(RAW), f=sigmoid(BN)),
}

for _name, _form in FORMS.items():
    _rows = [row for row, form in ROWS.items() if form == _form]
    _which = f"row {_rows[0]} of the authors'" if _rows else "no row of the authors'"
    MERGES.register(
        _name,
        formula=f"{_form.formula} ({_which})",
        source=RESNET if _form.add else FMMNET,
        extra_params=_form.extra_params,
    )(functools.partial(Joined, form=_form))

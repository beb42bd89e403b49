"""``authors_<row>``: the operators of the authors' public notes at the skip, each a row of a table of forms.

The numbers are those of the rows in their order there; what each row reached is in ``search_spaces/caltech101_authors.yaml``.
Where their code sets a norm's shift or scale, it does so before every forward pass, in training and in evaluation: clamped.

Source: https://github.com/xyegithub/Featrue-map-multiplication
"""

import functools

from study.models.merges.joined import BN, RAW, Form, Joined, bn, sigmoid
from study.registry import MERGES

SOURCE = "https://github.com/xyegithub/Featrue-map-multiplication"
_0, _1 = bn(shift=0), bn(shift=1)
_0_SCALE, _1_SCALE = bn(shift=0, scale=1), bn(shift=1, scale=1)
_SCALE = bn(scale=1)

# row: x, F
_PRODUCTS = {
    # the branch gates
    2: (BN, sigmoid(RAW, 1)),
    3: (BN, sigmoid(BN, 1)),
    4: (BN, sigmoid(BN, 0.5)),
    5: (_1, sigmoid(BN, 1)),
    6: (_1, sigmoid(BN, 0.5)),
    7: (_1, sigmoid(_0, 0.5)),
    8: (_1, sigmoid(_0)),
    9: (_1, sigmoid(_0_SCALE)),
    # the shortcut gates
    10: (sigmoid(RAW, 1), BN),
    11: (sigmoid(BN, 1), BN),
    12: (sigmoid(BN, 0.5), BN),
    13: (sigmoid(BN, 1), _1),
    14: (sigmoid(BN, 0.5), _1),
    15: (sigmoid(_0, 0.5), _1),
    16: (sigmoid(_0), _1),
    17: (sigmoid(_0_SCALE), _1),
    # two norms
    18: (BN, BN),
    19: (_1, BN),
    20: (BN, _1),
    21: (_1, _1),
    22: (_1, _1_SCALE),
    23: (_1_SCALE, _1),
    24: (_1_SCALE, _1_SCALE),
    # two sigmoids
    25: (sigmoid(RAW), sigmoid(RAW)),
    26: (sigmoid(RAW), sigmoid(RAW, 0.5)),
    27: (sigmoid(RAW, 0.5), sigmoid(RAW)),
    28: (sigmoid(RAW), sigmoid(RAW, 1)),
    29: (sigmoid(RAW, 1), sigmoid(RAW)),
    30: (sigmoid(RAW), sigmoid(BN)),
    31: (sigmoid(BN), sigmoid(RAW)),
    32: (sigmoid(_0), sigmoid(RAW)),
    33: (sigmoid(RAW), sigmoid(_0)),
    34: (sigmoid(RAW), sigmoid(_0, 0.5)),
    35: (sigmoid(RAW), sigmoid(_0, 1)),
    36: (sigmoid(RAW), sigmoid(_SCALE)),
    37: (sigmoid(_0, 0.5), sigmoid(RAW)),
    38: (sigmoid(BN), sigmoid(BN)),
    39: (sigmoid(BN), sigmoid(_0)),
    40: (sigmoid(BN), sigmoid(_0, 1)),
    41: (sigmoid(BN), sigmoid(_0, 0.5)),
    42: (sigmoid(_0), sigmoid(_0)),
    43: (sigmoid(_0_SCALE), sigmoid(_0)),
    44: (sigmoid(_0), sigmoid(_0_SCALE)),
    45: (sigmoid(_0), sigmoid(_0, 0.5)),
    46: (sigmoid(_0, 0.5), sigmoid(_0)),
    47: (sigmoid(_0, 1), sigmoid(_0)),
    48: (sigmoid(_0, 0.5), sigmoid(_0, 0.5)),
    49: (sigmoid(BN), sigmoid(_SCALE)),
    50: (sigmoid(_SCALE), sigmoid(BN)),
}

ROWS = {1: Form(x=RAW, f=BN, add=True), **{row: Form(x=x, f=f) for row, (x, f) in _PRODUCTS.items()}}


def register_rows() -> None:
    """Register ``authors_<row>`` for each row. Trait ``row``: its number."""
    for row, form in ROWS.items():
        registered = MERGES.register(
            f"authors_{row}", formula=form.formula, source=SOURCE, extra_params=form.extra_params, row=row
        )
        registered(functools.partial(Joined, form=form))

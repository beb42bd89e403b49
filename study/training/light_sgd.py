"""torch's SGD without its decorators for compiled code.

They import the compiler wherever an optimiser is made, which costs each worker a second. They are not needed: what is compiled
here (``study.training.lane``) is a network and its loss, never an optimiser.
"""

import inspect

import torch


class LightSGD(torch.optim.SGD):
    """``torch.optim.SGD``, step for step; not for use inside a compiled graph."""

    add_param_group = inspect.unwrap(torch.optim.SGD.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.SGD.zero_grad)
    state_dict = inspect.unwrap(torch.optim.SGD.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.SGD.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))

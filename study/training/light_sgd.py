"""https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html: torch's own SGD, without its guards of compiled code.

They import the compiler wherever an optimiser is made, which takes every worker a second, and none of them is needed: what is
compiled here (``study.training.lane``) is a network and its loss, never an optimiser.
"""

import inspect

import torch


class LightSGD(torch.optim.SGD):
    """``torch.optim.SGD``, step for step; in a graph that is compiled it has no place."""

    add_param_group = inspect.unwrap(torch.optim.SGD.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.SGD.zero_grad)
    state_dict = inspect.unwrap(torch.optim.SGD.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.SGD.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))

"""Operators of torch that a piece of work calls, and the FLOPs of those that multiply matrices."""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class OperationCounter(TorchDispatchMode):
    """Counts what reaches torch's operators inside a ``with``; a multiply-add is two FLOPs.

    With the formulas of torch's ``FlopCounterMode``, which itself follows modules and so no gradients in the input.
    """

    flops: int
    calls: int

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # imported here: it imports triton, and training counts nothing before its end
        from torch.utils.flop_counter import flop_registry

        self.formulas = flop_registry
        self.flops = self.calls = 0


def _dispatch(counter: OperationCounter, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    kwargs = kwargs or {}
    output = operation(*args, **kwargs)
    counter.calls += 1
    if formula := counter.formulas.get(operation.overloadpacket):
        counter.flops += formula(*args, **kwargs, out_val=output)
    return output


# not in the class: torch wraps a mode's own method, and the wrapper imports the compiler, a second in each worker
OperationCounter.__torch_dispatch__ = _dispatch  # type: ignore[method-assign, assignment]

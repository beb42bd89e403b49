"""https://arxiv.org/abs/1802.08760 (Novak et al. 2018, section 3.2): which ReLUs of a network are on, whoever calls them.

Signs are read where tensors are computed, below modules and functions, so that ``nn.ReLU``, ``functional.relu``,
``x.relu()`` and their in-place forms are seen alike, and a module that is called twice counts twice.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from study.errors import UserError

# each is a kink at 0 of its first argument, by the name of what computes it
_KINKS = {f"aten::{name}" for name in ("relu", "relu_", "leaky_relu", "leaky_relu_", "_prelu_kernel")}
_CLAMPS = {"aten::hardtanh", "aten::hardtanh_"}


class ReluSigns(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is active, ``receive`` is given (N, U) booleans for every ReLU of a forward pass of ``num_images`` images.

    Counted are ReLU, leaky and parametric ReLU (above 0), and ReLU6 (above 0, and above 6). Raises ``UserError`` for a ReLU
    whose first dimension is not the images', for its units cannot be told apart by image.
    """

    def __init__(self, num_images: int, receive: Callable[[Tensor], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._num_images, self._receive = num_images, receive

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Read the signs, then compute: an in-place form overwrites what is read."""
        if func.name() in _KINKS:
            self._read(args[0], 0.0)
        elif func.name() in _CLAMPS and len(args) > 2 and args[1] == 0:
            self._read(args[0], 0.0)
            self._read(args[0], float(args[2]))
        return func(*args, **(kwargs or {}))

    def _read(self, before: Tensor, kink: float) -> None:
        if before.dim() == 0 or before.shape[0] % self._num_images:
            raise UserError(
                f"a ReLU sees a tensor of shape {tuple(before.shape)}: its first dimension must be the {self._num_images} "
                "images', or its sign cannot be told by image"
            )
        self._receive((before.detach() > kink).reshape(self._num_images, -1))

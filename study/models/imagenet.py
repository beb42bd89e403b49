"""https://arxiv.org/abs/1512.03385, table 1: ResNet-18, 34, 50 and 101 for images of about 224x224 pixels.

A 7x7 stem with stride 2, max pooling, four stages (all but the first halve the resolution), global average pooling, one
linear layer: torchvision's networks, the stride of a bottleneck in its 3x3 convolution. torchvision normalises the images
outside; here that is the first layer, as in all networks. ``torchvision_weights.py`` carries weights over.
"""

from torch import Tensor, nn
from torch.nn import functional

from study.errors import UserError
from study.models.blocks import BasicBlock
from study.models.bottleneck import EXPANSION, Bottleneck
from study.models.resnet import ResNet
from study.models.stages import Layout, Stage
from study.registry import NETWORKS

# depth: block, expansion, blocks a stage
_TABLE: dict[int, tuple[type[nn.Module], int, tuple[int, ...]]] = {
    18: (BasicBlock, 1, (2, 2, 2, 2)),
    34: (BasicBlock, 1, (3, 4, 6, 3)),
    50: (Bottleneck, EXPANSION, (3, 4, 6, 3)),
    101: (Bottleneck, EXPANSION, (3, 4, 23, 3)),
}


@NETWORKS.register(
    "imagenet_resnet",
    formula="7x7 stem and max pooling, 4 stages of basic (depth 18, 34) or bottleneck blocks (50, 101)",
    source="https://arxiv.org/abs/1512.03385",
    smallest_depth=18,
)
class ImageNetResNet(ResNet):
    """``width``, 2, 4 and 8 times ``width`` hidden channels. The published width is 64; the settings' default, 16, is not.

    Depth 18, 34, 50 or 101. With ``merge`` add, without attention, at width 64: torchvision's ``resnet18`` and so on.
    """

    stem_kernel = 7
    stem_stride = 2

    @staticmethod
    def layout(depth: int, width: int) -> Layout:
        """Four stages."""
        if depth not in _TABLE:
            raise UserError(f"depth = {depth!r}: an imagenet_resnet has depth 18, 34, 50 or 101")
        block, expansion, counts = _TABLE[depth]
        stages = [
            Stage(
                num_blocks=count,
                channels=expansion * width * 2**index,
                hidden=width * 2**index,
                stride=2 if index else 1,
            )
            for index, count in enumerate(counts)
        ]
        return Layout(block=block, stem=width, stages=tuple(stages))

    def stem(self, x: Tensor) -> Tensor:
        """What the first stage takes: a quarter of the resolution."""
        return functional.max_pool2d(super().stem(x), 3, stride=2, padding=1)

"""Build ResNet-8, small enough to train on a few CPU cores in minutes.

The layout is MLPerf Tiny's (https://arxiv.org/abs/2106.07597; ``resnet_v1_eembc`` with 16 filters
in https://github.com/mlcommons/tiny) with three differences: the first convolution has stride 2,
for a quarter of the arithmetic; SiLU replaces ReLU, so that the theory's Hessians exist;
convolutions have no biases. Weights begin as PyTorch's layers draw them, which learned faster than
He et al.'s normal weights (docs/cifar10.md, "Pilot runs").
"""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from trainer.data.specs import DatasetSpec
from trainer.models.cifar_resnet import Block, Norm


class ProjectedBlock(Block):
    """Apply two 3×3 convolutions; the shortcut is a 1×1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__(inputs, outputs, stride, norm, F.silu)
        same = stride == 1 and inputs == outputs
        self.projection = (
            nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        )

    def shortcut(self, x: Tensor) -> Tensor:
        projected: Tensor = self.projection(x)
        return projected


class ResNet8(nn.Module):
    """Stack one block each of 16, 32 and 64 channels, with BatchNorm or ``n_groups`` GroupNorm."""

    def __init__(self, data: DatasetSpec, n_groups: int | None = None) -> None:
        super().__init__()
        norm: Norm = nn.BatchNorm2d if n_groups is None else partial(nn.GroupNorm, n_groups)
        self.conv1 = nn.Conv2d(data.channels, 16, 3, stride=2, padding=1, bias=False)
        self.bn1 = norm(16)
        self.layer1 = ProjectedBlock(16, 16, 1, norm)
        self.layer2 = ProjectedBlock(16, 32, 2, norm)
        self.layer3 = ProjectedBlock(32, 64, 2, norm)
        self.linear = nn.Linear(64, data.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean((-2, -1)))
        return logits

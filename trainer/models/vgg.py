"""Build CIFAR's VGG without normalisation, with SiLU and average pooling: smooth for label noise.

Layout of Simonyan & Zisserman 2015 (https://arxiv.org/abs/1409.1556, table 1), one linear layer;
names of parameters are those of the authors' checkpoints.
"""

from torch import Tensor, nn

from trainer.data.specs import DatasetSpec

# Convolutions per stage; each stage ends with a 2×2 pooling. Five of them take 32 pixels to one.
CONVOLUTIONS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
CHANNELS = (64, 128, 256, 512, 512)


class Vgg(nn.Module):
    """Stack ``features`` and one linear ``classifier``; He initialisation, zero biases."""

    def __init__(self, data: DatasetSpec, depth: int) -> None:
        super().__init__()
        channels = data.channels
        layers: list[nn.Module] = []
        for count, width in zip(CONVOLUTIONS[depth], CHANNELS, strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.SiLU()]
                channels = width
            layers.append(nn.AvgPool2d(2))
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.classifier = nn.Linear(channels, data.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x))
        return logits

"""Build small networks for the laptop scale."""

from torch import nn

from trainer.data.specs import DatasetSpec


def mlp(data: DatasetSpec, width: int = 128) -> nn.Module:
    """Build pixels–128–128–classes with SiLU: smooth, so that the theory's Hessians exist."""
    pixels = data.channels * data.image_size**2
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(pixels, width),
        nn.SiLU(),
        nn.Linear(width, width),
        nn.SiLU(),
        nn.Linear(width, data.num_classes),
    )


def cnn(data: DatasetSpec, width: int = 16, batchnorm: bool = False) -> nn.Module:
    """Build two pooled 3×3 convolutions, with BatchNorm or biases, and one linear layer."""

    def stage(inputs: int, outputs: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=not batchnorm)
        norm = [nn.BatchNorm2d(outputs)] if batchnorm else []
        return [convolution, *norm, nn.SiLU(), nn.AvgPool2d(2)]

    pixels = (data.image_size // 4) ** 2
    return nn.Sequential(
        *stage(data.channels, width),
        *stage(width, 2 * width),
        nn.Flatten(),
        nn.Linear(2 * width * pixels, data.num_classes),
    )

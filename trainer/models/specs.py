"""Name the architectures of this package, and what settings must know of each beforehand."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

SMALLEST_GROUPNORM = 16  # channels of the CIFAR ResNets' first stage; the others are multiples


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Describe an architecture without building it.

    ``factory`` is ``module:function`` below this package, called with the data set's
    ``DatasetSpec``, ``arguments`` and, where ``groupnorm``, the number of groups. ``dataset`` is
    the one that it is made for. ``image_size`` and ``smallest_image`` are in pixels; None: any
    from the smallest on (torchvision's are tried).
    ``stochastic`` models draw random numbers in training (dropout, stochastic depth).
    """

    factory: str
    dataset: str
    arguments: dict[str, Any] = field(default_factory=dict)
    batchnorm: bool = False
    groupnorm: bool = False
    stochastic: bool = False
    image_size: int | None = None
    smallest_image: int = 1


_small = partial(ModelSpec, dataset="digits")
_cnn = partial(_small, factory="small:cnn", smallest_image=4)  # it halves images twice
_of_cifar = partial(ModelSpec, dataset="cifar10", image_size=32)


def _cifar(factory: str, depth: int, **options: Any) -> ModelSpec:
    return _of_cifar(factory=factory, arguments={"depth": depth}, **options)


_resnet = partial(_cifar, "cifar_resnet:CifarResNet")
RESNET_DEPTHS = (20, 32, 44, 56, 110, 1202)
MODELS = {
    "mlp": _small(factory="small:mlp"),
    "cnn": _cnn(),
    "cnn_bn": _cnn(arguments={"batchnorm": True}, batchnorm=True),
    "resnet8": _of_cifar(factory="resnet8:ResNet8", batchnorm=True),
    "resnet8_gn": _of_cifar(factory="resnet8:ResNet8", groupnorm=True),
    **{f"resnet{depth}": _resnet(depth, batchnorm=True) for depth in RESNET_DEPTHS},
    **{f"resnet{depth}_gn": _resnet(depth, groupnorm=True) for depth in RESNET_DEPTHS},
    **{f"vgg{depth}": _cifar("vgg:Vgg", depth) for depth in (11, 13, 16, 19)},
}

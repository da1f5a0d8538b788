"""The architectures by name. Nothing here imports torch until a model is built.

Names that are not ours are torchvision's; only they import torchvision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from trainer.data.specs import DatasetSpec

SMALLEST_GROUPNORM = 16  # channels of the CIFAR ResNets' first stage; the others are multiples


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Where an architecture is built, and what settings must know of it beforehand.

    ``factory`` is ``module:function`` below this package, called with the data set's
    ``DatasetSpec``, ``arguments`` and, where ``groupnorm``, the number of groups. ``dataset`` is
    the one that it is made for. ``image_size`` is in pixels; None: it must be tried.
    ``stochastic`` models draw random numbers in training (dropout, stochastic depth).
    """

    factory: str
    dataset: str
    arguments: dict[str, Any] = field(default_factory=dict)
    batchnorm: bool = False
    groupnorm: bool = False
    stochastic: bool = False
    image_size: int | None = None


def _small(factory: str, **options: Any) -> ModelSpec:
    return ModelSpec(factory=factory, dataset="digits", **options)


def _cifar(factory: str, depth: int, **options: Any) -> ModelSpec:
    return ModelSpec(
        factory=factory,
        dataset="cifar10",
        arguments={"depth": depth},
        image_size=32,
        **options,
    )


RESNET_DEPTHS = (20, 32, 44, 56, 110, 1202)
MODELS = {
    "mlp": _small("small:mlp"),
    "cnn": _small("small:cnn"),
    "cnn_bn": _small("small:cnn", arguments={"batchnorm": True}, batchnorm=True),
    **{f"resnet{d}": _cifar("cifar_resnet:resnet", d, batchnorm=True) for d in RESNET_DEPTHS},
    **{f"resnet{d}_gn": _cifar("cifar_resnet:resnet_gn", d, groupnorm=True) for d in RESNET_DEPTHS},
    **{f"vgg{d}": _cifar("vgg:vgg", d) for d in (11, 13, 16, 19)},
}


def model_spec(name: str) -> ModelSpec:
    """What is known of the model ``name``, ours or torchvision's."""
    if name in MODELS:
        return MODELS[name]
    from trainer.models.from_torchvision import spec

    return spec(name)


def known_model(name: str) -> str:
    """``name``, if it is a model. Raises ValueError for any other, with those there are."""
    if name in MODELS:
        return name
    from trainer.models.from_torchvision import names

    if name not in names():
        raise ValueError(
            f"unknown model {name!r}; choose one of {', '.join(MODELS)}, or a classification model "
            "of torchvision: resnet18, resnet50, …"
        )
    return name


def misfit(name: str, data: DatasetSpec) -> str | None:
    """Why the model ``name`` cannot take the images of ``data``, or None."""
    if name not in MODELS:
        from trainer.models.from_torchvision import misfit_of

        return misfit_of(name, data.channels, data.image_size)
    needed = MODELS[name].image_size
    return f"made for images of {needed} pixels" if needed not in (None, data.image_size) else None


def build(name: str, data: DatasetSpec, seed: int, n_groups: int = 8) -> nn.Module:
    """The model ``name`` for ``data``, initialised by ``seed`` alone (float32, on the CPU)."""
    import torch

    spec = model_spec(name)
    module, function = spec.factory.split(":")
    make: Callable[..., nn.Module] = getattr(import_module(f"{__name__}.{module}"), function)
    groups = {"n_groups": n_groups} if spec.groupnorm else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(data, **spec.arguments, **groups)

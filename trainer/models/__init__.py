"""The architectures by name. Nothing here imports torch until a model is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

    from trainer.data.specs import DatasetSpec

SMALLEST_GROUPNORM = 16  # channels of the CIFAR ResNets' first stage; the others are multiples


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Where an architecture is built, and what settings must know of it beforehand.

    ``factory`` is ``module:function`` below this package, called with the data set's
    ``DatasetSpec``, ``arguments`` and, where ``groupnorm``, the number of groups. ``image_size`` is
    in pixels; None takes any. ``execution`` is the faster way to run several clients in one
    process: one pass for small networks, where the cost of a call outweighs its arithmetic, else
    one client after the other.
    """

    factory: str
    execution: Literal["vectorized", "serial"]
    arguments: dict[str, Any] = field(default_factory=dict)
    batchnorm: bool = False
    groupnorm: bool = False
    image_size: int | None = None


def _cifar(factory: str, depth: int, **options: bool) -> ModelSpec:
    return ModelSpec(
        factory=factory, execution="serial", arguments={"depth": depth}, image_size=32, **options
    )


RESNET_DEPTHS = (20, 32, 44, 56, 110, 1202)
MODELS = {
    "mlp": ModelSpec(factory="small:mlp", execution="vectorized"),
    "cnn": ModelSpec(factory="small:cnn", execution="vectorized"),
    "cnn_bn": ModelSpec(
        factory="small:cnn",
        execution="vectorized",
        arguments={"batchnorm": True},
        batchnorm=True,
    ),
    **{f"resnet{d}": _cifar("cifar_resnet:resnet", d, batchnorm=True) for d in RESNET_DEPTHS},
    **{f"resnet{d}_gn": _cifar("cifar_resnet:resnet_gn", d, groupnorm=True) for d in RESNET_DEPTHS},
    **{f"vgg{d}": _cifar("vgg:vgg", d) for d in (11, 13, 16, 19)},
}


def build(name: str, data: DatasetSpec, seed: int, n_groups: int = 8) -> nn.Module:
    """The model ``name`` for ``data``, initialised by ``seed`` alone (float32, on the CPU)."""
    import torch

    spec = MODELS[name]
    module, function = spec.factory.split(":")
    make: Callable[..., nn.Module] = getattr(import_module(f"{__name__}.{module}"), function)
    groups = {"n_groups": n_groups} if spec.groupnorm else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(data, **spec.arguments, **groups)

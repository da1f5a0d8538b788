"""The architectures by name. Nothing here imports torch until a model is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

    from trainer.data.specs import DatasetSpec


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Where an architecture is built, and what settings must know of it beforehand.

    ``factory`` is ``module:function`` below this package, called with the data set's
    ``DatasetSpec`` and ``arguments``. ``image_size`` is in pixels; None takes any. ``execution`` is
    the faster way to run several clients in one process: one pass for small networks, where the
    cost of a call outweighs its arithmetic, else one client after the other.
    """

    factory: str
    execution: Literal["vectorized", "serial"]
    arguments: dict[str, Any] = field(default_factory=dict)
    batchnorm: bool = False
    image_size: int | None = None


MODELS = {
    "mlp": ModelSpec(factory="small:mlp", execution="vectorized"),
    "cnn": ModelSpec(factory="small:cnn", execution="vectorized"),
    "cnn_bn": ModelSpec(
        factory="small:cnn",
        execution="vectorized",
        arguments={"batchnorm": True},
        batchnorm=True,
    ),
    **{
        f"resnet{depth}": ModelSpec(
            factory="cifar_resnet:resnet",
            execution="serial",
            arguments={"depth": depth},
            batchnorm=True,
            image_size=32,
        )
        for depth in (20, 32, 44, 56, 110, 1202)
    },
}


def build(name: str, data: DatasetSpec, seed: int) -> nn.Module:
    """The model ``name`` for ``data``, initialised by ``seed`` alone (float32, on the CPU)."""
    import torch

    spec = MODELS[name]
    module, function = spec.factory.split(":")
    make: Callable[..., nn.Module] = getattr(import_module(f"{__name__}.{module}"), function)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(data, **spec.arguments)

"""Look up and build models by name: those of ``specs.MODELS``, and torchvision's.

Imports torch only to build a model, and torchvision only for a name of torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from trainer.models.specs import MODELS, ModelSpec

if TYPE_CHECKING:
    from torch import nn

    from trainer.data.specs import DatasetSpec


def model_spec(name: str) -> ModelSpec:
    """Return the spec of the model ``name``, ours or torchvision's."""
    if name in MODELS:
        return MODELS[name]
    from trainer.models.from_torchvision import spec

    return spec(name)


def require_model(name: str) -> str:
    """Return ``name`` if it is a model's; else raise a ValueError that lists the choices."""
    if name in MODELS:
        return name
    from trainer.models.from_torchvision import names

    if name not in names():
        raise ValueError(
            f"unknown model {name!r}; choose one of {', '.join(MODELS)}, or a classification model "
            "of torchvision: resnet18, resnet50, …"
        )
    return name


def incompatibility(name: str, data: DatasetSpec, samples: int = 2) -> str | None:
    """Explain why ``name`` cannot train on ``samples`` images of ``data``; None if it can."""
    if name not in MODELS:
        from trainer.models import from_torchvision

        return from_torchvision.incompatibility(name, data.channels, data.image_size, samples)
    needed, smallest = MODELS[name].image_size, MODELS[name].smallest_image
    if needed not in (None, data.image_size):
        return f"made for images of {needed} pixels"
    return f"made for images of {smallest} pixels or more" if data.image_size < smallest else None


def build(name: str, data: DatasetSpec, seed: int, n_groups: int = 8) -> nn.Module:
    """Build the model ``name`` for ``data``, initialised by ``seed`` alone; float32, CPU."""
    import torch

    spec = model_spec(name)
    make: Callable[..., nn.Module] = resolve_name(f"{__package__}.{spec.factory}")
    groups = {"n_groups": n_groups} if spec.groupnorm else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(data, **spec.arguments, **groups)

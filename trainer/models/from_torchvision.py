"""torchvision's classification models by their names there (the paper's ResNet-50 is one).

Where a name is also one of the CIFAR models (``vgg11``, …), torchvision's is ``torchvision.vgg11``.
What settings must know of a model is found by building it on the meta device, without memory.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import StochasticDepth

from trainer.data.specs import DatasetSpec
from trainer.models.specs import MODELS, ModelSpec

PREFIX = "torchvision."
# Of the two models with auxiliary classifiers, which the training loss does not know.
WITHOUT_AUXILIARY = {"aux_logits": False, "init_weights": True}
OPTIONS = {"googlenet": WITHOUT_AUXILIARY, "inception_v3": WITHOUT_AUXILIARY}


def names() -> list[str]:
    """All classification models, by the names that they have here."""
    return [PREFIX + n if n in MODELS else n for n in models.list_models(module=models)]


def torchvision_model(data: DatasetSpec, name: str) -> nn.Module:
    """torchvision's model ``name`` with its own initialisation and a score for each class."""
    return _make(name, data.num_classes)


@cache
def spec(name: str) -> ModelSpec:
    """Found out by building the model once."""
    modules = list(_outline(name).modules())
    return ModelSpec(
        factory="from_torchvision:torchvision_model",
        dataset="imagenet",
        arguments={"name": name},
        batchnorm=any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in modules),
        stochastic=any(_draws(m) for m in modules),
    )


@cache
def incompatibility(name: str, channels: int, image_size: int) -> str | None:
    """The reason why ``name`` cannot take such images, or None; tried on two without content."""
    model = _outline(name)
    device = next(model.parameters()).device
    try:
        scores = model(torch.empty(2, channels, image_size, image_size, device=device))
    except (RuntimeError, AssertionError, ValueError) as error:
        return str(error).splitlines()[0]
    assert isinstance(scores, Tensor), f"{name} returns {type(scores).__name__}"
    return None


@cache
def _outline(name: str) -> nn.Module:
    try:
        with torch.device("meta"):
            return _make(name, classes=2)
    except NotImplementedError:  # RegNets compute their widths with tensors
        with torch.random.fork_rng(devices=[]):
            return _make(name, classes=2)


def _make(name: str, classes: int) -> nn.Module:
    name = name.removeprefix(PREFIX)
    model: nn.Module = models.get_model(
        name, weights=None, num_classes=classes, **OPTIONS.get(name, {})
    )
    return model


def _draws(module: nn.Module) -> bool:
    """Whether ``module`` draws random numbers in training."""
    dropout = isinstance(module, nn.modules.dropout._DropoutNd | StochasticDepth) and module.p > 0
    return dropout or (isinstance(module, nn.MultiheadAttention) and module.dropout > 0)

"""Build torchvision's classification models under their names (the paper's ResNet-50 is one).

Where a CIFAR model has the same name (``vgg11``, …), torchvision's is ``torchvision.vgg11``. A
model's properties are found by building it on the meta device, without memory.
"""

from functools import cache

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import StochasticDepth

from trainer.data.specs import IMAGENET, DatasetSpec
from trainer.models.specs import MODELS, ModelSpec

PREFIX = "torchvision."
# The training loss does not know the auxiliary classifiers of these two models.
WITHOUT_AUXILIARY = {"aux_logits": False, "init_weights": True}
OPTIONS = {"googlenet": WITHOUT_AUXILIARY, "inception_v3": WITHOUT_AUXILIARY}


def names() -> list[str]:
    """List all classification models by the names that they have here."""
    return [PREFIX + n if n in MODELS else n for n in models.list_models(module=models)]


def torchvision_model(data: DatasetSpec, name: str) -> nn.Module:
    """Build ``name`` with torchvision's own initialisation and a score for each class."""
    name = name.removeprefix(PREFIX)
    model: nn.Module = models.get_model(
        name, weights=None, num_classes=data.num_classes, **OPTIONS.get(name, {})
    )
    return model


@cache
def spec(name: str) -> ModelSpec:
    """Find a model's spec by building it once."""
    modules = list(_meta_model(name).modules())
    return ModelSpec(
        factory="from_torchvision:torchvision_model",
        dataset="imagenet",
        arguments={"name": name},
        batchnorm=any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in modules),
        stochastic=any(_is_stochastic(m) for m in modules),
    )


@cache
def incompatibility(name: str, channels: int, image_size: int, samples: int) -> str | None:
    """Explain why ``name`` cannot train on ``samples`` such images, by trying it without content.

    Returns None if it can.
    """
    model = _meta_model(name)
    device = next(model.parameters()).device
    try:
        scores = model(torch.empty(samples, channels, image_size, image_size, device=device))
    except (RuntimeError, AssertionError, ValueError) as error:
        return str(error).splitlines()[0]
    assert isinstance(scores, Tensor), f"{name} returns {type(scores).__name__}"
    return None


@cache
def _meta_model(name: str) -> nn.Module:
    try:
        with torch.device("meta"):
            return torchvision_model(IMAGENET, name)
    except NotImplementedError:  # RegNets compute their widths with tensors
        with torch.random.fork_rng(devices=[]):
            return torchvision_model(IMAGENET, name)


def _is_stochastic(module: nn.Module) -> bool:
    """Return whether ``module`` draws random numbers in training."""
    dropout = isinstance(module, nn.modules.dropout._DropoutNd | StochasticDepth) and module.p > 0
    return dropout or (isinstance(module, nn.MultiheadAttention) and module.dropout > 0)

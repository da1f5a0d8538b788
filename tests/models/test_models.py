"""Test architectures against the authors' published checkpoints and closed counts."""

import pytest
import torch
from torch import nn

from tests.conftest import shared_file
from trainer.data.specs import DATASETS
from trainer.files.state_dict import load_model
from trainer.models.registry import build, incompatibility, model_spec
from trainer.models.specs import MODELS

CIFAR10 = DATASETS["cifar10"]


@pytest.mark.parametrize("name", [name for name in MODELS if "1202" not in name])
def test_every_model_gives_one_score_per_class(name: str) -> None:
    data = DATASETS[MODELS[name].dataset]
    model = build(name, data, seed=0)
    images = torch.randn(2, data.channels, data.image_size, data.image_size)
    assert model(images).shape == (2, 10)
    has_batchnorm = any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert has_batchnorm == MODELS[name].batchnorm


@pytest.mark.parametrize(
    ("name", "millions"),
    # Table 6 of He et al. 2016 (https://arxiv.org/abs/1512.03385)
    [
        ("resnet20", 0.27),
        ("resnet32", 0.46),
        ("resnet44", 0.66),
        ("resnet56", 0.85),
        ("resnet110", 1.7),
    ],
)
def test_parameter_counts_are_those_of_the_paper(name: str, millions: float) -> None:
    count = sum(p.numel() for p in build(name, CIFAR10, seed=0).parameters())
    digits = 1 if name == "resnet110" else 2
    assert round(count / 1e6, digits) == millions


def test_the_authors_checkpoint_loads_with_every_key_matched() -> None:
    path = shared_file("phase1_common.pt")
    model = build("resnet56", CIFAR10, seed=0)
    load_model(path, model)
    stored = torch.load(path, weights_only=True, map_location="cpu")
    assert list(stored) == list(model.state_dict())
    assert all(torch.equal(stored[key], value) for key, value in model.state_dict().items())
    assert sum(p.numel() for p in model.parameters()) == 853_018


def test_the_authors_groupnorm_checkpoint_loads_with_every_key_matched() -> None:
    path = shared_file("resnet_common_start.pt")
    model = build("resnet56_gn", CIFAR10, seed=0, n_groups=8)
    load_model(path, model)
    stored = torch.load(path, weights_only=True, map_location="cpu")
    assert all(torch.equal(stored[key], value) for key, value in model.state_dict().items())
    norms = [m for m in model.modules() if isinstance(m, nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == {8}
    assert sum(p.numel() for p in model.parameters()) == 853_018


def test_resnet8_has_the_same_keys_with_either_normalisation() -> None:
    """Name parameters as the authors' ResNets do, so that state_dicts are told apart by shape."""
    batchnorm, groupnorm = (build(name, CIFAR10, seed=0) for name in ("resnet8", "resnet8_gn"))
    shapes = {key: p.shape for key, p in batchnorm.named_parameters()}
    assert shapes == {key: p.shape for key, p in groupnorm.named_parameters()}
    assert list(groupnorm.state_dict()) == list(shapes)
    assert list(shapes)[:5] == [
        "conv1.weight", "bn1.weight", "bn1.bias", "layer1.conv1.weight", "layer1.bn1.weight",
    ]  # fmt: skip


@pytest.mark.parametrize("n_groups", [1, 2, 16])
def test_every_groupnorm_has_the_groups_asked_for(n_groups: int) -> None:
    model = build("resnet20_gn", CIFAR10, seed=0, n_groups=n_groups)
    norms = [m for m in model.modules() if isinstance(m, nn.GroupNorm)]
    assert [norm.num_groups for norm in norms] == 19 * [n_groups]
    small = build("resnet8_gn", CIFAR10, seed=0, n_groups=n_groups).modules()
    assert [m.num_groups for m in small if isinstance(m, nn.GroupNorm)] == 7 * [n_groups]


@pytest.mark.parametrize(
    ("name", "convolutions"), [("vgg11", 8), ("vgg13", 10), ("vgg16", 13), ("vgg19", 16)]
)
def test_vgg_has_the_layers_of_its_name_and_torchvisions_convolutions(
    name: str, convolutions: int
) -> None:
    import torchvision

    ours = [m for m in build(name, CIFAR10, seed=0).modules() if isinstance(m, nn.Conv2d)]
    theirs = getattr(torchvision.models, name)(num_classes=10).features.modules()
    wanted = [m.weight.shape for m in theirs if isinstance(m, nn.Conv2d)]
    assert [m.weight.shape for m in ours] == wanted
    assert len(ours) == convolutions


def test_vgg_keys_are_the_authors() -> None:
    keys = list(build("vgg11", CIFAR10, seed=0).state_dict())
    assert keys[:4] == [
        "features.0.weight", "features.0.bias", "features.3.weight", "features.3.bias",
    ]  # fmt: skip
    assert keys[-2:] == ["classifier.weight", "classifier.bias"]


def test_option_a_shortcut_subsamples_and_pads_channels_on_both_sides() -> None:
    block = build("resnet20", CIFAR10, seed=0).layer2[0]  # type: ignore[index, union-attr]
    x = torch.randn(1, 16, 8, 8)
    shortcut = block.shortcut(x)
    assert shortcut.shape == (1, 32, 4, 4)
    assert torch.equal(shortcut[:, 8:24], x[:, :, ::2, ::2])
    assert not shortcut[:, :8].any()
    assert not shortcut[:, 24:].any()


@pytest.mark.parametrize("name", ["cnn", "resnet8", "resnet8_gn"])
def test_initialisation_is_a_function_of_the_seed_alone(name: str) -> None:
    torch.manual_seed(1)
    first = build(name, CIFAR10, seed=7)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    second = build(name, CIFAR10, seed=7)
    assert torch.equal(torch.random.get_rng_state(), state)
    other = build(name, CIFAR10, seed=8)
    vector = nn.utils.parameters_to_vector
    assert torch.equal(vector(first.parameters()), vector(second.parameters()))
    assert not torch.equal(vector(first.parameters()), vector(other.parameters()))


@pytest.mark.parametrize(
    ("name", "batchnorm", "stochastic"),
    [
        ("resnet18", True, False),
        ("mobilenet_v2", True, True),
        ("convnext_tiny", False, True),
        ("regnet_x_400mf", True, False),
        ("torchvision.vgg11", False, True),
        ("googlenet", True, True),
    ],
)
def test_other_models_are_torchvisions(name: str, batchnorm: bool, stochastic: bool) -> None:
    import torchvision

    spec = model_spec(name)
    assert (spec.batchnorm, spec.stochastic) == (batchnorm, stochastic)
    ours = build(name, CIFAR10, seed=0)
    extra = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
    make = getattr(torchvision.models, name.removeprefix("torchvision."))
    torch.manual_seed(0)
    theirs = make(num_classes=10, **extra).state_dict()
    assert list(ours.state_dict()) == list(theirs)
    assert all(torch.equal(theirs[key], value) for key, value in ours.state_dict().items())
    assert ours.train()(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_a_model_says_why_it_cannot_take_a_data_set() -> None:
    assert incompatibility("resnet18", CIFAR10) is None
    assert "224" in str(incompatibility("vit_b_16", CIFAR10))
    assert "channel" in str(incompatibility("resnet18", DATASETS["digits"]))
    assert "32 pixels" in str(incompatibility("resnet20", DATASETS["digits"]))


def test_the_papers_imagenet_model_has_its_parameters() -> None:
    """Expect 25.6 million (https://arxiv.org/abs/1512.03385 and torchvision's documentation)."""
    import torchvision

    weights = torchvision.models.get_model_weights("resnet50").DEFAULT
    with torch.device("meta"):
        model = torchvision.models.resnet50()
    count = sum(p.numel() for p in model.parameters())
    assert count == weights.meta["num_params"] == 25_557_032
    ours = sum(p.numel() for p in build("resnet50", CIFAR10, seed=0).parameters())
    assert count - ours == 990 * (2048 + 1)  # 10 classes instead of 1,000

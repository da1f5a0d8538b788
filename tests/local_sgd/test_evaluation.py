"""Test evaluation and BatchNorm re-estimation against direct computation."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.in_memory import in_memory
from trainer.data.images import ImageSet
from trainer.data.memory import MemoryImages
from trainer.data.preparation.prepared import Arrays
from trainer.data.specs import DATASETS
from trainer.data.training import TrainingSet
from trainer.distributed.world import World
from trainer.local_sgd.evaluation import Evaluator, reestimate_batchnorm
from trainer.models.registry import build

CPU = torch.device("cpu")
DIGITS = DATASETS["digits"]
WORLD = World(0, 1, CPU)


def memory_images(n: int) -> MemoryImages:
    draw = np.random.default_rng(1)
    images = draw.integers(0, 241, (n, 8, 8, 1), np.uint8)
    return in_memory(Arrays(images, draw.integers(0, 10, n).astype(np.int64)))


# What PyTorch raises on a GPU whose memory has no room for a tensor, or for a convolution's scratch
OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory.")
NO_SCRATCH = RuntimeError("GET was unable to find an engine to execute this computation")


class SmallMemory(nn.Module):
    """Run out of memory with more than ``most`` images at a time."""

    def __init__(self, model: nn.Module, most: int, error: RuntimeError = OUT_OF_MEMORY) -> None:
        super().__init__()
        self.model, self.most, self.error = model, most, error

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.most:
            raise self.error
        logits: Tensor = self.model(images)
        return logits


@pytest.mark.parametrize(
    ("most", "error"), [(1, OUT_OF_MEMORY), (7, NO_SCRATCH), (1000, OUT_OF_MEMORY)]
)
def test_scores_are_over_every_sample_once(most: int, error: RuntimeError) -> None:
    """Score in batches that fit; the last has another size."""
    data = ImageSet(memory_images(253), DIGITS, CPU, torch.float64)
    model = build("cnn_bn", DIGITS, seed=0).double().eval()
    [(images, _)] = data.in_batches(np.arange(253), 253)
    logits = model(images)
    evaluate = Evaluator(data, WORLD)
    for _ in range(2):
        scores = evaluate(SmallMemory(model, most, error))
        assert scores.accuracy == (logits.argmax(1) == data.labels).double().mean().item()
        ranks = (logits > logits.gather(1, data.labels[:, None])).sum(1)
        assert scores.top5 == (ranks < 5).double().mean().item()
        assert scores.accuracy < scores.top5 < 1
        expected = nn.functional.cross_entropy(logits, data.labels).item()
        assert scores.loss == pytest.approx(expected, rel=1e-12)
    assert evaluate.batch_size <= most < 2 * evaluate.batch_size or most == 1000


def test_small_convolutional_networks_see_few_images_at_once_and_score_alike() -> None:
    data = ImageSet(memory_images(270), DIGITS, CPU, torch.float32)
    large = build("cnn", DIGITS, seed=0)
    large.unused = nn.Parameter(torch.zeros(2**20))
    for model, sizes in (
        (build("cnn_bn", DIGITS, seed=0), [50, 50, 50, 50, 50, 20]),
        (build("mlp", DIGITS, seed=0), [250, 20]),  # no convolution
        (large, [250, 20]),
    ):
        seen: list[int] = []
        model.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(len(inputs[0])))
        scores = Evaluator(data, WORLD)(model)
        assert seen == sizes
        losses = [
            nn.functional.cross_entropy(model(images), labels, reduction="sum").double()
            for images, labels in data.in_batches(np.arange(270), 250)
        ]
        assert scores.loss == (sum(losses) / 270).item()


@pytest.mark.parametrize(
    ("dataset", "test", "processes", "most"),
    [
        ("digits", 360, 1, 360),
        ("cifar10", 10_000, 1, 10_000),
        ("photos", 2_000, 2, 1_000),
        ("imagenet", 50_000, 4, 445),  # 256 MiB of 224 × 224 × 3 values in float32
    ],
)
def test_a_gpu_is_not_given_more_than_one_batch_may_hold(
    dataset: str, test: int, processes: int, most: int
) -> None:
    one = memory_images(1).subset(np.zeros(test, np.int64))
    data = ImageSet(one, DATASETS[dataset], CPU, torch.float32)
    for device, expected in (("cuda", most), ("cpu", 250)):
        evaluate = Evaluator(data, World(0, processes, torch.device(device)))
        assert evaluate.batch_size == expected


def test_a_model_too_large_for_one_image_is_an_error() -> None:
    data = ImageSet(memory_images(5), DIGITS, CPU, torch.float64)
    with pytest.raises(torch.OutOfMemoryError):
        Evaluator(data, WORLD)(SmallMemory(nn.Flatten(), 0))
    with pytest.raises(RuntimeError, match="a bug"):
        Evaluator(data, WORLD)(SmallMemory(nn.Flatten(), 2, RuntimeError("a bug")))


def test_batchnorm_statistics_are_the_mean_over_the_batches() -> None:
    training = TrainingSet(memory_images(60), DIGITS, CPU, torch.float64, augmented=True, noise_p=0)
    model = build("cnn_bn", DIGITS, seed=0).double()
    reference = copy.deepcopy(model)
    options = {"seed": 3, "step": 11, "num_batches": 5, "batch_size": 8}
    reestimate_batchnorm(model, training, WORLD, **options)
    # The first layer's statistics by hand; the second's by a layer that averages cumulatively.
    batches = list(training.batchnorm_images(3, 11, 5, 8, slice(None)))
    first = torch.stack([reference[0](images).mean((0, 2, 3)) for images in batches])
    variance = torch.stack([reference[0](images).var((0, 2, 3)) for images in batches])
    torch.testing.assert_close(model[1].running_mean, first.mean(0))
    torch.testing.assert_close(model[1].running_var, variance.mean(0))
    for layer in (reference[1], reference[5]):
        layer.reset_running_stats()
        layer.momentum = None
    for images in batches:
        reference.train()(images)
    torch.testing.assert_close(model[5].running_mean, reference[5].running_mean)
    torch.testing.assert_close(model[5].running_var, reference[5].running_var)


def test_every_batchnorm_of_a_residual_network_is_reestimated() -> None:
    training = TrainingSet(memory_images(60), DIGITS, CPU, torch.float64, augmented=True, noise_p=0)
    model = build("resnet8", DIGITS, seed=0).double()
    reference = copy.deepcopy(model)
    reestimate_batchnorm(model, training, WORLD, seed=3, step=11, num_batches=5, batch_size=8)
    layers = [m for m in reference.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(layers) == 7
    for layer in layers:
        layer.momentum = None  # the cumulative mean
    for images in training.batchnorm_images(3, 11, 5, 8, slice(None)):
        reference.train()(images)
    torch.testing.assert_close(model.state_dict(), reference.state_dict())


def test_batchnorm_is_reestimated_without_dropout() -> None:
    training = TrainingSet(memory_images(60), DIGITS, CPU, torch.float64, augmented=True, noise_p=0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Dropout(0.5), nn.BatchNorm2d(4)).double()
    reestimate_batchnorm(model, training, WORLD, seed=3, step=11, num_batches=5, batch_size=8)
    batches = training.batchnorm_images(3, 11, 5, 8, slice(None))
    values = torch.stack([model[0](images).movedim(1, 0).flatten(1) for images in batches])
    torch.testing.assert_close(model[2].running_mean, values.mean(2).mean(0))
    torch.testing.assert_close(model[2].running_var, values.var(2).mean(0))


def test_batchnorm_reestimation_changes_no_parameter() -> None:
    training = TrainingSet(
        memory_images(60), DIGITS, CPU, torch.float32, augmented=False, noise_p=0
    )
    model = build("cnn_bn", DIGITS, seed=0)
    before = nn.utils.parameters_to_vector(model.parameters()).clone()
    reestimate_batchnorm(model, training, WORLD, seed=0, step=0, num_batches=2, batch_size=8)
    assert torch.equal(nn.utils.parameters_to_vector(model.parameters()), before)

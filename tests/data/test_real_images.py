"""Test the authors' checkpoints on the real images, slightly changed by JPEG: minutes."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from tests.commands import trainer
from tests.conftest import metrics, shared_file, unpacked
from trainer.data.beton.reader import read_beton
from trainer.data.memory import MemoryImages
from trainer.data.specs import DATASETS
from trainer.data.training import TrainingSet
from trainer.distributed.world import World
from trainer.files.state_dict import load_model
from trainer.local_sgd.evaluation import Scores, reestimate_batchnorm
from trainer.models.registry import build

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
WORLD = World(0, 1, CPU)
CIFAR10 = DATASETS["cifar10"]


@pytest.fixture(scope="module")
def real_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder ``raw`` of the images, and .beton files by the real commands."""
    archive = shared_file("cifar10-jpeg.tar.xz")
    folder = tmp_path_factory.mktemp("real_images")
    unpacked(archive, folder / "raw")
    prepare = ["prepare", "--dataset", "cifar10", "--source", folder / "raw", "--out", folder]
    for step in (prepare, ["beton", "--data-pth", folder]):
        done = trainer(*step)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def label_noise_start() -> Path:
    """Load ResNet-56 with GroupNorm at epoch 500, where Figure 7(a) starts."""
    return shared_file("resnet_common_start.pt")


@pytest.fixture(scope="module")
def start_scores(real_images: Path, label_noise_start: Path) -> Scores:
    """Score the start point by torchvision alone."""
    model = build("resnet56_gn", CIFAR10, 0, n_groups=8)
    load_model(label_noise_start, model)
    return plain_scores(model, real_images / "raw" / "test")


def test_phase_1_ends_at_081_with_batchnorm_reestimated(real_images: Path) -> None:
    """Re-estimate on 16 augmented batches of 128; the checkpoint's own statistics give 0.775."""
    model = build("resnet56", CIFAR10, 0)
    load_model(shared_file("phase1_common.pt"), model)
    arrays = read_beton(real_images / "train.beton")
    training = TrainingSet(
        MemoryImages(arrays, CPU), CIFAR10, CPU, torch.float32, augmented=True, noise_p=0
    )
    reestimate_batchnorm(model, training, WORLD, seed=0, step=0, num_batches=16, batch_size=128)
    scores = plain_scores(model, real_images / "raw" / "test")
    assert scores.accuracy == pytest.approx(0.81, abs=0.01)


@pytest.mark.exhaustive
def test_the_label_noise_start_scores_0686(start_scores: Scores) -> None:
    assert start_scores.accuracy == pytest.approx(0.686, abs=0.002)
    assert start_scores.loss == pytest.approx(1.138, abs=0.005)


@pytest.mark.exhaustive
def test_label_noise_rounds_go_on_from_the_authors_start_point(
    real_images: Path, label_noise_start: Path, start_scores: Scores, tmp_path: Path
) -> None:
    """Use the options of the authors' script run-resnet-label-noise, except for the sizes."""
    digest = hashlib.sha256(label_noise_start.read_bytes()).hexdigest()
    done = trainer(
        "train", "--dataset", "cifar10", "--data-pth", real_images, "--log-pth", tmp_path,
        "--model", "resnet56_gn", "--n-groups", 8,
        "--resume", 500, "--resume-pth", label_noise_start, "--resume-sha256", digest,
        "--replacement", 1, "--aug", 0, "--label-noise", 1, "--noise-p", 0.1,
        "--wd", 5e-4, "--group-weight", 1, "--momentum", 0,
        "--start-lr", 0.1, "--max-lr", 0.1, "--warm-up", 1, "--warmup-epochs", 1,
        "--batch-size", 16, "--total-batch-size", 32, "--steps-per-epoch", 3, "--epochs", 3,
        "--step1", 2, "--eval-on-start", 1, "--eval-freq1", 100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    start, end = metrics(tmp_path)
    # One image of 10,000 may lie so close to a boundary that rounding decides.
    assert start["test_accuracy"] == pytest.approx(start_scores.accuracy, abs=1e-4)
    assert start["test_loss"] == pytest.approx(start_scores.loss, rel=1e-5)
    assert (start["epoch"], end["epoch"]) == (500, 503)
    assert (end["step"], end["round"], end["lr"]) == (9, 5, 0.1)
    assert math.isfinite(end["train_loss"]) and math.isfinite(end["test_loss"])
    # So small a batch at this η costs accuracy (0.52 measured); an unloaded start has 0.1.
    assert end["test_accuracy"] > 0.3


@torch.no_grad()
def plain_scores(model: nn.Module, folder: Path) -> Scores:
    """Return accuracy and mean cross-entropy on all images of ``folder``'s class folders."""
    steps = [transforms.ToTensor(), transforms.Normalize(CIFAR10.mean, CIFAR10.std)]
    images = ImageFolder(str(folder), transforms.Compose(steps))
    assert tuple(images.classes) == CIFAR10.classes
    correct, among_five, loss = 0, 0, 0.0
    for batch, labels in DataLoader(images, batch_size=250):
        logits = model.eval()(batch)
        correct += int((logits.argmax(1) == labels).sum())
        among_five += int((logits.argsort(1)[:, -5:] == labels[:, None]).sum())
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
    n = len(images)
    return Scores(accuracy=correct / n, top5=among_five / n, loss=loss / n)

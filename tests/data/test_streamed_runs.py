"""Test whole runs on images that FFCV decodes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch

from tests.commands import ROOT, torchrun, trainer
from tests.conftest import assert_same_metrics, metrics, more, one_line
from tests.data.test_stream import CIFAR10, CPU, PHOTOS, streamed, training_set
from tests.option_runs import covers
from trainer.data.beton.reader import read_beton, read_index
from trainer.data.memory import MemoryImages
from trainer.data.sampling import Sampler
from trainer.data.stream import StreamedImages
from trainer.data.training import TrainingSet
from trainer.settings.run import RunSettings

pytestmark = pytest.mark.slow  # it begins early

# As on a machine with a GPU that another run uses
STREAM_BESIDE_A_GPU = """
import sys
from pathlib import Path
import numpy as np, torch
torch.cuda.is_available = lambda: True
from tests.data.test_stream import pixels, streamed
from trainer.data.images import Request
images = streamed(Path(sys.argv[1]))
[got] = pixels(images, Request(indices=np.arange(3), crops=None))
print(got.shape, torch.cuda.is_initialized())
"""


def test_streaming_opens_no_gpu(photos: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STREAM_BESIDE_A_GPU, photos / "train.beton"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "(3, 32, 32, 3) False\n", done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_the_batches_of_the_cpu(photos: Path) -> None:
    """Copy batches from pinned memory while others are decoded."""
    path = photos / "train.beton"
    sampler = Sampler(seed=3, num_samples=480, num_clients=4, batch_size=3, steps_per_epoch=5)
    pinned = StreamedImages(path, read_index(path), 32, 1, pinned=True)
    there = TrainingSet(
        pinned, PHOTOS, torch.device("cuda"), torch.float32, augmented=True, noise_p=0.0, workers=1
    )
    here = training_set(streamed(path))
    both = (islice(each.batches(sampler, range(4), 0, 0), 40) for each in (there, here))
    for a, b in zip(*both, strict=True):
        assert a.images.device.type == "cuda"
        torch.testing.assert_close(a.images.cpu(), b.images)
        assert torch.equal(a.labels.cpu(), b.labels)


@covers("loader")
def test_cifar10_is_the_same_run_from_memory_and_streamed(
    tiny_cifar10: Path, tmp_path: Path
) -> None:
    path = tiny_cifar10 / "train.beton"
    sampler = Sampler(seed=1, num_samples=64, num_clients=4, batch_size=4, steps_per_epoch=4)
    both = (MemoryImages(read_beton(path), CPU), streamed(path))
    memory, ffcv = (
        list(islice(training_set(each, CIFAR10).batches(sampler, range(4), 0, 0), 9))
        for each in both
    )
    for a, b in zip(memory, ffcv, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
    words = [
        "train", "--dataset", "cifar10", "--model", "cnn_bn", "--data-pth", tiny_cifar10,
        "--batch-size", 8, "--total-batch-size", 32, "--epochs", 2, "--clients", "serial",
    ]  # fmt: skip
    for loader in ("memory", "ffcv"):
        done = trainer(*words, "--loader", loader, "--log-pth", tmp_path / loader)
        assert done.returncode == 0, done.stderr
    assert metrics(tmp_path / "memory") == metrics(tmp_path / "ffcv")


@covers("image_size", "num_classes")
@pytest.mark.parametrize("processes", [2, more(4)])
def test_a_folder_of_images_is_one_run_on_any_number_of_processes(
    photos: Path, tmp_path: Path, processes: int
) -> None:
    """Train ResNet-18 from JPEG files; the learning rate is small: BatchNorm amplifies rounding."""
    words = [
        "train", "--dataset", "imagefolder", "--num-classes", 10, "--image-size", 40,
        "--model", "resnet18", "--data-pth", photos, "--train-subset", 64, "--batch-size", 8,
        "--total-batch-size", 32, "--epochs", 2, "--step1", 2, "--start-lr", 1e-4,
        "--precision", "fp64", "--clients", "serial", "--bn-batches", 4, "--nw", 1,
    ]  # fmt: skip
    for done in (
        trainer(*words, "--log-pth", tmp_path / "one"),
        torchrun(processes, *words, "--log-pth", tmp_path / "several"),
    ):
        assert done.returncode == 0, done.stderr
    assert_same_metrics(metrics(tmp_path / "one"), metrics(tmp_path / "several"))
    assert metrics(tmp_path / "one")[-1]["step"] == 4
    assert RunSettings(dataset="imagefolder", num_classes=7, model="resnet18").data.num_classes == 7


@pytest.mark.parametrize("asked", [4, more(20)])
def test_another_number_of_classes_is_refused(photos: Path, tmp_path: Path, asked: int) -> None:
    message = one_line(
        trainer(
            "train", "--dataset", "imagefolder", "--num-classes", asked, "--model", "resnet18",
            "--image-size", 40, "--data-pth", photos, "--log-pth", tmp_path,
        )
    )  # fmt: skip
    assert f"10 classes, {asked} were asked for" in message and "num_classes" in message


ON_ONE_CORE = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from trainer.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_process_with_one_core_comes_to_its_end(photos: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        shutil.copy(photos / f"{split}.json", tmp_path)
    run = tmp_path / "run"
    for words in (
        ["beton", "--data-pth", tmp_path],
        ["train", "--dataset", "photos", "--model", "cnn", "--data-pth", tmp_path,
         "--epochs", 1, "--log-pth", run],
    ):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", ON_ONE_CORE, *map(str, words)],
            cwd=ROOT, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert len(metrics(run)) == 3

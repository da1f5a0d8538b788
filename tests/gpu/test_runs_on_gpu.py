"""Parts of a run on the GPU against those on the CPU: data, evaluation, sharpness, memory."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.gpu.needs import needs_gpu
from trainer.data.images import ImageSet
from trainer.data.memory import MemoryImages, Samples
from trainer.data.sampling import Sampler
from trainer.data.specs import DATASETS
from trainer.data.training import Batch, TrainingSet
from trainer.distributed.world import World
from trainer.errors import UserError
from trainer.local_sgd.evaluation import Evaluator, reestimate_batchnorm
from trainer.models.registry import build
from trainer.run.build import make_bank, make_schedule
from trainer.run.checkpoint import Checkpoints
from trainer.run.execution import SERIAL, choose_execution
from trainer.run.training_run import TrainingRun
from trainer.settings.run import RunSettings
from trainer.tracking.metrics import RunProgress

CIFAR10, CPU = DATASETS["cifar10"], torch.device("cpu")
SAMPLES = 96


def training_set(
    device: torch.device, dtype: torch.dtype = torch.float64, count: int = SAMPLES
) -> TrainingSet:
    """Hold random images on the device, those of every call the same."""
    draw = np.random.default_rng(4)
    shape = (32, 32, 3)
    samples = Samples(
        content=draw.integers(0, 256, count * 32 * 32 * 3, np.uint8),
        starts=np.arange(count) * (32 * 32 * 3),
        shape=shape,
        labels=np.arange(count) % 10,
    )
    images = MemoryImages(samples, device)
    return TrainingSet(images, CIFAR10, device, dtype, augmented=True, noise_p=0.2)


def test_the_device_gets_the_batches_of_the_cpu(device: torch.device) -> None:
    """Indices, crops, flips and label noise are drawn on the CPU, the images gathered there."""
    sampler = Sampler(seed=3, num_samples=SAMPLES, num_clients=4, batch_size=5, steps_per_epoch=4)
    there, here = (
        islice(training_set(each).batches(sampler, range(1, 3), 2, 0), 8) for each in (device, CPU)
    )
    for a, b in zip(there, here, strict=True):
        assert a.images.device.type == a.labels.device.type == device.type
        torch.testing.assert_close(a.images.cpu(), b.images, rtol=1e-12, atol=1e-12)
        assert torch.equal(a.labels.cpu(), b.labels)
        assert a.images.stride()[1:] == b.images.stride()[1:]


def test_scores_and_batchnorm_statistics_are_the_cpus(device: torch.device) -> None:
    def scored(device: torch.device) -> tuple[list[float], list[Tensor]]:
        training, world = training_set(device), World(0, 1, device)
        model = build("resnet8", CIFAR10, seed=2).to(device, torch.float64)
        reestimate_batchnorm(model, training, world, seed=1, step=7, num_batches=3, batch_size=16)
        found = Evaluator(training, world)(model)
        statistics = [b.cpu().double() for b in model.buffers()]
        return [found.accuracy, found.top5, found.loss], statistics

    (there, statistics_there), (here, statistics_here) = scored(device), scored(CPU)
    assert there == pytest.approx(here, rel=1e-9)
    torch.testing.assert_close(statistics_there, statistics_here, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["resnet8", "resnet8_gn"])
def test_sharpness_is_the_cpus(name: str, device: torch.device) -> None:
    pytest.importorskip("scipy", reason="needs scipy, for the largest eigenvalue")
    from trainer.local_sgd.sharpness import sharpness

    images = 16 if device.type == "cuda" else 3

    def found(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
        model = build(name, CIFAR10, seed=2).to(device, dtype)
        of = sharpness(model, training_set(device, dtype), samples=images, probes=2, seed=5)
        return of.trace, of.largest_eigenvalue

    exact = found(CPU, torch.float64)
    assert found(device, torch.float64) == pytest.approx(exact, rel=1e-7)
    assert found(device, torch.float32) == pytest.approx(exact, rel=1e-2)


@needs_gpu
def test_an_evaluation_that_does_not_fit_takes_smaller_batches(device: torch.device) -> None:
    """Leave the allocator a third of what all images at once take: some 0.3 of 1 GB.

    It takes memory from the GPU in pieces of 20 MB, which only for large batches count little, and
    the limit is on these pieces, not on the tensors in them.
    https://docs.pytorch.org/docs/stable/notes/cuda.html, "Memory management"
    """
    count = 2048
    model = build("resnet8", CIFAR10, seed=2).to(device, torch.float64)
    limited = Evaluator(training_set(device, count=count), World(0, 1, device))
    expected = limited(model)  # also loads libraries, which keep some memory
    assert limited.batch_size == count
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_reserved(device)
    limited(model)
    whole = torch.cuda.max_memory_reserved(device) - before
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((before + whole / 3) / total, device)
    try:
        found = limited(model)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    assert limited.batch_size < count
    assert found.loss == pytest.approx(expected.loss, rel=1e-9)


def test_replicas_that_cannot_fit_are_refused_before_they_are_made(device: torch.device) -> None:
    """Ask for 16,384 replicas of ResNet-50: 1.7 TB."""
    pytest.importorskip("torchvision", reason="needs torchvision, for ResNet-50")
    k = 16_384
    settings = RunSettings.model_validate(
        {"model": "resnet50", "dataset": "imagenet", "image_size": 32, "batch_size": 2,
         "total_batch_size": 2 * k, "step1": 2, "epochs": 2, "steps_per_epoch": 1}
    )  # fmt: skip
    images = torch.zeros(1, 2, 3, 32, 32, device=device).expand(k, -1, -1, -1, -1)
    labels = torch.zeros(k, 2, dtype=torch.int64, device=device)
    batch = Batch(images=images, labels=labels, seeds=np.arange(k))
    one = make_bank(settings, 1, SERIAL, device)
    with pytest.raises(UserError, match=rf"K = {k} clients.*are free on {device}"):
        choose_execution(settings, make_schedule(settings, 1), one, batch, World(0, 1, device))


@pytest.mark.parametrize("clients", ["serial", "vectorized"])
def test_a_resumed_run_has_the_bits_of_an_undisturbed_one(
    clients: str,
    deterministic: None,
    tmp_path: Path,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Save in mid-round, in the third of five steps, and go on in a run that is built anew."""
    held = training_set(device, torch.float32)
    monkeypatch.setattr("trainer.run.training_run.load_data", lambda *_: (held, held))
    settings = RunSettings.model_validate(
        {"dataset": "cifar10", "model": "resnet8", "clients": clients,
         "batch_size": 8, "total_batch_size": 32, "step1": 5, "epochs": 3, "momentum": 0.9,
         "start_lr": 0.01, "label_noise": True}
    )  # fmt: skip
    world = World(0, 1, device)
    checkpoints = Checkpoints(tmp_path, world, "the same run")

    def bits(run: TrainingRun, *, save_after: int | None = None) -> list[Tensor]:
        for step in run.steps():
            run.loss.add(step.losses)
            if step.done == save_after:
                progress = RunProgress(metrics="", seconds=0.0, starts=1)
                checkpoints.save(step.done, run.state(step), progress)
        run.export(step.round)
        tensors = [*run.model.state_dict().values(), torch.tensor(run.loss.total)]
        return [tensor.cpu() for tensor in tensors]

    whole = bits(TrainingRun(settings, world), save_after=3)
    resumed = TrainingRun(settings, world)
    found = checkpoints.newest()
    assert found is not None and found.step == 3
    resumed.restore(found)
    again = bits(resumed)
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


@pytest.mark.slow
def test_ffcv_streams_to_the_device_what_memory_holds(betons: Path, device: torch.device) -> None:
    pytest.importorskip("ffcv", reason="needs ffcv, for streaming")
    from trainer.data.beton.reader import read_beton, read_index
    from trainer.data.stream import StreamedImages

    path = betons / "train.beton"
    pinned = device.type == "cuda"
    streamed = StreamedImages(path, read_index(path), 32, 1, pinned=pinned)
    held = MemoryImages(read_beton(path), CPU)
    order = np.random.default_rng(0).permutation(128)
    there, here = (
        list(ImageSet(images, CIFAR10, on, torch.float32).in_batches(order, 50))
        for images, on in ((streamed, device), (held, CPU))
    )
    for (a, labels), (b, expected) in zip(there, here, strict=True):
        assert a.device.type == device.type
        torch.testing.assert_close(a.cpu(), b)
        assert torch.equal(labels.cpu(), expected)

"""Test batches against torchvision's transforms and plain indexing."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import functional as TF

from tests.in_memory import in_memory
from trainer.data.crops import Crops, crop_and_flip, random_padded_crops
from trainer.data.images import ImageSet, Request
from trainer.data.loading import prefetch
from trainer.data.preparation.prepared import Arrays
from trainer.data.sampling import Purpose, Sampler, generator, label_offsets
from trainer.data.specs import DATASETS, DatasetSpec
from trainer.data.training import BLOCK_BYTES, Batch, TrainingSet

CPU = torch.device("cpu")
CIFAR10, DIGITS = DATASETS["cifar10"], DATASETS["digits"]


def arrays(n: int = 40, spec: DatasetSpec = CIFAR10) -> Arrays:
    draw = np.random.default_rng(0)
    shape = (n, spec.image_size, spec.image_size, spec.channels)
    images = draw.integers(0, 256, shape, np.uint8)
    return Arrays(images, draw.integers(0, 10, n).astype(np.int64))


def training_set(augmented: bool = True, noise_p: float = 0.0, workers: int = 0) -> TrainingSet:
    options = {"augmented": augmented, "noise_p": noise_p, "workers": workers}
    return TrainingSet(in_memory(arrays()), CIFAR10, CPU, torch.float32, **options)  # type: ignore[arg-type]


def seen(data: ImageSet, indices: list[int]) -> Tensor:
    """Return what an evaluation sees, three images at a time."""
    batches = list(data.in_batches(np.array(indices), 3))
    assert torch.equal(torch.cat([labels for _, labels in batches]), data.labels[indices])
    return torch.cat([images for images, _ in batches])


SAMPLER = Sampler(seed=4, num_samples=40, num_clients=4, batch_size=2, steps_per_epoch=5)


def first(count: int, clients: range, start: int = 0, **options: object) -> list[Batch]:
    batches = training_set(**options).batches(SAMPLER, clients, start, epoch=2)  # type: ignore[arg-type]
    return [next(batches) for _ in range(count)]


def plain(images: NDArray[np.uint8], spec: DatasetSpec, dtype: torch.dtype) -> Tensor:
    """Turn (…, H, W, C) into (…, C, H, W), each channel normalised by itself."""
    channels = [
        (torch.from_numpy(images[..., c]).to(dtype) - 255 * torch.tensor(mean, dtype=dtype))
        / (255 * torch.tensor(std, dtype=dtype))
        for c, (mean, std) in enumerate(zip(spec.mean, spec.std, strict=True))
    ]
    return torch.stack(channels, -3)


@pytest.mark.parametrize("spec", [CIFAR10, replace(DIGITS, flip=True)])
@pytest.mark.parametrize("seed", range(5))
def test_crop_and_flip_are_torchvisions(spec: DatasetSpec, seed: int) -> None:
    images = torch.from_numpy(arrays(12, spec).images).view(
        3, 4, *arrays(12, spec).images.shape[1:]
    )
    crops = random_padded_crops(np.random.default_rng(seed), (3, 4), spec)
    assert spec.padding is not None
    got = crop_and_flip(images, crops)
    assert 0 < crops.mirrored.sum() < 12
    assert got.is_contiguous()
    for i in np.ndindex(3, 4):
        padded = TF.pad(images[i].movedim(-1, 0), [spec.padding])
        top, left = (spec.padding + int(at[i]) for at in (crops.top, crops.left))
        wanted = TF.crop(padded, top, left, spec.image_size, spec.image_size)
        if crops.mirrored[i]:
            wanted = TF.hflip(wanted)
        assert torch.equal(got[i].movedim(-1, 0), wanted)


@pytest.mark.parametrize("mirrored", [False, True])
def test_all_or_none_may_be_mirrored(mirrored: bool) -> None:
    images = torch.from_numpy(arrays().images)
    top, side = np.zeros(40, np.int64), np.full(40, 32)
    crops = Crops(top=top, left=top, height=side, width=side, mirrored=np.full(40, mirrored))
    got = crop_and_flip(images, crops)
    assert torch.equal(got, images.flip(2) if mirrored else images)


def test_crops_reach_every_offset_equally_and_half_are_mirrored() -> None:
    from scipy import stats

    crops = random_padded_crops(np.random.default_rng(0), (90_000,), CIFAR10)
    for offsets in (crops.top, crops.left):
        assert stats.chisquare(np.bincount(offsets + 4, minlength=9)).pvalue > 1e-4
    assert stats.binomtest(int(crops.mirrored.sum()), 90_000).pvalue > 1e-4
    assert not random_padded_crops(np.random.default_rng(0), (100,), DIGITS).mirrored.any()


def test_normalisation_is_torchvisions() -> None:
    data = ImageSet(in_memory(arrays()), CIFAR10, CPU, torch.float32)
    images = torch.from_numpy(arrays().images).movedim(-1, 1)
    wanted = TF.normalize(images / 255, list(CIFAR10.mean), list(CIFAR10.std))
    torch.testing.assert_close(seen(data, list(range(40))), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spec", [CIFAR10, DIGITS])
def test_normalisation_is_the_formula_to_the_last_bit(
    spec: DatasetSpec, dtype: torch.dtype
) -> None:
    data = ImageSet(in_memory(arrays(40, spec)), spec, CPU, dtype)
    indices = [3, 39, 3, 0, 1]
    assert torch.equal(seen(data, indices), plain(arrays(40, spec).images[indices], spec, dtype))


@pytest.mark.parametrize("augmented", [False, True])
def test_images_are_in_memory_channels_last(augmented: bool) -> None:
    data = training_set(augmented)
    for batch in first(6, range(1, 3), augmented=augmented):
        assert batch.images.shape == (2, 2, 3, 32, 32)
        for images in batch.images:
            assert images.is_contiguous(memory_format=torch.channels_last)
    for images, _ in data.in_batches(np.arange(7), 3):
        assert images.is_contiguous(memory_format=torch.channels_last)
    for images in data.batchnorm_images(0, 0, 3, 5, slice(0, 3)):
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_a_subset_shares_the_pixels() -> None:
    indices = np.array([5, 3, 39])
    whole = in_memory(arrays())
    part = whole.subset(indices)
    [(_, fetch)] = part.fetch(iter([Request(indices=np.arange(3), crops=None)]))
    assert np.array_equal(fetch().numpy(), arrays().images[indices])
    assert np.array_equal(part.labels, arrays().labels[indices])
    assert part._any_image is whole._any_image


def test_the_digits_mean_and_deviation_are_those_of_the_data() -> None:
    from sklearn.datasets import load_digits

    pixels = load_digits().images * 15 / 255
    assert DIGITS.mean[0] == pytest.approx(pixels.mean(), abs=1e-4)
    assert DIGITS.std[0] == pytest.approx(pixels.std(), abs=1e-4)


def test_each_client_gets_the_samples_that_the_sampler_deals_it() -> None:
    data, steps = arrays(), first(10, range(4), augmented=False)
    for step, batch in enumerate(steps):
        indices = SAMPLER.epoch(2 + step // 5)[step % 5]
        assert torch.equal(batch.labels, torch.from_numpy(data.labels[indices]))
        assert torch.equal(batch.images, plain(data.images[indices], CIFAR10, torch.float32))


@pytest.mark.parametrize("noise_p", [0.0, 0.4])
def test_batches_do_not_depend_on_processes_blocks_or_where_one_begins(
    noise_p: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = first(12, range(4), noise_p=noise_p)
    monkeypatch.setattr("trainer.data.training.BLOCK_BYTES", 1)  # one step a block
    assert BLOCK_BYTES > 1
    for clients in (range(2), range(2, 4), range(1, 2)):
        part = first(5, clients, start=7, noise_p=noise_p)
        for expected, got in zip(whole[7:], part, strict=True):
            own = slice(clients.start, clients.stop)
            assert torch.equal(expected.images[own], got.images)
            assert torch.equal(expected.labels[own], got.labels)
            assert np.array_equal(expected.seeds[own], got.seeds)


def test_seeds_are_new_for_each_step_and_client() -> None:
    seeds = np.stack([batch.seeds for batch in first(20, range(4))])
    assert len(np.unique(seeds)) == seeds.size == 80


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_no_batch(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.data.training.BLOCK_BYTES", 1)
    for expected, got in zip(
        first(12, range(4)), first(12, range(4), workers=workers), strict=True
    ):
        assert torch.equal(expected.images, got.images)
        assert torch.equal(expected.labels, got.labels)


def test_workers_are_threads_that_work_ahead_in_order() -> None:
    names, drawn = set(), []

    def work(item: int) -> int:
        names.add(threading.current_thread().name)
        time.sleep(0.02 if item % 2 else 0)
        return item

    items = (drawn.append(i) or i for i in range(9))
    results = prefetch(work, items, workers=3)
    assert next(results) == 0
    assert drawn == [0, 1, 2, 3]
    assert list(results) == list(range(1, 9))
    assert names and threading.current_thread().name not in names
    assert list(prefetch(work, iter(range(3)), workers=0)) == [0, 1, 2]
    assert threading.current_thread().name in names


def test_a_workers_failure_reaches_the_training() -> None:
    with pytest.raises(ZeroDivisionError):
        list(prefetch(lambda item: 1 // item, iter([1, 0, 1]), workers=2))


def test_label_noise_adds_the_drawn_offsets_anew_each_epoch() -> None:
    clean, noisy = first(10, range(4)), first(10, range(4), noise_p=0.5)
    for step, (a, b) in enumerate(zip(clean, noisy, strict=True)):
        offsets = label_offsets(4, 2 + step // 5, SAMPLER.shape, 0.5, 10)[step % 5]
        assert torch.equal(b.labels, (a.labels + torch.from_numpy(offsets)) % 10)
        assert torch.equal(a.images, b.images)


def test_batchnorm_batches_are_shared_by_the_processes_without_overlap() -> None:
    data = training_set()
    whole = list(data.batchnorm_images(0, 9, 7, 3, slice(0, 7)))
    for size in (1, 2, 3):
        dealt = [
            list(data.batchnorm_images(0, 9, 7, 3, slice(rank, 7, size))) for rank in range(size)
        ]
        for i, images in enumerate(whole):
            assert torch.equal(dealt[i % size][i // size], images)


def test_purposes_give_batchnorm_views_of_their_own() -> None:
    a = generator(0, Purpose.BATCHNORM, 5).random(4)
    b = generator(0, Purpose.BATCHNORM_VIEWS, 5).random(4)
    assert not np.array_equal(a, b)

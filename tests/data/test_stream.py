"""Test images that FFCV decodes against OpenCV, Pillow, FFCV itself and the memory loader."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trainer.data.beton.format import JPEG, RAW
from trainer.data.beton.reader import map_file, read_index
from trainer.data.crops import Crops, random_resized_crops
from trainer.data.images import ImageSet, Request
from trainer.data.sampling import Sampler
from trainer.data.specs import DATASETS, DatasetSpec
from trainer.data.stream import StreamedImages
from trainer.data.training import Batch, TrainingSet
from trainer.errors import UserError

pytestmark = pytest.mark.slow  # it begins early

CPU = torch.device("cpu")
PHOTOS, CIFAR10 = DATASETS["photos"], DATASETS["cifar10"]
SAMPLER = Sampler(seed=3, num_samples=480, num_clients=4, batch_size=3, steps_per_epoch=5)
ROUNDING = {JPEG: 8, RAW: 1}  # of a pixel: decoders of JPEG round differently


def streamed(path: Path, size: int = 32, workers: int = 1) -> StreamedImages:
    return StreamedImages(path, read_index(path), size, workers)


@pytest.fixture(scope="module")
def images(photos: Path) -> StreamedImages:
    return streamed(photos / "train.beton")


def pixels(images: StreamedImages, *requests: Request) -> list[NDArray[np.uint8]]:
    return [fetch().numpy() for _, fetch in images.fetch(iter(requests))]


def training_set(images: Any, spec: DatasetSpec = PHOTOS, **options: Any) -> TrainingSet:
    given = {"augmented": True, "noise_p": 0.0} | options
    return TrainingSet(images, spec, CPU, torch.float32, **given)


def first(images: Any, count: int, clients: range, start: int = 0, **options: Any) -> list[Batch]:
    return list(islice(training_set(images, **options).batches(SAMPLER, clients, start, 2), count))


def stored(path: Path, i: int) -> tuple[int, NDArray[np.uint8]]:
    """Return image ``i``'s mode in a .beton, and its pixels as Pillow decodes them."""
    index, raw = read_index(path), map_file(path)
    content = raw[index.pointers[i] : index.pointers[i] + index.sizes[i]]
    if index.modes[i] == JPEG:
        return JPEG, np.asarray(Image.open(io.BytesIO(content.tobytes())))
    return RAW, content.reshape(index.heights[i], index.widths[i], 3)


def cut_by_opencv(image: NDArray[np.uint8], crop: Crops, size: int) -> NDArray[np.uint8]:
    rows = slice(crop.top, crop.top + crop.height)
    columns = slice(crop.left, crop.left + crop.width)
    part = cv2.resize(image[rows, columns], (size, size), interpolation=cv2.INTER_AREA)
    return part[:, ::-1] if crop.mirrored else part


def test_a_part_is_cropped_resized_and_mirrored_as_opencv_does_it(photos: Path) -> None:
    path = photos / "train.beton"
    indices = np.arange(0, 480, 7)
    index = read_index(path)
    crops = random_resized_crops(
        np.random.default_rng(0), index.heights[indices], index.widths[indices], flip=True
    )
    [got] = pixels(streamed(path, size=24), Request(indices=indices, crops=crops))
    modes = set()
    for k, i in enumerate(indices):
        mode, image = stored(path, int(i))
        wanted = cut_by_opencv(image, crops[k], 24)
        assert np.abs(got[k].astype(int) - wanted).max() <= ROUNDING[mode]
        modes.add((mode, bool(crops.mirrored[k])))
    assert len(modes) == 4


@pytest.mark.slow
def test_evaluation_sees_ffcvs_own_centre_crops(photos: Path, images: StreamedImages) -> None:
    from ffcv.fields.decoders import CenterCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption

    theirs = Loader(
        str(photos / "train.beton"),
        batch_size=480,
        num_workers=1,
        order=OrderOption.SEQUENTIAL,
        pipelines={"image": [CenterCropRGBImageDecoder((32, 32), 224 / 256)], "label": None},
    )
    [(wanted,)] = ((batch.copy(),) for (batch,) in theirs)
    data = ImageSet(images, PHOTOS, CPU, torch.float64)
    seen = torch.cat([batch for batch, _ in data.in_batches(np.arange(480), 111)])
    mean, std = (255 * np.array(values) for values in (PHOTOS.mean, PHOTOS.std))
    np.testing.assert_allclose(seen.movedim(1, -1).numpy(), (wanted - mean) / std, atol=1e-12)


def test_batches_do_not_depend_on_processes_or_where_one_begins(images: StreamedImages) -> None:
    whole = first(images, 12, range(4))
    assert not torch.equal(whole[0].images, whole[5].images)
    for clients in (range(2), range(2, 4), range(3, 4)):
        part = first(images, 5, clients, start=7)
        for expected, got in zip(whole[7:], part, strict=True):
            own = slice(clients.start, clients.stop)
            assert torch.equal(expected.images[own], got.images)
            assert torch.equal(expected.labels[own], got.labels)


def test_each_client_gets_the_samples_that_the_sampler_deals_it(
    photos: Path, images: StreamedImages
) -> None:
    labels = read_index(photos / "train.beton").labels
    for step, batch in enumerate(first(images, 10, range(4))):
        indices = SAMPLER.epoch(2 + step // 5)[step % 5]
        assert torch.equal(batch.labels, torch.from_numpy(labels[indices]))


def test_neither_runs_nor_workers_change_a_batch(photos: Path, images: StreamedImages) -> None:
    """Check this also for a loader that is used for something else meanwhile."""
    expected = first(images, 8, range(4))
    two = streamed(photos / "train.beton", workers=2)
    interleaved = training_set(two).batches(SAMPLER, range(4), 0, 2)
    got = []
    for step in range(8):
        got.append(next(interleaved))
        list(training_set(two).batchnorm_images(0, step, 2, 5, slice(0, 2)))
    for a, b, c in zip(expected, got, first(images, 8, range(4), workers=2), strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.images, c.images)


def test_images_are_copied_before_ffcv_uses_their_memory_again(
    images: StreamedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Request images that take 15 reads each and keep several; FFCV has memory for five reads."""
    expected = first(images, 40, range(4))
    monkeypatch.setattr("trainer.data.stream.READ_AT_ONCE", 4)
    for a, b in zip(expected, first(images, 40, range(4)), strict=True):
        assert torch.equal(a.images, b.images)


def test_batchnorm_batches_are_shared_by_the_processes(images: StreamedImages) -> None:
    data = training_set(images)
    whole = list(data.batchnorm_images(0, 9, 7, 3, slice(0, 7)))
    dealt = [list(data.batchnorm_images(0, 9, 7, 3, slice(rank, 7, 2))) for rank in range(2)]
    for i, batch in enumerate(whole):
        assert torch.equal(dealt[i % 2][i // 2], batch)


@pytest.mark.parametrize("size", [1, 7, 250, 1000])
def test_every_image_is_evaluated_once(images: StreamedImages, size: int) -> None:
    own = [np.arange(rank, 480, 3) for rank in range(3)]
    data = ImageSet(images, PHOTOS, CPU, torch.float32)
    seen: list[Tensor] = []
    for indices in own:
        if size == 1:
            indices = indices[:5]
        parts = list(data.in_batches(indices, size))
        assert torch.equal(torch.cat([y for _, y in parts]), data.labels[torch.from_numpy(indices)])
        seen += [x for x, _ in parts]
    assert sum(len(x) for x in seen) == (15 if size == 1 else 480)


def test_a_subset_is_of_the_file(images: StreamedImages) -> None:
    part = images.subset(np.array([400, 3, 77]))
    [got] = pixels(part, Request(indices=np.array([2, 0]), crops=None))
    [wanted] = pixels(images, Request(indices=np.array([77, 400]), crops=None))
    assert np.array_equal(got, wanted)
    assert part.labels.tolist() == images.labels[[400, 3, 77]].tolist()


def test_torchs_threads_stay_as_they_were(photos: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first(streamed(photos / "train.beton"), 3, range(4))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_more_workers_than_cores_are_refused(photos: Path) -> None:
    with pytest.raises(UserError, match=r"nw 1000: this machine has \d+ cores"):
        streamed(photos / "train.beton", workers=1000)


def test_a_failure_in_ffcvs_thread_is_not_waited_for_and_says_why(
    images: StreamedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ffcv.loader.epoch_iterator import EpochIterator

    def failing(*_: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(EpochIterator, "run_pipeline", failing)
    with pytest.raises(RuntimeError, match="decoding thread failed") as raised:
        pixels(images, Request(indices=np.arange(3), crops=None))
    assert isinstance(raised.value.__cause__, MemoryError)

"""Prepared images to .beton files by FFCV's writer, verified; only this imports ffcv to write."""

from __future__ import annotations

import importlib.metadata
import math
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from trainer.data.beton import fingerprint, mapped
from trainer.data.beton_format import BetonIndex, parse
from trainer.data.folders import ImageFiles
from trainer.data.prepare import Arrays, read_prepared
from trainer.data.settings import BetonSettings
from trainer.data.sidecar import Sidecar, sidecar_path
from trainer.data.specs import SPLITS
from trainer.errors import UserError
from trainer.files import atomic

PAGE_BYTES = 2**21  # FFCV's smallest; its default would pad the digits to 16 MB
ESTIMATED = 64  # images that the need of disk space is estimated from
COMPARED = 1000  # image files that are compared with what was written; arrays all are


@dataclass
class Source:
    """What one split is written from, as FFCV's writer asks for it: (image, label) by index.

    ``longest``: the longer side that image files are reduced to, in pixels. ``reasons``: why a
    writer process gave up, for the process that waits for it.
    """

    images: Arrays | ImageFiles
    labels: NDArray[np.int64]
    classes: list[str]
    longest: int
    reasons: Any = field(default_factory=multiprocessing.SimpleQueue)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        try:
            return self.image(index), int(self.labels[index])
        except UserError as error:
            self.reasons.put(str(error))
            sys.exit(1)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Image ``index``, (H, W, C). Raises UserError for a file that cannot be read."""
        # FFCV asks numpy's global generator which images to compress: a function of the index.
        np.random.seed(index)
        if isinstance(self.images, Arrays):
            array: NDArray[np.uint8] = self.images.images[index]
            return array
        image = self.images.image(index)
        height, width, _ = image.shape
        if int(self.longest / max(height, width) * min(height, width)) == 0:
            raise UserError(
                f"{self.images.path(index)}: {width} × {height} pixels are too narrow to be "
                f"reduced to max_resolution {self.longest}; replace or remove it"
            )
        return image

    @property
    def of_files(self) -> bool:
        return isinstance(self.images, ImageFiles)

    def some(self, count: int) -> range:
        """About ``count`` indices, evenly spread."""
        return range(0, len(self), max(1, len(self) // count))


def write_betons(settings: BetonSettings) -> dict[str, Sidecar]:
    """``train.beton``, ``test.beton`` or both, with a JSON sidecar each; returns the sidecars.

    Each file is written to a temporary name, read back and compared with what it is made from,
    and only then renamed. Raises UserError where the disk is too small, before it is filled.
    """
    splits = [settings.split] if settings.split else SPLITS
    return {split: _write_beton(settings, split) for split in splits}


def _write_beton(settings: BetonSettings, split: str) -> Sidecar:
    path = settings.data_pth / f"{split}.beton"
    source = _source(settings, split)
    sidecar_path(path).unlink(missing_ok=True)
    image_field = _image_field(source, settings)
    _check_space(path, source, image_field)
    with atomic(path) as temporary:
        with _watched_workers(path, source):
            _write_with_ffcv(temporary, source, image_field, settings)
        _verify(temporary, path, source, image_field)
    counts = np.bincount(source.labels, minlength=len(source.classes))
    sidecar = Sidecar(
        arguments={"split": split, **_arguments(source, settings)},
        versions={name: importlib.metadata.version(name) for name in ("ffcv", "numpy")},
        samples=len(source),
        samples_per_class=dict(zip(source.classes, counts.tolist(), strict=True)),
        **fingerprint(path),
    )
    sidecar.write(path)
    return sidecar


def _arguments(source: Source, settings: BetonSettings) -> dict[str, Any]:
    """The settings that count for this source."""
    given = settings.model_dump(mode="json", exclude={"data_pth", "split"})
    return given if source.of_files else {"num_workers": settings.num_workers}


def _source(settings: BetonSettings, split: str) -> Source:
    folder, longest = settings.data_pth, settings.max_resolution
    if (listed := folder / f"{split}.json").exists():
        files = ImageFiles.read(listed)
        return Source(files, np.array(files.labels, np.int64), files.classes, longest)
    arrays, classes = read_prepared(folder / f"{split}.npz")
    return Source(arrays, arrays.labels, list(classes), longest)


def _image_field(source: Source, settings: BetonSettings) -> Any:
    from ffcv.fields import NDArrayField, RGBImageField

    if isinstance(source.images, ImageFiles):
        return RGBImageField(
            "proportion",
            max_resolution=settings.max_resolution,
            compress_probability=settings.compress_probability,
            jpeg_quality=settings.jpeg_quality,
        )
    shape = source.images.images.shape[1:]
    return RGBImageField() if shape[-1] == 3 else NDArrayField(np.dtype("uint8"), shape)


def _encoded(source: Source, image_field: Any, index: int) -> tuple[Any, NDArray[np.uint8]]:
    """The metadata and the bytes that FFCV stores for one image."""
    stored: list[NDArray[np.uint8]] = []

    def malloc(size: int) -> tuple[int, NDArray[np.uint8]]:
        stored.append(np.empty(size, np.uint8))
        return 0, stored[0]

    metadata = np.zeros(1, image_field.metadata_type)
    image_field.encode(metadata, source.image(index), malloc)
    return metadata[0], stored[0]


def _check_space(path: Path, source: Source, image_field: Any) -> None:
    sizes = [_encoded(source, image_field, i)[1].nbytes for i in source.some(ESTIMATED)]
    needed = int(np.mean(sizes) * len(source))
    free = shutil.disk_usage(path.parent).free
    size = partial(tqdm.format_sizeof, suffix="B", divisor=1000)
    print(f"{path}: about {size(needed)} of {size(free)} free", flush=True)
    if needed > free:
        smaller = ", lower max_resolution or raise compress_probability" if source.of_files else ""
        raise UserError(
            f"{path}: needs about {size(needed)}, {size(free)} are free; make room{smaller}"
        )


def _write_with_ffcv(path: Path, source: Source, image_field: Any, settings: BetonSettings) -> None:
    from ffcv.fields import IntField
    from ffcv.writer import DatasetWriter

    page_bytes = PAGE_BYTES
    if source.of_files:  # a page holds the largest image
        page_bytes = max(page_bytes, 2 ** math.ceil(math.log2(3 * settings.max_resolution**2)))
    writer = DatasetWriter(
        str(path),
        {"image": image_field, "label": IntField()},
        page_size=page_bytes,
        num_workers=settings.num_workers,
    )
    writer.from_indexed_dataset(source)


@contextmanager
def _watched_workers(path: Path, source: Source) -> Iterator[None]:
    """Raises UserError when a process started in here dies; FFCV would wait for it for ever."""
    done, died = threading.Event(), threading.Event()

    def watch() -> None:
        workers: set[BaseProcess] = set()
        while not done.wait(0.01):  # a small set is written within 100 ms
            workers |= set(multiprocessing.active_children())
            if any(worker.exitcode for worker in workers):
                died.set()
                os.kill(os.getpid(), signal.SIGINT)  # ends a blocked wait, too
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except KeyboardInterrupt:
        for worker in multiprocessing.active_children():
            worker.kill()
        if not died.is_set():
            raise
        print(file=sys.stderr)  # ends the line of FFCV's progress bar: the error begins its own
        if not source.reasons.empty():
            raise UserError(source.reasons.get()) from None
        raise UserError(
            f"{path}: a writer process died (its reason is above); make room or memory, try again"
        ) from None
    finally:
        done.set()
        watcher.join()


def _verify(written: Path, path: Path, source: Source, image_field: Any) -> None:
    """Raises UserError unless ``written`` holds all labels, and the bytes of its images.

    Of all arrays, of some files, since each is decoded and compressed again; that every sample lies
    inside the file, ``parse`` has seen.
    """
    raw = mapped(written)
    try:
        index = parse(raw)
    except ValueError as error:
        raise UserError(f"{path}: damaged while it was written ({error}); check the disk") from None
    if not np.array_equal(index.labels, source.labels):
        raise UserError(f"{path}: labels differ from their source after writing; check the disk")
    for i in source.some(COMPARED if source.of_files else len(source)):
        metadata, wanted = _encoded(source, image_field, i)
        stored = raw[index.pointers[i] : index.pointers[i] + index.sizes[i]]
        if not (_described(index, i, metadata) and np.array_equal(stored, wanted)):
            raise UserError(
                f"{path}: image {i} differs from its source after writing; check the disk"
            )


def _described(index: BetonIndex, i: int, metadata: Any) -> bool:
    """Whether the index says of image ``i`` what FFCV says of it."""
    if metadata.dtype.names is None:  # of an array, whose shape is the field's
        return True
    wanted = tuple(int(metadata[name]) for name in ("mode", "height", "width"))
    return (int(index.modes[i]), int(index.heights[i]), int(index.widths[i])) == wanted

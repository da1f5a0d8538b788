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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from trainer.data.beton.format import BetonIndex, parse
from trainer.data.beton.reader import fingerprint, mapped
from trainer.data.beton.sidecar import Sidecar
from trainer.data.beton.source import Source, read_source
from trainer.data.preparation.folders import ImageFiles
from trainer.data.specs import SPLITS
from trainer.errors import UserError
from trainer.files.atomic import atomic, writing
from trainer.settings.commands import BetonSettings

PAGE_BYTES = 2**21  # FFCV's smallest; its default would pad the digits to 16 MB
ESTIMATED = 64  # images that the need of disk space is estimated from
COMPARED = 1000  # image files that are compared with what was written; arrays all are


def write_betons(settings: BetonSettings) -> dict[str, Sidecar]:
    """``train.beton``, ``test.beton`` or both, with a JSON sidecar each; returns the sidecars.

    Each file is written to a temporary name, read back and compared with what it is made from,
    and only then renamed. Raises UserError where the disk is too small, before it is filled.
    """
    splits = [settings.split] if settings.split else SPLITS
    return {split: _write_beton(settings, split) for split in splits}


def _write_beton(settings: BetonSettings, split: str) -> Sidecar:
    path = settings.data_pth / f"{split}.beton"
    source = read_source(path, settings.max_resolution)
    image_field = _image_field(source, settings)
    _check_space(source, image_field)
    with atomic(path) as temporary:
        with _watched_workers(source):
            _write_with_ffcv(temporary, source, image_field, settings)
        _verify(temporary, source, image_field)
        counts = np.bincount(source.labels, minlength=len(source.classes))
        sidecar = Sidecar(
            arguments={"split": split, **_arguments(source, settings)},
            versions={name: importlib.metadata.version(name) for name in ("ffcv", "numpy")},
            samples=len(source),
            samples_per_class=dict(zip(source.classes, counts.tolist(), strict=True)),
            conversions=source.conversions,
            **fingerprint(temporary),
        )
        # First: where it cannot be written, the old files stay, and fit together.
        sidecar.write(path)
    return sidecar


def _arguments(source: Source, settings: BetonSettings) -> dict[str, Any]:
    """The settings that count for this source."""
    given = settings.model_dump(mode="json", exclude={"data_pth", "split"})
    return given if source.of_files else {"num_workers": settings.num_workers}


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
    image_field.encode(metadata, source.image(index)[0], malloc)
    return metadata[0], stored[0]


def _check_space(source: Source, image_field: Any) -> None:
    sizes = [_encoded(source, image_field, i)[1].nbytes for i in source.some(ESTIMATED)]
    needed = int(np.mean(sizes) * len(source))
    free = shutil.disk_usage(source.beton.parent).free
    size = partial(tqdm.format_sizeof, suffix="B", divisor=1000)
    print(f"{source.beton}: about {size(needed)} of {size(free)} free", flush=True)
    if needed > free:
        smaller = ", lower max_resolution or raise compress_probability" if source.of_files else ""
        raise UserError(
            f"{source.beton}: needs about {size(needed)}, {size(free)} are free; make room{smaller}"
        )


def _write_with_ffcv(path: Path, source: Source, image_field: Any, settings: BetonSettings) -> None:
    from ffcv.fields import IntField
    from ffcv.writer import DatasetWriter

    class Writer(DatasetWriter):  # type: ignore[misc]
        """Its processes say why they give up."""

        def _write_common(self, count: int, queue: Any, job: Any, arguments: Any) -> None:
            super()._write_common(count, queue, partial(_share, job), arguments)

    page_bytes = PAGE_BYTES
    if source.of_files:  # a page holds the largest image
        page_bytes = max(page_bytes, 2 ** math.ceil(math.log2(3 * settings.max_resolution**2)))
    writer = Writer(
        str(path),
        {"image": image_field, "label": IntField()},
        page_size=page_bytes,
        num_workers=settings.num_workers,
    )
    writer.from_indexed_dataset(source)


def _share(job: Callable[..., None], *arguments: Any) -> None:
    """A writer process's part of FFCV's work; the last of ``arguments`` is the source."""
    source: Source = arguments[-1]
    try:
        with writing(source.beton):
            job(*arguments)
    except UserError as error:
        source.reasons.put(str(error))
        sys.exit(1)


class _WriterDiedError(Exception):
    """Raised in the main thread, whatever it waits for."""


@contextmanager
def _watched_workers(source: Source) -> Iterator[None]:
    """Raises UserError when a process started in here dies; FFCV would wait for it for ever."""
    done = threading.Event()

    def watch() -> None:
        workers: set[BaseProcess] = set()
        while not done.wait(0.01):  # a small set is written within 100 ms
            workers |= set(multiprocessing.active_children())
            if any(worker.exitcode for worker in workers):
                os.kill(os.getpid(), signal.SIGUSR1)  # ends a blocked wait, too
                return

    def died(number: int, frame: FrameType | None) -> None:
        raise _WriterDiedError

    # Not SIGINT: whatever nohup or a script's & starts ignores it.
    before = signal.signal(signal.SIGUSR1, died)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        try:
            yield
        finally:
            done.set()
            watcher.join()
    except (KeyboardInterrupt, _WriterDiedError) as error:
        for worker in multiprocessing.active_children():
            worker.kill()
        if isinstance(error, KeyboardInterrupt):
            raise
        print(file=sys.stderr)  # ends the line of FFCV's progress bar: the error begins its own
        if not source.reasons.empty():
            raise UserError(source.reasons.get()) from None
        raise UserError(
            f"{source.beton}: a writer process died (its reason is above); make room or memory, "
            "try again"
        ) from None
    finally:
        signal.signal(signal.SIGUSR1, before)


def _verify(written: Path, source: Source, image_field: Any) -> None:
    """Raises UserError unless ``written`` holds all labels, and the bytes of its images.

    Of all arrays, of some files, since each is decoded and compressed again; that every sample lies
    inside the file, ``parse`` has seen.
    """
    raw = mapped(written)
    try:
        index = parse(raw)
    except ValueError as error:
        raise UserError(
            f"{source.beton}: damaged while it was written ({error}); check the disk"
        ) from None
    if not np.array_equal(index.labels, source.labels):
        raise UserError(
            f"{source.beton}: labels differ from their source after writing; check the disk"
        )
    for i in source.some(COMPARED if source.of_files else len(source)):
        metadata, wanted = _encoded(source, image_field, i)
        stored = raw[index.pointers[i] : index.pointers[i] + index.sizes[i]]
        if not (_described(index, i, metadata) and np.array_equal(stored, wanted)):
            raise UserError(
                f"{source.beton}: image {i} differs from its source after writing; check the disk"
            )


def _described(index: BetonIndex, i: int, metadata: Any) -> bool:
    """Whether the index says of image ``i`` what FFCV says of it."""
    if metadata.dtype.names is None:  # of an array, whose shape is the field's
        return True
    wanted = tuple(int(metadata[name]) for name in ("mode", "height", "width"))
    return (int(index.modes[i]), int(index.heights[i]), int(index.widths[i])) == wanted

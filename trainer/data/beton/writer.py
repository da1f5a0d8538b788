"""Write prepared images to .beton files with FFCV's writer, and verify them."""

import importlib.metadata
import math
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from trainer.data.beton.format import BetonIndex
from trainer.data.beton.reader import make_sidecar, map_file, parse_file
from trainer.data.beton.sidecar import ImageEncoding, Sidecar
from trainer.data.beton.source import Source, read_source
from trainer.data.preparation.prepared import ImageFiles
from trainer.data.specs import SPLITS
from trainer.errors import UserError
from trainer.files.atomic import atomic, writing

PAPER = ImageEncoding()
PAGE_BYTES = 2**21  # FFCV's smallest; its default would pad the digits to 16 MB
ESTIMATED = 64  # images from which the disk space needed is estimated
COMPARED = 1000  # image files that are encoded again to verify a .beton; of arrays all are


def write_betons(
    folder: Path,
    encoding: ImageEncoding = PAPER,
    splits: Sequence[str] = SPLITS,
    num_workers: int = 1,
) -> dict[str, Sidecar]:
    """Write the .beton files of ``splits`` to ``folder``, with a sidecar each; return the sidecars.

    Each file is written to a temporary name, read back and compared with its source, and only then
    renamed. Raises UserError where the disk is too small, before it is filled.
    """
    return {
        split: _write_beton(folder / f"{split}.beton", split, encoding, num_workers)
        for split in splits
    }


def _write_beton(path: Path, split: str, encoding: ImageEncoding, num_workers: int) -> Sidecar:
    source = read_source(path, encoding.max_resolution)
    # Arrays are stored unchanged, whatever the encoding.
    encoded_with = asdict(encoding) if source.of_files else {}
    image_field = _make_image_field(source, encoding)
    _check_space(source, image_field)
    with atomic(path) as temporary:
        with _worker_deaths_as_user_errors(source):
            _write_with_ffcv(temporary, source, image_field, num_workers)
        _verify(temporary, source, image_field)
        sidecar = make_sidecar(
            temporary,
            source.labels,
            source.classes,
            arguments={"split": split, **encoded_with, "num_workers": num_workers},
            versions={name: importlib.metadata.version(name) for name in ("ffcv", "numpy")},
            conversions=source.conversions,
        )
        # Before the rename: if the sidecar cannot be written, the old pair of files stays.
        sidecar.write(path)
    return sidecar


def _make_image_field(source: Source, encoding: ImageEncoding) -> Any:
    from ffcv.fields import NDArrayField, RGBImageField

    if isinstance(source.images, ImageFiles):
        return RGBImageField("proportion", **asdict(encoding))
    shape = source.images.images.shape[1:]
    return RGBImageField() if shape[-1] == 3 else NDArrayField(np.dtype("uint8"), shape)


def _encode(source: Source, image_field: Any, index: int) -> tuple[Any, NDArray[np.uint8]]:
    """Return the metadata and the bytes that FFCV stores for one image."""
    stored: list[NDArray[np.uint8]] = []

    def malloc(size: int) -> tuple[int, NDArray[np.uint8]]:
        stored.append(np.empty(size, np.uint8))
        return 0, stored[0]

    metadata = np.zeros(1, image_field.metadata_type)
    image_field.encode(metadata, source.image(index)[0], malloc)
    return metadata[0], stored[0]


def _check_space(source: Source, image_field: Any) -> None:
    sizes = [_encode(source, image_field, i)[1].nbytes for i in source.sample_indices(ESTIMATED)]
    needed = int(np.mean(sizes) * len(source))
    free = shutil.disk_usage(source.beton.parent).free
    size = partial(tqdm.format_sizeof, suffix="B", divisor=1000)
    print(f"{source.beton}: about {size(needed)} of {size(free)} free", flush=True)
    if needed > free:
        smaller = ", lower max_resolution or raise compress_probability" if source.of_files else ""
        raise UserError(
            f"{source.beton}: needs about {size(needed)}, {size(free)} are free; make room{smaller}"
        )


def _write_with_ffcv(path: Path, source: Source, image_field: Any, num_workers: int) -> None:
    from ffcv.fields import IntField
    from ffcv.writer import DatasetWriter

    class Writer(DatasetWriter):  # type: ignore[misc]
        """Make writer processes report why they give up."""

        def _write_common(self, count: int, queue: Any, job: Any, arguments: Any) -> None:
            super()._write_common(count, queue, partial(_run_job, job), arguments)

    page_bytes = PAGE_BYTES
    if source.of_files:  # a page holds the largest image
        page_bytes = max(page_bytes, 2 ** math.ceil(math.log2(3 * source.max_resolution**2)))
    writer = Writer(
        str(path),
        {"image": image_field, "label": IntField()},
        page_size=page_bytes,
        num_workers=num_workers,
    )
    writer.from_indexed_dataset(source)


def _run_job(job: Callable[..., None], *arguments: Any) -> None:
    """Run a writer process's part of FFCV's work; the last of ``arguments`` is the source."""
    source: Source = arguments[-1]
    try:
        with writing(source.beton):
            job(*arguments)
    except UserError as error:
        source.errors.put(str(error))
        sys.exit(1)


class _WriterDiedError(Exception):
    """Interrupt the main thread, whatever it waits for."""


@contextmanager
def _worker_deaths_as_user_errors(source: Source) -> Iterator[None]:
    """Raise UserError when a process started within dies; FFCV would wait for it forever."""
    done = threading.Event()

    def watch() -> None:
        workers: set[BaseProcess] = set()
        while not done.wait(0.01):  # a small set is written within 100 ms
            workers |= set(multiprocessing.active_children())
            if any(worker.exitcode for worker in workers):
                os.kill(os.getpid(), signal.SIGUSR1)  # interrupts a blocked wait, too
                return

    def raise_died(number: int, frame: FrameType | None) -> None:
        raise _WriterDiedError

    # Not SIGINT: processes started by nohup or by a script's & ignore it.
    before = signal.signal(signal.SIGUSR1, raise_died)
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
        print(file=sys.stderr)  # ends the line of FFCV's progress bar
        if not source.errors.empty():
            raise UserError(source.errors.get()) from None
        raise UserError(
            f"{source.beton}: a writer process died (its reason is above); free disk space or "
            "memory and try again"
        ) from None
    finally:
        signal.signal(signal.SIGUSR1, before)


def _verify(written: Path, source: Source, image_field: Any) -> None:
    """Raise UserError unless ``written`` holds all labels and the right bytes of images.

    Arrays are compared in full; of image files, which must be decoded and compressed again, about
    ``COMPARED``. ``parse`` checks that every sample lies inside the file.
    """
    raw = map_file(written)
    index = parse_file(raw, source.beton, "damaged during writing, check the disk")
    if not np.array_equal(index.labels, source.labels):
        raise UserError(
            f"{source.beton}: labels differ from their source after writing; check the disk"
        )
    for i in source.sample_indices(COMPARED if source.of_files else len(source)):
        metadata, wanted = _encode(source, image_field, i)
        stored = raw[index.pointers[i] : index.pointers[i] + index.sizes[i]]
        if not (_matches_metadata(index, i, metadata) and np.array_equal(stored, wanted)):
            raise UserError(
                f"{source.beton}: image {i} differs from its source after writing; check the disk"
            )


def _matches_metadata(index: BetonIndex, i: int, metadata: Any) -> bool:
    """Check that the index describes image ``i`` as FFCV does."""
    if metadata.dtype.names is None:  # an array: the field holds its shape
        return True
    wanted = tuple(int(metadata[name]) for name in ("mode", "height", "width"))
    return (int(index.modes[i]), int(index.heights[i]), int(index.widths[i])) == wanted

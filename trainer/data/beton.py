"""FFCV's .beton files: written through its ``DatasetWriter``, read without it.

Importing ffcv takes seconds (numba), so that reading a set that fits in memory follows the file
format directly (https://github.com/libffcv/ffcv, ``ffcv/types.py`` and ``ffcv/writer.py``, version
2): header, field descriptors, one metadata row per sample with pointers into pages of pixels.
"""

from __future__ import annotations

import importlib.metadata
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.prepare import SPLITS, Arrays, read_prepared
from trainer.data.samples import Samples
from trainer.data.settings import BetonSettings
from trainer.errors import UserError
from trainer.files import atomic, sha256, write_json

VERSION = 2
RGB_IMAGE, ND_ARRAY = 2, 4
RAW_MODE = 1
PAGE_BYTES = 2**21  # FFCV's smallest; its default would pad the digits to 16 MB
HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ],
    align=True,
)
FIELD = np.dtype([("type", "u1"), ("name", "u1", 16), ("arguments", "u1", 1024)], align=True)
IMAGE_METADATA = {
    RGB_IMAGE: np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("pointer", "<u8")]),
    ND_ARRAY: np.dtype([("pointer", "<u8")]),
}


def write_betons(settings: BetonSettings) -> dict[str, dict[str, Any]]:
    """``train.beton`` and ``test.beton`` with a JSON sidecar each; returns the sidecars.

    Each file is written to a temporary name, read back and compared with the prepared arrays
    (count, labels, pixels), and only then renamed.
    """
    return {split: _write_beton(settings, split) for split in SPLITS}


def sidecar_path(beton: Path) -> Path:
    return beton.with_suffix(".beton.json")


def read_beton(path: Path) -> Samples:
    """All samples of a .beton of raw RGB images or uint8 arrays and integer labels.

    The pixels stay in the file, mapped: it may be replaced in the meantime (by `beton`, which
    renames), but not written to.

    Raises UserError when the file is missing, truncated, changed since it was written (by its
    sidecar's size and SHA-256) or of another kind.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; make it with `prepare` and `beton`")
    _check_sidecar(path)
    try:
        return _parse(_mapped(path))
    except (ValueError, IndexError, OverflowError) as error:
        raise UserError(
            f"{path}: not a whole .beton ({error}); delete it and run `beton`"
        ) from None


def _write_beton(settings: BetonSettings, split: str) -> dict[str, Any]:
    source = settings.data_pth / f"{split}.npz"
    path = settings.data_pth / f"{split}.beton"
    arrays, classes = read_prepared(source)
    sidecar_path(path).unlink(missing_ok=True)
    with atomic(path) as temporary:
        _write_with_ffcv(temporary, arrays, settings.num_workers)
        written = _parse(_mapped(temporary)).arrays()
        if not np.array_equal(written.labels, arrays.labels):
            raise UserError(f"{path}: labels differ from {source} after writing; check the disk")
        if not np.array_equal(written.images, arrays.images):
            raise UserError(f"{path}: pixels differ from {source} after writing; check the disk")
    counts = np.bincount(arrays.labels, minlength=len(classes))
    sidecar = {
        "arguments": {"split": split, "num_workers": settings.num_workers},
        "versions": {name: importlib.metadata.version(name) for name in ("ffcv", "numpy")},
        "samples": len(arrays.labels),
        "samples_per_class": dict(zip(classes, counts.tolist(), strict=True)),
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
    }
    write_json(sidecar_path(path), sidecar)
    return sidecar


def _write_with_ffcv(path: Path, arrays: Arrays, num_workers: int) -> None:
    from ffcv.fields import IntField, NDArrayField, RGBImageField
    from ffcv.writer import DatasetWriter

    shape = arrays.images.shape[1:]
    image = RGBImageField() if shape[-1] == 3 else NDArrayField(np.dtype("uint8"), shape)
    writer = DatasetWriter(
        str(path),
        {"image": image, "label": IntField()},
        page_size=PAGE_BYTES,
        num_workers=num_workers,
    )
    with _watched_workers(path):
        writer.from_indexed_dataset(list(zip(arrays.images, arrays.labels.tolist(), strict=True)))


@contextmanager
def _watched_workers(path: Path) -> Iterator[None]:
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
        raise UserError(
            f"{path}: a writer process died (its reason is above); make room or memory, try again"
        ) from None
    finally:
        done.set()
        watcher.join()


def _check_sidecar(path: Path) -> None:
    try:
        sidecar = json.loads(sidecar_path(path).read_text("utf-8"))
        size, digest = sidecar["bytes"], sidecar["sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{sidecar_path(path)}: missing or damaged ({error}); run `beton` again"
        ) from None
    if path.stat().st_size != size:
        raise UserError(
            f"{path}: truncated or changed ({path.stat().st_size} bytes, written with {size}); "
            "delete it and run `beton` again"
        )
    if sha256(path) != digest:
        raise UserError(f"{path}: content changed since it was written; run `beton` again")


def _mapped(path: Path) -> NDArray[np.uint8]:
    # "c", not "r": what torch makes of it must be writable, and no write would reach the file.
    return np.memmap(path, np.uint8, mode="c")


def _parse(raw: NDArray[np.uint8]) -> Samples:
    header = _records(raw, 0, HEADER, 1)[0]
    if header["version"] != VERSION or header["num_fields"] != 2:
        raise ValueError(f"format version {header['version']}, {header['num_fields']} fields")
    fields = _records(raw, HEADER.itemsize, FIELD, 2)
    kind = int(fields[0]["type"])
    if kind not in IMAGE_METADATA:
        raise ValueError(f"field type {kind} is neither an RGB image nor an array")
    metadata = _records(
        raw,
        HEADER.itemsize + fields.nbytes,
        np.dtype([("image", IMAGE_METADATA[kind]), ("label", "<i8")], align=True),
        int(header["num_samples"]),
    )
    images = metadata["image"]
    samples = Samples(
        content=raw,
        starts=images["pointer"].astype(np.int64),
        shape=_image_shape(kind, fields[0], images),
        labels=metadata["label"].astype(np.int64),
    )
    first, last = int(samples.starts.min()), int(samples.starts.max())
    if first < 0 or last + samples.image_bytes > len(raw):
        raise ValueError(f"ends at byte {len(raw)}, samples lie beyond it")
    return samples


def _image_shape(kind: int, field: Any, images: NDArray[Any]) -> tuple[int, int, int]:
    if kind == ND_ARRAY:
        sizes = field["arguments"][: 32 * 8].view("<u8")
        height, width, channels = (int(size) for size in sizes[sizes > 0])
        return height, width, channels
    if len(np.unique(images[["mode", "width", "height"]])) != 1 or images["mode"][0] != RAW_MODE:
        raise ValueError("images are compressed or of several sizes")
    return int(images["height"][0]), int(images["width"][0]), 3


def _records(raw: NDArray[np.uint8], start: int, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    stop = start + dtype.itemsize * count
    if stop > len(raw):
        raise ValueError(f"ends at byte {len(raw)}, expected at least {stop}")
    return raw[start:stop].view(dtype)

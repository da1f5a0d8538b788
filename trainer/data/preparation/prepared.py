"""Read and write prepared arrays, ``train.npz`` and ``test.npz``.

Each holds ``images`` (N, H, W, C) uint8, ``labels`` (N,) int64 and ``classes`` (names in label
order).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import UserError
from trainer.files.atomic import atomic, reading


@dataclass(frozen=True)
class Arrays:
    """Hold ``images`` (N, H, W, C) uint8 and ``labels`` (N,) int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def write_prepared(path: Path, arrays: Arrays, classes: Sequence[str]) -> None:
    """Write arrays with their class names, in label order."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(file, images=arrays.images, labels=arrays.labels, classes=list(classes))


def read_prepared(path: Path) -> tuple[Arrays, tuple[str, ...]]:
    """Read the arrays and class names that ``prepare`` wrote to ``path``.

    Raises UserError for a file that is missing, damaged or holds anything else.
    """
    with reading(path, "run `prepare` again"):
        file = path.open("rb")
    try:
        with file, np.lib.npyio.NpzFile(file, allow_pickle=False) as content:
            images, labels, classes = (content[name] for name in ("images", "labels", "classes"))
    except Exception as error:  # whatever a stray file provokes in numpy, zipfile and zlib
        fault: str | None = str(error) or type(error).__name__
    else:
        fault = _find_fault(images, labels, classes)
    if fault is not None:
        raise UserError(f"{path}: damaged ({fault}); run `prepare` again")
    return Arrays(images, labels), tuple(map(str, classes))


def _find_fault(images: NDArray[Any], labels: NDArray[Any], classes: NDArray[Any]) -> str | None:
    """Describe what is wrong with the layout of prepared arrays."""
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        return f"images are {images.dtype} of shape {images.shape}, not uint8 (N, H, W, C)"
    if classes.dtype.kind != "U" or classes.ndim != 1 or len(set(classes)) < len(classes):
        return "classes are not a list of different names"
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        return f"labels are {labels.dtype} of shape {labels.shape}, not int64 (N,)"
    if labels.min() < 0 or labels.max() >= len(classes):
        return f"labels from {labels.min()} to {labels.max()}, but {len(classes)} classes"
    return None

"""The .beton files of a run: checked against what was noted when they were written, then read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.beton.format import BetonIndex, index_bytes, parse
from trainer.data.beton.sidecar import Sidecar, read_sidecar
from trainer.data.samples import Samples
from trainer.data.specs import SPLITS
from trainer.errors import UserError
from trainer.files.atomic import reading, sha256

# Larger ones are not read from end to end at each start: size, index and table of contents are.
HASHED_BYTES = 2**30


def fingerprint(path: Path) -> dict[str, Any]:
    """What the sidecar notes of the file, to know it again."""
    raw = mapped(path)
    return {"bytes": path.stat().st_size, "sha256": sha256(path), "index_sha256": _index_hash(raw)}


def read_index(path: Path) -> BetonIndex:
    """What a .beton says of its samples.

    Raises UserError when the file is missing, truncated, changed since it was written (by its
    sidecar), of another kind or of the other split than its name.
    """
    with reading(path, "make it with `prepare` and `beton`, or check the path"):
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
        noted = read_sidecar(path)
        if size != noted.bytes:
            raise UserError(
                f"{path}: truncated or changed ({size} bytes, written with {noted.bytes}); "
                "delete it and run `beton` again"
            )
        raw = mapped(path)
    try:
        index = parse(raw)
        same = _index_hash(raw) == noted.index_sha256
    except (ValueError, IndexError, OverflowError) as error:
        raise UserError(
            f"{path}: not a whole .beton ({error}); delete it and run `beton`"
        ) from None
    if same and size <= HASHED_BYTES:
        same = sha256(path) == noted.sha256
    if not same:
        raise UserError(f"{path}: content changed since it was written; run `beton` again")
    _check_labels(path, index, noted)
    if path.stem in SPLITS and path.stem != noted.split:
        raise UserError(
            f"{path}: was written as {noted.split}.beton; put it back, or run `beton` again"
        )
    return index


def read_beton(path: Path) -> Samples:
    """All samples of a .beton of raw images of one size.

    The pixels stay in the file, mapped: it may be replaced in the meantime (by `beton`, which
    renames), but not written to. Raises UserError as ``read_index`` does, and for other images.
    """
    index = read_index(path)
    shape = index.one_shape
    if shape is None:
        raise UserError(
            f"{path}: images are compressed or of several sizes, which needs loader ffcv"
        )
    return Samples(content=mapped(path), starts=index.pointers, shape=shape, labels=index.labels)


def class_names(path: Path) -> list[str]:
    """In label order, as noted when the .beton was written."""
    return list(read_sidecar(path).samples_per_class)


def noted_digest(path: Path) -> str:
    """The SHA-256 of a .beton as it was written."""
    return read_sidecar(path).sha256


def mapped(path: Path) -> NDArray[np.uint8]:
    # "c", not "r": what torch makes of it must be writable, and no write would reach the file.
    return np.memmap(path, np.uint8, mode="c")


def _check_labels(path: Path, index: BetonIndex, noted: Sidecar) -> None:
    wanted = list(noted.samples_per_class.values())
    known = (index.labels >= 0) & (index.labels < len(wanted))
    if not known.all() or np.bincount(index.labels, minlength=len(wanted)).tolist() != wanted:
        raise UserError(
            f"{path}: its labels are not those that were noted (samples_per_class); "
            "run `beton` again"
        )


def _index_hash(raw: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256()
    for part in index_bytes(raw):
        digest.update(part.data)
    return digest.hexdigest()

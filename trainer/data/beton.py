"""The .beton files of a run: checked against what was noted when they were written, then read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.beton_format import BetonIndex, index_bytes, parse
from trainer.data.samples import Samples
from trainer.errors import UserError
from trainer.files import sha256

# Larger ones are not read from end to end at each start: size, index and table of contents are.
HASHED_BYTES = 2**30
NOTED = ("bytes", "sha256", "index_sha256", "samples_per_class")


def sidecar_path(beton: Path) -> Path:
    return beton.with_suffix(".beton.json")


def fingerprint(path: Path) -> dict[str, Any]:
    """What the sidecar notes of the file, to know it again."""
    raw = mapped(path)
    return {"bytes": path.stat().st_size, "sha256": sha256(path), "index_sha256": _index_hash(raw)}


def read_index(path: Path) -> BetonIndex:
    """What a .beton says of its samples.

    Raises UserError when the file is missing, truncated, changed since it was written (by its
    sidecar) or of another kind.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; make it with `prepare` and `beton`")
    noted = _noted(path)
    if path.stat().st_size != noted["bytes"]:
        raise UserError(
            f"{path}: truncated or changed ({path.stat().st_size} bytes, written with "
            f"{noted['bytes']}); delete it and run `beton` again"
        )
    try:
        raw = mapped(path)
        index = parse(raw)
        same = _index_hash(raw) == noted["index_sha256"]
    except (ValueError, IndexError, OverflowError) as error:
        raise UserError(
            f"{path}: not a whole .beton ({error}); delete it and run `beton`"
        ) from None
    if same and noted["bytes"] <= HASHED_BYTES:
        same = sha256(path) == noted["sha256"]
    if not same:
        raise UserError(f"{path}: content changed since it was written; run `beton` again")
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
    return list(_noted(path)["samples_per_class"])


def noted_digest(path: Path) -> str:
    """The SHA-256 of a .beton as it was written."""
    return str(_noted(path)["sha256"])


def mapped(path: Path) -> NDArray[np.uint8]:
    # "c", not "r": what torch makes of it must be writable, and no write would reach the file.
    return np.memmap(path, np.uint8, mode="c")


def _noted(path: Path) -> dict[str, Any]:
    try:
        noted = json.loads(sidecar_path(path).read_text("utf-8"))
        return {name: noted[name] for name in NOTED}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{sidecar_path(path)}: missing or damaged ({error}); run `beton` again"
        ) from None


def _index_hash(raw: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256()
    for part in index_bytes(raw):
        digest.update(part.data)
    return digest.hexdigest()

"""Check .beton files against their sidecars, then read them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.beton.format import BetonIndex, hash_index, parse
from trainer.data.beton.sidecar import Sidecar, read_sidecar
from trainer.data.memory import Samples
from trainer.data.specs import SPLITS
from trainer.errors import UserError
from trainer.files.atomic import reading, sha256

# Larger files are not hashed at each start; their size, index and allocation table are checked.
HASHED_BYTES = 2**30


def make_sidecar(path: Path, labels: NDArray[np.int64], classes: list[str], **made: Any) -> Sidecar:
    """Make the sidecar of a .beton; ``made``: the fields on how it was written."""
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    per_class = dict(zip(classes, counts, strict=True))
    return Sidecar(samples=len(labels), samples_per_class=per_class, **fingerprint(path), **made)


def fingerprint(path: Path) -> dict[str, Any]:
    """Return the size and digests by which a sidecar identifies the file."""
    raw = map_file(path)
    return {"bytes": len(raw), "sha256": sha256(path), "index_sha256": hash_index(raw)}


def parse_file(raw: NDArray[np.uint8], path: Path, fix: str) -> BetonIndex:
    """Parse the content of ``path``. Raises UserError that ends in ``fix`` if it is no .beton."""
    try:
        return parse(raw)
    except (ValueError, IndexError, OverflowError) as error:
        raise UserError(f"{path}: not a complete .beton ({error}); {fix}") from None


def read_index(path: Path) -> BetonIndex:
    """Read a .beton's index after checking the file against its sidecar.

    Raises UserError when the file is missing, truncated, changed since it was written, of another
    kind or of another split than its name says.
    """
    with reading(path, "make it with `prepare` and `beton`, or check the path"):
        raw = map_file(path)
    sidecar = read_sidecar(path)
    if len(raw) != sidecar.bytes:
        raise UserError(
            f"{path}: truncated or changed ({len(raw)} bytes, written with {sidecar.bytes}); "
            "delete it and run `beton` again"
        )
    index = parse_file(raw, path, "delete it and run `beton`")
    same = hash_index(raw) == sidecar.index_sha256
    if same and len(raw) <= HASHED_BYTES:
        same = sha256(path) == sidecar.sha256
    if not same:
        raise UserError(f"{path}: content changed since it was written; run `beton` again")
    wanted = list(sidecar.samples_per_class.values())
    known = (index.labels >= 0) & (index.labels < len(wanted))
    if not known.all() or np.bincount(index.labels, minlength=len(wanted)).tolist() != wanted:
        raise UserError(
            f"{path}: its labels differ from samples_per_class in its sidecar; run `beton` again"
        )
    if path.stem in SPLITS and path.stem != sidecar.split:
        raise UserError(
            f"{path}: was written as {sidecar.split}.beton; put it back, or run `beton` again"
        )
    return index


def read_beton(path: Path) -> Samples:
    """Read all samples of a .beton of raw images of one size.

    The pixels stay in the mapped file, which may be replaced meanwhile (`beton` renames), but not
    written to. Raises UserError as ``read_index`` does, and for other images.
    """
    index = read_index(path)
    shape = index.one_shape
    if shape is None:
        raise UserError(
            f"{path}: images are compressed or of several sizes, which needs loader ffcv"
        )
    return Samples(content=map_file(path), starts=index.pointers, shape=shape, labels=index.labels)


def map_file(path: Path) -> NDArray[np.uint8]:
    if not path.stat().st_size:  # which cannot be mapped
        return np.empty(0, np.uint8)
    # "c", not "r": torch wants writable memory, and with "c" no write reaches the file.
    return np.memmap(path, np.uint8, mode="c")

"""Write .beton files of images and labels without FFCV, which a machine with a GPU may lack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data.beton.format import (
    ALLOCATION,
    FIELD,
    HEADER,
    IMAGE_METADATA,
    INT,
    RAW,
    RGB_IMAGE,
    VERSION,
)

PAGE_BYTES = 2**21


def write_beton(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Write uncompressed ``images`` (N, H, W, 3) and ``labels`` (N,), in FFCV's version 2."""
    n, height, width, _ = images.shape
    fields = np.zeros(2, FIELD)
    for field, kind, name in zip(fields, (RGB_IMAGE, INT), ("image", "label"), strict=True):
        field["type"] = kind
        field["name"][: len(name)] = np.frombuffer(name.encode(), np.uint8)
    row = np.dtype([("image", IMAGE_METADATA[RGB_IMAGE]), ("label", "<i8")], align=True)
    rows, table, header = np.zeros(n, row), np.zeros(n, ALLOCATION), np.zeros(1, HEADER)
    index_bytes = header.nbytes + fields.nbytes + rows.nbytes
    first = -(-index_bytes // PAGE_BYTES) * PAGE_BYTES  # pixels begin with a page
    size = height * width * 3
    pointers = first + size * np.arange(n)
    rows["image"]["mode"], rows["image"]["pointer"], rows["label"] = RAW, pointers, labels
    rows["image"]["height"], rows["image"]["width"] = height, width
    table["sample"], table["pointer"], table["size"] = np.arange(n), pointers, size
    header["version"], header["num_fields"], header["num_samples"] = VERSION, 2, n
    header["page_size"], header["alloc_table_ptr"] = PAGE_BYTES, first + size * n
    parts = [header, fields, rows, np.zeros(first - index_bytes, np.uint8), images, table]
    path.write_bytes(b"".join(part.tobytes() for part in parts))

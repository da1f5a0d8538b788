"""Parse FFCV's .beton files without FFCV, whose import takes seconds (numba).

Version 2 (https://github.com/libffcv/ffcv, ``ffcv/types.py`` and ``ffcv/writer.py``): header, field
descriptors, one metadata row per sample with pointers into pages of pixels, and at the end a table
of allocations.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION = 2
INT, RGB_IMAGE, ND_ARRAY = 1, 2, 4
JPEG, RAW = 0, 1
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
ALLOCATION = np.dtype([("sample", "<u8"), ("pointer", "<u8"), ("size", "<u8")])


@dataclass(frozen=True, kw_only=True)
class BetonIndex:
    """Describe the N samples of a .beton. Each field but ``kind`` and ``channels`` is (N,).

    ``modes`` are JPEG or RAW. An image's bytes lie at ``pointers``, ``sizes`` of them; ``heights``
    and ``widths`` are in pixels.
    """

    kind: int
    channels: int
    modes: NDArray[np.uint8]
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]
    pointers: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def one_shape(self) -> tuple[int, int, int] | None:
        """Return the (H, W, C) that all images share; None if they differ or any is compressed."""
        if (self.modes != RAW).any() or not len(self):
            return None
        height, width = int(self.heights[0]), int(self.widths[0])
        same = (self.heights == height).all() and (self.widths == width).all()
        return (height, width, self.channels) if same else None


def parse(raw: NDArray[np.uint8]) -> BetonIndex:
    """Read the index of a .beton of (image, label) from its content ``raw``.

    Raises ValueError, IndexError or OverflowError for another version or kind, or part of a file.
    """
    header = _read_records(raw, 0, HEADER, 1)[0]
    if header["version"] != VERSION or header["num_fields"] != 2:
        raise ValueError(f"format version {header['version']}, {header['num_fields']} fields")
    fields = _read_records(raw, HEADER.itemsize, FIELD, 2)
    kind = int(fields[0]["type"])
    if kind not in IMAGE_METADATA:
        raise ValueError(f"field type {kind} is neither an RGB image nor an array")
    if fields[1]["type"] != INT:
        raise ValueError(f"labels of field type {fields[1]['type']} are not integers")
    rows = _read_records(
        raw,
        HEADER.itemsize + fields.nbytes,
        np.dtype([("image", IMAGE_METADATA[kind]), ("label", "<i8")], align=True),
        int(header["num_samples"]),
    )
    images = rows["image"]
    pointers = images["pointer"].astype(np.int64)
    if kind == RGB_IMAGE:
        modes, channels = images["mode"].copy(), 3
        heights, widths = images["height"].astype(np.int64), images["width"].astype(np.int64)
    else:  # of one shape, which the field holds
        shape = fields[0]["arguments"][: 32 * 8].view("<u8")
        height, width, channels = (int(side) for side in shape[shape > 0])
        modes = np.full(len(images), RAW, np.uint8)
        heights, widths = np.full(len(images), height), np.full(len(images), width)
    sizes = _read_sizes(raw, int(header["alloc_table_ptr"]), pointers)
    if (sizes[modes == RAW] != (heights * widths * channels)[modes == RAW]).any():
        raise ValueError("sizes of images and of their stored data differ")
    return BetonIndex(
        kind=kind,
        channels=channels,
        modes=modes,
        heights=heights,
        widths=widths,
        pointers=pointers,
        sizes=sizes,
        labels=rows["label"].astype(np.int64),
    )


def hash_index(raw: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of all but the pixels: of what is before their pages and after them."""
    table = int(_read_records(raw, 0, HEADER, 1)[0]["alloc_table_ptr"])
    first = int(_read_allocations(raw, table)["pointer"].min(initial=table))
    digest = hashlib.sha256(raw[:first].data)
    digest.update(raw[table:].data)
    return digest.hexdigest()


def _read_sizes(
    raw: NDArray[np.uint8], table: int, pointers: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the bytes allocated at each of ``pointers``; check that all lie before the table."""
    allocations = _read_allocations(raw, table)
    if not 0 < table <= len(raw) or len(allocations) < len(pointers):
        raise ValueError(f"ends at byte {len(raw)}, inside its table of {len(pointers)} samples")
    allocations = np.sort(allocations, order="pointer")
    place = np.searchsorted(allocations["pointer"], pointers.astype(np.uint64))
    found = allocations[np.minimum(place, len(allocations) - 1)]
    sizes: NDArray[np.int64] = found["size"].astype(np.int64)
    if (found["pointer"] != pointers).any() or (pointers + sizes > table).any():
        raise ValueError("a sample points to a place without data")
    return sizes


def _read_allocations(raw: NDArray[np.uint8], table: int) -> NDArray[Any]:
    return _read_records(raw, table, ALLOCATION, (len(raw) - table) // ALLOCATION.itemsize)


def _read_records(
    raw: NDArray[np.uint8], start: int, dtype: np.dtype[Any], count: int
) -> NDArray[Any]:
    stop = start + dtype.itemsize * count
    if stop > len(raw):
        raise ValueError(f"ends at byte {len(raw)}, expected at least {stop}")
    return raw[start:stop].view(dtype)

"""Write sidecars for .beton files of another program, FFCV's own scripts for instance."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from trainer.data.beton.format import JPEG, RAW, BetonIndex
from trainer.data.beton.reader import make_sidecar, map_file, parse_file
from trainer.data.beton.sidecar import Sidecar
from trainer.data.specs import DATASETS, SPLITS
from trainer.errors import UserError
from trainer.files.atomic import reading

CHUNK = 1000  # JPEGs that are queued at once


def write_sidecars(
    folder: Path, dataset: str, splits: Sequence[str] = SPLITS, threads: int = 1
) -> dict[str, Sidecar]:
    """Verify the .beton files of ``splits``, then write a sidecar for each; return these.

    Every JPEG is decoded, by the decoder that training uses. Raises UserError for a file that is
    damaged or incomplete, and for samples that training could not read.
    """
    paths = {split: folder / f"{split}.beton" for split in splits}
    indices = {split: _read_index(path) for split, path in paths.items()}
    spec = DATASETS[dataset]
    count = spec.num_classes or max(int(index.labels.max()) for index in indices.values()) + 1
    names = list(spec.classes or map(str, range(count)))
    found = {}
    for split, path in paths.items():
        index = indices[split]
        if index.labels.min() < 0 or index.labels.max() >= count:
            raise UserError(
                f"{path}: labels from {index.labels.min()} to {index.labels.max()}, dataset "
                f"{dataset} has {count} classes; check dataset"
            )
        _decode_jpegs(path, index, threads)
        arguments = {"split": split, "written_by": "another program"}
        found[split] = make_sidecar(path, index.labels, names, arguments=arguments, versions={})
    for split, sidecar in found.items():
        sidecar.write(paths[split])
    return found


def _read_index(path: Path) -> BetonIndex:
    with reading(path, "put FFCV's file there, or check data_pth"):
        raw = map_file(path)
    index = parse_file(raw, path, "write it again, as images with labels")
    if not len(index):
        raise UserError(f"{path}: holds no samples; write it again")
    if unknown := sorted({*index.modes.tolist()} - {JPEG, RAW}):
        raise UserError(f"{path}: images of unknown mode {unknown[0]}; write it again")
    return index


def _decode_jpegs(path: Path, index: BetonIndex, threads: int) -> None:
    """Raise UserError for the first JPEG that is damaged, not in colour or of another size."""
    raw = map_file(path)
    jpegs = np.flatnonzero(index.modes == JPEG)

    def check(i: int) -> None:
        stored = raw[index.pointers[i] : index.pointers[i] + index.sizes[i]]
        if reason := _find_damage(stored, int(index.heights[i]), int(index.widths[i])):
            raise UserError(f"{path}: image {i} {reason}; write the file again")

    with ThreadPoolExecutor(threads) as pool:
        for start in tqdm(range(0, len(jpegs), CHUNK), desc=str(path), mininterval=2):
            list(pool.map(check, jpegs[start : start + CHUNK].tolist()))


def _find_damage(stored: NDArray[np.uint8], height: int, width: int) -> str | None:
    from ffcv.libffcv import imdecode
    from PIL import Image

    try:
        with Image.open(io.BytesIO(stored.tobytes())) as image:
            found = image.format, image.mode, image.height, image.width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return "is no JPEG"
    if found != ("JPEG", "RGB", height, width):
        return f"is {found[0]} {found[1]} of {found[3]} × {found[2]}, not RGB of {width} × {height}"
    pixels = np.empty((height, width, 3), np.uint8)
    status = imdecode(stored, pixels, height, width, height, width, 0, 0, 1, 1, False, False)
    return "is a damaged JPEG" if status else None

"""Cut a small set of real image files from ten photographs that come with installed packages.

The set stands in for ImageNet where that is not available. A patch's class is the photograph it was
cut from; training and test patches do not overlap.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.files.atomic import writing

SIZES = (30, 36)  # shortest and longest side of a patch, in pixels
PATCHES = 96  # per photograph, half of them for training
JPEG_QUALITY = 95
PHOTOS = (
    "astronaut", "chelsea", "coffee", "hubble_deep_field", "immunohistochemistry", "retina",
    "rocket", "motorcycle", "china", "flower",
)  # fmt: skip


def load_photo(name: str) -> NDArray[np.uint8]:
    """Load a photograph of scikit-learn or scikit-image, (H, W, 3)."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    if name in ("china", "flower"):
        photo = load_sample_image(f"{name}.jpg")
    elif name == "motorcycle":
        photo, _, _ = data.stereo_motorcycle()  # type: ignore[no-untyped-call]
    else:
        photo = getattr(data, name)()
    return np.asarray(photo)


def write_photos(folder: Path) -> None:
    """Write ``folder/{train,val}/<photograph>/<patch>.jpg``; every call writes the same pixels."""
    from PIL import Image

    temporary = folder.with_name(f"{folder.name}.tmp")
    with writing(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            for label, name in enumerate(sorted(PHOTOS)):
                patches = _cut_patches(load_photo(name), np.random.default_rng(label))
                for i, patch in enumerate(patches):
                    split = "train" if i < PATCHES // 2 else "val"
                    path = temporary / split / name / f"{i:03}.jpg"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(patch).save(path, quality=JPEG_QUALITY)
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _cut_patches(
    photo: NDArray[np.uint8], draw: np.random.Generator
) -> Iterator[NDArray[np.uint8]]:
    """Cut ``PATCHES`` patches of several sizes, none overlapping, in random order."""
    largest = SIZES[1]
    rows, columns = (side // largest for side in photo.shape[:2])
    for cell in draw.permutation(rows * columns)[:PATCHES]:
        top, left = (largest * place for place in divmod(int(cell), columns))
        height, width = draw.integers(*SIZES, size=2, endpoint=True)
        yield photo[top : top + height, left : left + width]

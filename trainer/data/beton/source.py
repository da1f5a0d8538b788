"""Serve the prepared images of one split to the processes of FFCV's writer."""

import multiprocessing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.preparation.colours import CONVERSIONS
from trainer.data.preparation.prepared import Arrays, ImageFiles, read_prepared
from trainer.errors import UserError


@dataclass
class Source:
    """Serve (image, label) by index, as FFCV's writer asks for them.

    ``beton``: the file to write. ``max_resolution``: longer side that image files are reduced to,
    in pixels. ``errors``: messages of writer processes that gave up, for the process that waits for
    them. ``converted``: counts of ``CONVERSIONS``, over all writer processes.
    """

    beton: Path
    images: Arrays | ImageFiles
    labels: NDArray[np.int64]
    classes: list[str]
    max_resolution: int
    errors: Any = field(default_factory=multiprocessing.SimpleQueue)
    converted: Any = field(default_factory=lambda: multiprocessing.Array("q", len(CONVERSIONS)))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        image, conversions = self.image(index)
        for conversion in conversions:
            with self.converted.get_lock():
                self.converted[CONVERSIONS.index(conversion)] += 1
        return image, int(self.labels[index])

    def image(self, index: int) -> tuple[NDArray[np.uint8], list[str]]:
        """Return image ``index``, (H, W, C), and how it was converted.

        Raises UserError for a file that cannot be read.
        """
        # FFCV draws from numpy's global generator which images to compress; seed it by the index.
        np.random.seed(index)
        if isinstance(self.images, Arrays):
            array: NDArray[np.uint8] = self.images.images[index]
            return array, []
        image, conversions = self.images.image(index)
        height, width, _ = image.shape
        if int(self.max_resolution / max(height, width) * min(height, width)) == 0:
            raise UserError(
                f"{self.images.path(index)}: {width} × {height} pixels are too narrow to be "
                f"reduced to max_resolution {self.max_resolution}; replace or remove it"
            )
        return image, conversions

    @property
    def conversions(self) -> dict[str, int]:
        """Count by kind the images that the writer processes converted."""
        counts = zip(CONVERSIONS, self.converted, strict=True)
        return {conversion: count for conversion, count in counts if count}

    @property
    def of_files(self) -> bool:
        return isinstance(self.images, ImageFiles)

    def sample_indices(self, count: int) -> range:
        """Select about ``count`` indices, evenly spread."""
        return range(0, len(self), max(1, len(self) // count))


def read_source(beton: Path, max_resolution: int) -> Source:
    """Read what ``prepare`` wrote beside ``beton``. Raises UserError if missing or damaged."""
    if (listed := beton.with_suffix(".json")).exists():
        files = ImageFiles.read(listed)
        labels = np.array(files.labels, np.int64)
        return Source(beton, files, labels, files.classes, max_resolution)
    arrays, classes = read_prepared(beton.with_suffix(".npz"))
    return Source(beton, arrays, arrays.labels, list(classes), max_resolution)

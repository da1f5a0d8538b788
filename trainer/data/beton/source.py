"""Prepared images of one split, one by one, for the processes of FFCV's writer."""

from __future__ import annotations

import multiprocessing
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.preparation.colours import CONVERSIONS
from trainer.data.preparation.folders import ImageFiles
from trainer.data.preparation.prepare import Arrays, read_prepared
from trainer.errors import UserError


@dataclass
class Source:
    """What one split is written from, as FFCV's writer asks for it: (image, label) by index.

    ``beton`` is the file to write, ``longest`` the longer side that image files are reduced to, in
    pixels. ``reasons``: why a writer process gave up, for the process that waits for it.
    ``converted``: counts of ``CONVERSIONS``, of all writer processes.
    """

    beton: Path
    images: Arrays | ImageFiles
    labels: NDArray[np.int64]
    classes: list[str]
    longest: int
    reasons: Any = field(default_factory=multiprocessing.SimpleQueue)
    converted: Any = field(default_factory=lambda: multiprocessing.Array("q", len(CONVERSIONS)))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        try:
            image, conversions = self.image(index)
        except UserError as error:
            self.reasons.put(str(error))
            sys.exit(1)
        for conversion in conversions:
            with self.converted.get_lock():
                self.converted[CONVERSIONS.index(conversion)] += 1
        return image, int(self.labels[index])

    def image(self, index: int) -> tuple[NDArray[np.uint8], list[str]]:
        """Return image ``index``, (H, W, C), and how it was converted.

        Raises UserError for a file that cannot be read.
        """
        # FFCV asks numpy's global generator which images to compress: a function of the index.
        np.random.seed(index)
        if isinstance(self.images, Arrays):
            array: NDArray[np.uint8] = self.images.images[index]
            return array, []
        image, conversions = self.images.image(index)
        height, width, _ = image.shape
        if int(self.longest / max(height, width) * min(height, width)) == 0:
            raise UserError(
                f"{self.images.path(index)}: {width} × {height} pixels are too narrow to be "
                f"reduced to max_resolution {self.longest}; replace or remove it"
            )
        return image, conversions

    @property
    def conversions(self) -> dict[str, int]:
        """How many images FFCV's processes got converted, by kind."""
        counts = zip(CONVERSIONS, self.converted, strict=True)
        return {conversion: count for conversion, count in counts if count}

    @property
    def of_files(self) -> bool:
        return isinstance(self.images, ImageFiles)

    def some(self, count: int) -> range:
        """About ``count`` indices, evenly spread."""
        return range(0, len(self), max(1, len(self) // count))


def read_source(beton: Path, longest: int) -> Source:
    """What ``prepare`` wrote beside ``beton``. Raises UserError for what is missing or damaged."""
    if (listed := beton.with_suffix(".json")).exists():
        files = ImageFiles.read(listed)
        return Source(beton, files, np.array(files.labels, np.int64), files.classes, longest)
    arrays, classes = read_prepared(beton.with_suffix(".npz"))
    return Source(beton, arrays, arrays.labels, list(classes), longest)

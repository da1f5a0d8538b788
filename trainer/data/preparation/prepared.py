"""Read and write prepared data, a file of each split.

``<split>.npz`` holds ``images`` (N, H, W, C) uint8, ``labels`` (N,) int64 and ``classes`` (names in
label order); ``<split>.json`` lists image files, which stay where they are.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from trainer.data.preparation.class_folders import ENDINGS, ClassFolders
from trainer.data.preparation.colours import read_image
from trainer.errors import UserError
from trainer.files.atomic import atomic, read_json, reading, write_json


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
        _check_layout(images, labels, classes)
    except Exception as error:  # whatever a stray file provokes in numpy, zipfile and zlib
        fault = str(error) or type(error).__name__
        raise UserError(f"{path}: damaged ({fault}); run `prepare` again") from None
    return Arrays(images, labels), tuple(map(str, classes))


def _check_layout(images: NDArray[Any], labels: NDArray[Any], classes: NDArray[Any]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        raise ValueError(
            f"images are {images.dtype} of shape {images.shape}, not uint8 (N, H, W, C)"
        )
    if classes.dtype.kind != "U" or classes.ndim != 1 or len(set(classes)) < len(classes):
        raise ValueError("classes are not a list of different names")
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise ValueError(f"labels are {labels.dtype} of shape {labels.shape}, not int64 (N,)")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(
            f"labels from {labels.min()} to {labels.max()}, but {len(classes)} classes"
        )


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """Hold the image files of one split: ``files`` below ``folder``, sorted by class, then name.

    ``labels`` index ``classes``, which are sorted.
    """

    folder: str
    classes: list[str]
    files: list[str]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> Path:
        return Path(self.folder) / self.files[index]

    def image(self, index: int) -> tuple[NDArray[np.uint8], list[str]]:
        """Return (H, W, 3) RGB and how it was converted. Raises UserError for a broken image."""
        return read_image(self.path(index))

    def write(self, path: Path) -> None:
        """Write the list; a relative ``folder`` becomes relative to ``path``: projects may move."""
        folder = self.folder
        if not Path(folder).is_absolute():
            folder = os.path.relpath(folder, path.parent)
        write_json(path, asdict(self) | {"folder": folder})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what ``write`` wrote. Raises UserError for a list that is missing or damaged."""
        listed = read_json(path, cls, "run `prepare` again")
        if fault := listed._find_fault():
            raise UserError(f"{path}: damaged ({fault}); run `prepare` again")
        folder = Path(os.path.normpath(path.parent / listed.folder))
        if not folder.is_dir():
            raise UserError(
                f"{path}: lists images in {folder}, which no longer exists; run `prepare` again "
                "with its new path as source (in config.yaml: <data set>_source)"
            )
        return replace(listed, folder=str(folder))

    def _find_fault(self) -> str | None:
        if not self.files or len(self.files) != len(self.labels):
            return f"{len(self.files)} files, {len(self.labels)} labels"
        if len(set(self.classes)) < len(self.classes):
            return "classes names a class twice"
        if min(self.labels) < 0 or max(self.labels) >= len(self.classes):
            return f"labels outside its {len(self.classes)} classes"
        return None


def list_images(folder: Path) -> ImageFiles:
    """List all images of a folder of class folders; print what is left out.

    A file's ending tells whether it is an image, as in torchvision's ImageFolder. Raises UserError
    for a folder with another layout.
    """
    if not folder.is_dir():
        raise UserError(f"source {folder}: no such folder; expected {folder}/<class>/<image>")
    walk = ClassFolders(folder)
    classes = walk.classes()
    if not classes:
        raise UserError(f"source {folder}: no class folders; expected {folder}/<class>/<image>")
    files: list[str] = []
    labels: list[int] = []
    below = len(str(folder / "_")) - 1
    for label, class_folder in enumerate(classes):
        found = [image.path[below:] for image in walk.images(class_folder)]
        if not found:
            raise UserError(
                f"source {class_folder.path}: no images (of {', '.join(ENDINGS)}); expected "
                f"{folder}/<class>/<image>, images in each class"
            )
        files += found
        labels += [label] * len(found)
    for file in [str(folder.absolute()), *files]:
        try:
            file.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(f"source {folder}: {file!r} is not UTF-8; rename it") from None
    if walk.left_out:
        print(f"{folder}: left out, {walk.left_out}", flush=True)
    names = [class_folder.name for class_folder in classes]
    return ImageFiles(folder=str(folder), classes=names, files=files, labels=labels)

"""Folders of class folders of image files, as ImageNet and many other data sets come."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.errors import UserError
from trainer.files import write_json

SPLIT_FOLDERS = {"train": ("train",), "test": ("val", "test")}


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """The image files of one split: ``files`` below ``folder``, sorted by class, then name.

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

    def image(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3), whatever the file's colours. Raises UserError for one that is broken."""
        return read_image(self.path(index))

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> ImageFiles:
        """Raises UserError for a list that is missing or damaged."""
        try:
            return cls(**json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path}: missing or damaged ({error}); run `prepare` again") from None


def split_folder(source: Path, split: str) -> Path:
    """``train``; ``val`` or ``test``. Raises UserError where there is none."""
    names = SPLIT_FOLDERS[split]
    for name in names:
        if (source / name).is_dir():
            return source / name
    raise UserError(
        f"source {source}: no folder {' or '.join(names)}; expected "
        f"{source / names[0]}/<class>/<image>"
    )


def list_images(folder: Path) -> ImageFiles:
    """All images of a folder of class folders. Raises UserError for one that is laid out otherwise.

    What is an image is said by the file's extension, as in torchvision's ImageFolder.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

    if not folder.is_dir():
        raise UserError(f"source {folder}: no such folder; expected {folder}/<class>/<image>")
    try:
        classes, class_to_label = find_classes(folder)
        found = make_dataset(folder, class_to_label, extensions=IMG_EXTENSIONS)
    except FileNotFoundError as error:
        raise UserError(
            f"source {folder}: {error}; expected {folder}/<class>/<image>, images in each class"
        ) from None
    return ImageFiles(
        folder=str(folder.resolve()),
        classes=classes,
        files=[str(Path(path).relative_to(folder)) for path, _ in found],
        labels=[label for _, label in found],
    )


def read_image(path: Path) -> NDArray[np.uint8]:
    """As RGB, (H, W, 3): grey, palette and CMYK files are converted.

    Raises UserError for a file that is no image, or only the beginning of one.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    # Pillow raises the first three for broken files, the last for one that is too large to be true.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable image ({error}); replace or remove it") from None

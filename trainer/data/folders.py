"""Folders of class folders of image files, as ImageNet and many other data sets come."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.errors import UserError
from trainer.files import read_json, write_json

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
        listed = read_json(path, cls, "run `prepare` again")
        if reason := listed._misfit():
            raise UserError(f"{path}: damaged ({reason}); run `prepare` again")
        return listed

    def _misfit(self) -> str | None:
        if not self.files or len(self.files) != len(self.labels):
            return f"{len(self.files)} files, {len(self.labels)} labels"
        if len(set(self.classes)) < len(self.classes):
            return "a class is there twice in classes"
        if min(self.labels) < 0 or max(self.labels) >= len(self.classes):
            return f"labels that are none of its {len(self.classes)} classes"
        return None


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
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink() and not entry.exists():
            raise UserError(f"source {entry}: a link to nowhere; mend or remove it")
    _check_permissions(folder)
    try:
        classes, class_to_label = find_classes(folder)
        found = make_dataset(folder, class_to_label, extensions=IMG_EXTENSIONS)
    except FileNotFoundError as error:
        raise UserError(
            f"source {folder}: {error}; expected {folder}/<class>/<image>, images in each class"
        ) from None
    files = [str(Path(path).relative_to(folder)) for path, _ in found]
    _check_folders(folder, files)
    return ImageFiles(
        folder=str(folder.resolve()),
        classes=classes,
        files=files,
        labels=[label for _, label in found],
    )


def _check_permissions(folder: Path) -> None:
    """Raises UserError for a folder that may not be read: its images would be left out unsaid."""

    def refuse(error: OSError) -> None:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"source {error.filename}: {reason}; check its permissions")

    for entry in folder.iterdir():
        for _ in os.walk(entry, onerror=refuse) if entry.is_dir() else ():
            pass


def _check_folders(folder: Path, files: list[str]) -> None:
    """Raises UserError for names that no list can hold, and for what links make two of."""
    for file in [str(folder.resolve()), *files]:
        try:
            file.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(f"source {folder}: {file!r} is not UTF-8; rename it") from None
    seen: dict[Path, Path] = {}
    for parent in dict.fromkeys(folder / Path(file).parent for file in files):
        first = seen.setdefault(parent.resolve(), parent)
        if first != parent:
            raise UserError(
                f"source {parent}: the same folder as {first}, through a link; remove the link"
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

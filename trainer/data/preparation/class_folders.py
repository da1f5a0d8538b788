"""Walk a folder of class folders of image files. No heavy imports: Snakemake starts with it."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.errors import UserError
from trainer.files.atomic import reading

SPLIT_FOLDERS = {"train": ("train",), "test": ("val", "test")}
# torchvision's IMG_EXTENSIONS, so that ImageFolder finds the same images
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

Entry = os.DirEntry[str]


def split_folder(source: Path, split: str) -> Path | None:
    """Return the folder of ``split`` below ``source``, if there is one."""
    return next((source / name for name in SPLIT_FOLDERS[split] if (source / name).is_dir()), None)


def summarise(groups: Mapping[str, Sequence[str]]) -> str:
    """Count names by kind: "2 of .gif (cat/1.gif, …), 1 hidden (.git)"; empty for no names."""
    return ", ".join(
        f"{len(names)} {kind} ({names[0]}{', …' if len(names) > 1 else ''})"
        for kind, names in groups.items()
        if names
    )


class ClassFolders:
    """Walk ``folder`` once, counting what is left out.

    Hidden files and folders (``._1.jpg``, ``.ipynb_checkpoints``) count as neither images nor
    classes. Raises UserError for unreadable entries, and for folders that links repeat.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._left_out: defaultdict[str, list[str]] = defaultdict(list)
        self._walked: dict[tuple[int, int], str] = {}

    @property
    def left_out(self) -> str:
        """Summarise what is not an image; empty for nothing."""
        return summarise(dict(sorted(self._left_out.items())))

    def classes(self) -> list[Entry]:
        """Return the class folders, by name."""
        found = []
        for entry in _list_entries(str(self._folder)):
            if entry.is_symlink() and not Path(entry).exists():
                raise UserError(f"source {entry.path}: a broken link; replace or remove it")
            if entry.name.startswith("."):
                self._leave_out("hidden", entry)
            elif entry.is_dir():
                found.append(entry)
            else:
                self._leave_out("beside the class folders", entry)
        return found

    def images(self, class_folder: Entry) -> list[Entry]:
        """Return a class's images by folder and name, in ImageFolder's order."""
        images: list[tuple[str, str, Entry]] = []
        folders = [class_folder.path]
        while folders:
            folder = folders.pop()
            status = Path(folder).stat()
            first = self._walked.setdefault((status.st_dev, status.st_ino), folder)
            if first != folder:
                raise UserError(
                    f"source {folder}: the same folder as {first}, through a link; remove the link"
                )
            for entry in _list_entries(folder):
                _, dot, ending = entry.name.rpartition(".")
                if entry.name.startswith("."):
                    self._leave_out("hidden", entry)
                elif _is_folder(entry):
                    folders.append(entry.path)
                elif f".{ending.lower()}" in ENDINGS:
                    images.append((folder, entry.name, entry))
                else:
                    self._leave_out(f"of .{ending}" if dot else "without an ending", entry)
        return [entry for _, _, entry in sorted(images, key=lambda image: image[:2])]

    def _leave_out(self, kind: str, entry: Entry) -> None:
        self._left_out[kind].append(os.path.relpath(entry.path, self._folder))


def _is_folder(entry: Entry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; reading it names the file
        return False


def _list_entries(folder: str) -> list[Entry]:
    fix = "check the path and its permissions"
    with reading(f"source {folder}", fix), os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)

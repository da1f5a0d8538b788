"""Detect that a folder of images changed since it was prepared. No heavy imports.

Names, sizes and modification times decide. Every start of Snakemake checks them, so the cost is
bounded: above ``MOST_FILES`` images (ImageNet), only the times of the class folders count. They
reveal images that were added, removed, renamed or replaced by a rename, but not a file that was
overwritten. Reading the times of 1.3 million files took 6 s, 22 s after a start of the machine, and
takes minutes on a network file system; 100,000 take half a second.
"""

import hashlib
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Self

from trainer.data.preparation.class_folders import ClassFolders, Entry, split_folder, summarise
from trainer.data.specs import SPLITS
from trainer.errors import UserError, report
from trainer.files.atomic import read_json, write_json

MOST_FILES = 100_000
RECORD = "source.json"  # beside the prepared data


@dataclass(frozen=True)
class SourceState:
    """Hold a folder's images with size and time of each, or its class folders with their times."""

    source: str
    entries: dict[str, str]

    @cached_property
    def digest(self) -> str:
        text = "\n".join(f"{name}\0{entry}" for name, entry in sorted(self.entries.items()))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    def __str__(self) -> str:
        return f"{self.source}: {len(self.entries)} entries, {self.digest[:16]}"

    def changes_since(self, before: Self) -> str:
        """Name what changed since ``before``; empty for nothing."""
        if before.source != self.source:
            return f"was prepared from {before.source}"
        old, new = before.entries, self.entries
        found = {
            "added": sorted(new.keys() - old.keys()),
            "removed": sorted(old.keys() - new.keys()),
            "changed": sorted(name for name in old.keys() & new.keys() if old[name] != new[name]),
        }
        return f"since it was prepared: {changes}" if (changes := summarise(found)) else ""


def read_state(source: Path) -> SourceState:
    """Return the current state of ``source``. Raises UserError if it cannot be read."""
    if not source.is_dir():
        raise UserError(f"source {source}: no such folder; check the path")
    below = len(str(source / "_")) - 1
    images: dict[str, str] = {}
    folders: dict[str, str] = {}
    for split in filter(None, (split_folder(source, name) for name in SPLITS)):
        walk = ClassFolders(split)
        for folder in walk.classes():
            folders[f"{folder.path[below:]}/"] = str(folder.stat().st_mtime_ns)
            if len(images) <= MOST_FILES:
                images |= {i.path[below:]: _size_and_time(i) for i in walk.images(folder)}
    return SourceState(str(source), images if len(images) <= MOST_FILES else folders)


def recorded_state(prepared: Path) -> SourceState | None:
    """Return the state of the source that ``prepared`` was made from; None if unknown."""
    try:
        return read_json(prepared / RECORD, SourceState, "run `prepare` again")
    except UserError:
        return None


def record_state(state: SourceState | None, prepared: Path) -> None:
    """Record the state beside the prepared data; None: they were not made from a folder."""
    if state is None:
        (prepared / RECORD).unlink(missing_ok=True)
    else:
        write_json(prepared / RECORD, asdict(state))


@cache
def state_to_compare(source: Path | None, prepared: Path) -> str | None:
    """Return a text that differs for different images; None if ``source`` is not a folder.

    Prints what changed. A folder that no longer exists counts as unchanged, since prepared data
    suffice to train.
    """
    if source is None or source.is_file():  # an archive is verified by its SHA-256
        return None
    before = recorded_state(prepared)
    try:
        now = read_state(source)
    except UserError:
        if before is None:
            return None
        return str(before) if before.source == str(source) else f"{source}: cannot be read"
    if before and (changes := now.changes_since(before)):
        report(f"{source}: {changes}")
    return str(now)


def _size_and_time(image: Entry) -> str:
    try:
        status = image.stat()
    except OSError:  # a broken link; reading it names the file
        return "unreadable"
    return f"{status.st_size} {status.st_mtime_ns}"

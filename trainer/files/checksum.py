"""Verify files by SHA-256 or, where only that is published, by their ids in a git repository."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from trainer.errors import UserError
from trainer.files.atomic import sha256

Kind = Literal["SHA-256", "git blob id"]
CHUNK_BYTES: Final = 2**20


@dataclass(frozen=True)
class Checksum:
    """Say what a file must have: its SHA-256, or its git blob id, in hexadecimal."""

    kind: Kind
    expected: str

    def find(self, path: Path) -> str:
        """Return the checksum, of this kind, that ``path`` has."""
        return sha256(path) if self.kind == "SHA-256" else git_blob_id(path)

    def fits(self, path: Path) -> bool:
        return self.find(path) == self.expected

    def verify(self, path: Path, name: object, fix: str) -> None:
        """Raise UserError, about ``name`` and ending in ``fix``, if ``path`` is another file."""
        if (found := self.find(path)) != self.expected:
            raise UserError(f"{name}: its {self.kind} is {found}, expected {self.expected}; {fix}")


def git_blob_id(path: Path) -> str:
    """Return the id that git gives to a file's content: SHA-1 of "blob", its size, and itself.

    https://git-scm.com/book/en/v2/Git-Internals-Git-Objects, "Object Storage"
    """
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()

"""Get a published start point from a folder with copies, else over https; verify it either way.

``python -m workflow.published --out FILE --sha256|--git-blob CHECKSUM --url URL --folder DIR``
"""

from __future__ import annotations

import shlex
import shutil
import sys
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from trainer.command_line import exit_status
from trainer.errors import UserError
from trainer.files.atomic import atomic, reading
from trainer.files.checksum import Checksum
from trainer.files.download import download
from trainer.settings.base import Settings
from trainer.settings.cli import Parser, validated


class PublishedCheckpoint(Settings):
    """Locate a published start point."""

    path: Path = Field(description="the file, a PyTorch state_dict")
    url: str | None = Field(
        None, description="where to get it when it is missing", pattern="^https://"
    )
    sha256: str | None = Field(None, description="its SHA-256", pattern="^[0-9a-f]{64}$")
    git_blob: str | None = Field(
        None,
        description="instead of sha256: its id in a git repository (git hash-object FILE)",
        pattern="^[0-9a-f]{40}$",
    )
    epoch: int = Field(description="the epoch that it was saved at", ge=0)

    @model_validator(mode="after")
    def _has_one_checksum(self) -> Self:
        if (self.sha256 is None) == (self.git_blob is None):
            raise ValueError("needs a checksum; set either sha256 or git_blob")
        return self

    @property
    def checksum(self) -> Checksum:
        if self.sha256 is not None:
            return Checksum("SHA-256", self.sha256)
        assert self.git_blob is not None, "one of them is set"
        return Checksum("git blob id", self.git_blob)

    def check(self) -> None:
        """Raise UserError if there is another file at ``path``.

        A run verifies a SHA-256 itself when it begins; a git blob id is verified here alone.
        """
        if self.git_blob is not None and self.path.is_file():
            self.checksum.verify(self.path, self.path, "remove it, or correct the experiments")

    @property
    def checksum_options(self) -> str:
        """Write the options of this program that say which file it is."""
        return shlex.join(
            ["--sha256", self.sha256] if self.sha256 else ["--git-blob", str(self.git_blob)]
        )

    def source_options(self, folder: Path | None) -> str:
        """Write the options of this program that say where to get it, quoted for a shell."""
        given = {"--url": self.url, "--folder": folder}
        return shlex.join(
            word for name, value in given.items() if value for word in (name, str(value))
        )


def fetch(start: PublishedCheckpoint, folder: Path | None) -> Path | str:
    """Write the file unless it is there already; return where it came from.

    Raises UserError, and writes nothing, if it is nowhere to be had or has another checksum.
    """
    path, checksum = start.path, start.checksum
    if path.is_file() and checksum.fits(path):
        return path
    if folder is not None and (copy := next(copies(start, folder), None)):
        with atomic(path) as temporary:
            with reading(copy, "check its permissions"):
                shutil.copyfile(copy, temporary)
            checksum.verify(temporary, copy, "get the file again, or correct checkpoints_source")
        return copy
    if start.url is None:
        raise UserError(
            f"{path}: there is no URL to download it from; put it there, or set "
            "checkpoints_source to a folder that has it"
        )
    download(start.url, checksum, path)
    return start.url


def copies(start: PublishedCheckpoint, folder: Path) -> Iterator[Path]:
    """Find the file in ``folder``, by its name or by any longer end of its URL.

    So the folder may hold the files themselves, or be a clone of the repository that has them.
    """
    parts = urllib.parse.unquote(urllib.parse.urlsplit(start.url or "").path).split("/")[1:]
    ends = ["/".join(parts[first:]) for first in reversed(range(len(parts)))]
    candidates = (folder / name for name in dict.fromkeys([start.path.name, *ends]) if name)
    return (candidate for candidate in candidates if candidate.is_file())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m workflow.published", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    kinds = parser.add_mutually_exclusive_group(required=True)
    kinds.add_argument("--sha256")
    kinds.add_argument("--git-blob")
    parser.add_argument("--url")
    parser.add_argument("--folder", type=Path)

    def run() -> int:
        given = parser.parse_args(arguments)
        values = {"path": given.out, "url": given.url, "epoch": 0}
        checksums = {"sha256": given.sha256, "git_blob": given.git_blob}
        start = validated(PublishedCheckpoint, values | checksums)
        source = fetch(start, given.folder)
        print(f"{start.path}: verified by its {start.checksum.kind}, from {source}")
        return 0

    return exit_status(run)


if __name__ == "__main__":
    sys.exit(main())

"""Archives are unpacked below one folder, or refused."""

from __future__ import annotations

import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from trainer.errors import UserError


def unpack(archive: Path, folder: Path) -> None:
    """The files of a tar archive, compressed or not, below ``folder``, with no owner or mode.

    Raises UserError, and writes nothing, where a member is a link or a device or leads out of
    ``folder``; and for an archive that is damaged.
    """
    # tarfile's own filters came with Python 3.11.4; Debian 12 has 3.11.2.
    try:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            for member in members:
                if not _is_harmless(member):
                    raise UserError(
                        f"{archive}: {member.name!r} in it is a link or a device, or leads out of "
                        "the archive's folder; get the archive from its official source"
                    )
            for member in members:
                path = folder / member.name
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(member)
                assert content is not None, "a plain file"
                with content, path.open("wb") as file:
                    shutil.copyfileobj(content, file)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{archive}: cannot be unpacked ({error}); get it again") from None


def _is_harmless(member: tarfile.TarInfo) -> bool:
    path = PurePosixPath(member.name)
    inside = not path.is_absolute() and ".." not in path.parts
    return inside and (member.isfile() or member.isdir())

"""Write files that are whole or absent, and read JSON that may be damaged."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from trainer.errors import UserError

T = TypeVar("T")

SUFFIX = ".tmp"
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Some folders cannot be opened or synced (CIFS, some FUSE, one that may not be listed). A file
# renamed there is whole all the same. PostgreSQL's fsync_fname ignores these errors, too.
FOLDER_SYNC_ERRORS = {
    errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EISDIR,
}  # fmt: skip


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; rename it to ``path`` on success, else remove it.

    The content is on the disk before the name changes (fsync of file and directory), so that a
    crash leaves the old file or the new one. An OSError becomes a UserError that names the file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{SUFFIX}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError into a UserError that names the file to be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written {explain_write_error(error)}") from error


def explain_write_error(error: OSError) -> str:
    """Say in brackets why a file could not be written, and then how to fix it."""
    fix = "make room" if error.errno in DISK_FULL else "check its permissions and its disk,"
    return f"({error.strerror or error}); {fix} or choose another path"


@contextmanager
def reading(place: object, fix: str) -> Iterator[None]:
    """Turn an OSError into a UserError that names the file to be read and ends in ``fix``."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{place}: {(error.strerror or str(error)).lower()}; {fix}") from error


def prepare_output_folder(folder: Path) -> None:
    """Create ``folder``, test that it takes files, and remove half-written ones of a killed writer.

    It must have no other writer. Raises UserError if no file can be made in it.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f".probe{SUFFIX}").touch()
        for leftover in folder.glob(f".*{SUFFIX}"):
            leftover.unlink()


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` to ``path``, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: Path, shape: type[T], fix: str) -> T:
    """Read the JSON file of a dataclass or model, as ``parse_json`` does.

    Raises UserError that ends in ``fix`` if it is missing or holds anything else.
    """
    with reading(path, fix):
        content = path.read_bytes()
    try:
        return parse_json(content, shape)
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); {fix}") from None


def parse_json(content: bytes, shape: type[T]) -> T:
    """Parse ``content``: each key of ``shape``, of its type; other keys only if it ignores them.

    Raises ValueError, of one line, for anything else.
    """
    config = getattr(shape, "model_config", {})
    try:
        return TypeAdapter(shape).validate_json(
            content, strict=True, extra=config.get("extra", "forbid")
        )
    except ValidationError as failure:
        raise ValueError(first_problem(failure)) from None


def first_problem(failure: ValidationError) -> str:
    """Describe what is wrong with a file without quoting it: "seconds: Input should be …"."""
    problem = failure.errors(include_input=False)[0]
    return ": ".join([*map(str, problem["loc"]), problem["msg"]])


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Block until the content of a file, or the names in a folder, are on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in FOLDER_SYNC_ERRORS or not path.is_dir():
            raise

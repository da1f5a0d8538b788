"""Define the errors that users see as one line, and the exit statuses."""

import errno
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Matches what stands between :// and @ in a URL, but not up to an @ in its path, port or not.
CREDENTIALS = re.compile(r"(?<=://)[^\s/?#@:]*(:(?!\d{1,5}/)\S*)?@")

# On a GPU also cuBLAS's and cuDNN's status, and what PyTorch says of a convolution whose algorithms
# all failed, each for want of its scratch memory: aten/src/ATen/native/cudnn/Conv_v8.cpp.
OUT_OF_MEMORY = re.compile(
    "(can't|cannot) allocate memory|out of memory|status_alloc_failed|unable to find an engine",
    re.IGNORECASE,
)

ERROR_STATUS = 2
STOPPED_STATUS = 75  # EX_TEMPFAIL of sysexits.h: try again
MAX_LENGTH = 2000  # characters of a message
# Errors that the machine causes. A file that is missing unexpectedly is a bug of ours instead.
MACHINE_ERRNOS = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO,
    errno.ESTALE, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EMFILE,
    errno.ENFILE,
}  # fmt: skip


class UserError(Exception):
    """Report what a user can fix: one line that names the setting or file and the fix.

    The command line prints it as ``error: …`` and exits with status 2; anything else that
    escapes is a bug of ours and keeps its traceback. No password of a URL gets into the line.
    """

    def __init__(self, message: str) -> None:
        line = CREDENTIALS.sub("…@", " ".join(message.split()))
        if len(line) > MAX_LENGTH:
            line = f"{line[: MAX_LENGTH // 2]} … {line[-MAX_LENGTH // 2 :]}"
        # Control characters in a file name or value could move the cursor or hide the message.
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in line))


class PeerFailedError(Exception):
    """Report in one line that another process of the run failed before, and said why."""


class DivergedError(UserError):
    """Report losses or parameters that are not finite, the first time after ``step`` steps.

    ``averaged``: since the clients' last step, they have been averaged.
    """

    def __init__(self, message: str, step: int, *, averaged: bool) -> None:
        super().__init__(message)
        self.step = step
        self.averaged = averaged


class StoppedError(Exception):
    """Report in one line that the run was asked to stop and can resume from a checkpoint."""


def is_out_of_memory(error: Exception) -> bool:
    """Check for a lack of memory, on a GPU or the host, in PyTorch, gloo or NCCL."""
    own = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return own or OUT_OF_MEMORY.search(str(error)) is not None


@contextmanager
def os_errors_as_user_errors() -> Iterator[None]:
    """Turn an OSError of the machine that names its file into a UserError, in whole commands."""
    try:
        yield
    except OSError as error:
        if error.filename is None or error.errno not in MACHINE_ERRNOS:
            raise
        reason = (error.strerror or str(error)).lower()
        raise UserError(
            f"{error.filename}: {reason}; check the path, its permissions and its disk"
        ) from error


def report(line: str) -> None:
    """Write ``line`` to stderr in one piece: processes of one torchrun would mix parts of lines."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def escape_unprintable() -> None:
    """Make stdout escape what it cannot encode, as stderr does."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

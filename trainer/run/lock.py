"""One process at a time trains into a folder: its run holds a lock there, and says whose it is.

The kernel releases the lock with the process that holds it: a killed run keeps none from starting.
Where the file system has no such locks (Lustre without ``flock``, some FUSE), the file alone marks
the run, and a killed one leaves it there. The next start on the same host removes it, where the
file system can exchange two names; else it says what is left to do.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from trainer.errors import UserError
from trainer.files.atomic import write_json, writing

LOCK = "running.lock"
OWNER = "running.json"
# ``owner`` shares the lock for an instant; who starts meanwhile tries again after so many seconds.
LOOK_SECONDS = 0.005
HELD = {errno.EAGAIN, errno.EWOULDBLOCK}
NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP}


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The main process of a run; ``started`` is in UTC, ISO 8601.

    ``namespace``: where its pid counts, a container perhaps. ``born``: see ``_born``.
    """

    pid: int
    host: str
    started: str
    namespace: str
    born: str

    def __str__(self) -> str:
        if self == UNKNOWN:
            return "its process has not said which it is"
        return f"process {self.pid} on {self.host} since {self.started}"

    @property
    def has_ended(self) -> bool:
        """Whether that is certain: its pid is nobody's here, where it counts, or another's."""
        here = (self.host, self.namespace) == (platform.node(), _namespace())
        return here and _born(self.pid) != self.born


UNKNOWN = Owner(pid=0, host="?", started="?", namespace="?", born="?")


class HeldError(UserError):
    """Another process trains there."""


@contextmanager
def running(log_pth: Path) -> Iterator[None]:
    """Holds the lock of the run in ``log_pth``; leaves nothing of it behind.

    Raises HeldError naming the folder and its owner when another process trains there.
    """
    path = log_pth / LOCK
    with writing(path):
        log_pth.mkdir(parents=True, exist_ok=True)
        soft = not _has_locks(log_pth)
        lock = SoftFileLock(path) if soft else FileLock(path)
        while not _acquired(lock):
            if soft:
                raise HeldError(_left_or_held(log_pth))
            # Held by another run; or shared by those who look, and nobody's.
            if (holder := owner(log_pth)) is not None:
                raise HeldError(
                    f"log_pth {log_pth}: this run is in progress already ({holder}); "
                    "wait for it, end it, or choose another log_pth"
                )
            time.sleep(LOOK_SECONDS)
    try:
        now = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
        own = Owner(
            pid=os.getpid(),
            host=platform.node(),
            started=now,
            namespace=_namespace(),
            born=_born(os.getpid()),
        )
        write_json(log_pth / OWNER, asdict(own))
        yield
    finally:
        # While it is held: whoever waits for a file that has lost its name is given the next one.
        (log_pth / OWNER).unlink(missing_ok=True)
        if not soft:  # whose release removes it
            path.unlink(missing_ok=True)
        lock.release()


def owner(log_pth: Path) -> Owner | None:
    """Who trains into ``log_pth`` now, if anybody does. Writes nothing."""
    try:
        with (log_pth / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in HELD:
            return _read(log_pth)
        marked = _marked_by(log_pth)  # without locks, as much by a run that was killed
        return None if marked.has_ended else marked
    return None


def _has_locks(folder: Path) -> bool:
    """Whether its file system has locks that end with their process.

    Raises UserError when it should have but, now, has not: another machine may hold one there.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.ENOLCK:
                raise UserError(
                    f"log_pth {folder}: its file system gives no locks now ({error.strerror}), so "
                    "that two runs could train there at once; start its lock service (for NFS: "
                    "rpc.statd), or choose a log_pth on another file system"
                ) from None
            if error.errno in NO_LOCKS:
                return False
            raise
    return True


def _marked_by(log_pth: Path) -> Owner:
    """Whose the file is: running.json may be an earlier run's, until its owner has written it."""
    found = _read(log_pth)
    return found if SoftFileLock(log_pth / LOCK).pid == found.pid else UNKNOWN


def _left_or_held(log_pth: Path) -> str:
    """Why no run starts where a file alone says that another is in progress."""
    holder = _marked_by(log_pth)
    remove = f"remove {log_pth / LOCK}"
    if holder.has_ended:
        return (
            f"log_pth {log_pth}: a run was killed there ({holder}), and its file system has no "
            f"locks that end with a process; {remove}"
        )
    return (
        f"log_pth {log_pth}: this run is in progress already ({holder}), or was killed: its file "
        f"system has no locks that end with a process; once that process is gone, {remove}"
    )


def _acquired(lock: BaseFileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


def _read(log_pth: Path) -> Owner:
    try:
        return Owner(**json.loads((log_pth / OWNER).read_text("utf-8")))
    except (OSError, ValueError, TypeError):  # its owner is about to write it
        return UNKNOWN


def _namespace() -> str:
    """Where this process's pid counts; empty where only one place is known."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _born(pid: int) -> str:
    """When process ``pid`` began: the machine's boot, and ticks since then, which no clock moves.

    Empty where there is no such process, or no /proc.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return ""
    return f"{boot} {stat.rpartition(')')[2].split()[19]}"

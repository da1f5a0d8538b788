"""Lock a run's folder, so that one process at a time trains into it, and name the owner.

The kernel releases the lock when its process ends: a killed run does not block the next start.
Where the file system has no such locks (Lustre without ``flock``, some FUSE), the file alone marks
the run, and a killed run leaves it behind. The next start on the same host removes it if the file
system can exchange two names; else it says which file to remove.
"""

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

from filelock import FileLock, SoftFileLock, Timeout

from trainer.errors import UserError
from trainer.files.atomic import write_json, writing

LOCK = "running.lock"
OWNER = "running.json"
# ``owner`` shares the lock for an instant; a run that starts meanwhile tries again after this.
POLL_SECONDS = 0.005
HELD = {errno.EAGAIN, errno.EWOULDBLOCK}
NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP}


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Identify the main process of a run; ``started`` is in UTC, ISO 8601.

    ``namespace``: in which the pid counts, a container's perhaps. ``born``: see ``_start_time``.
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
        """Check that it has certainly ended: in this namespace its pid is free, or another's."""
        here = (self.host, self.namespace) == (platform.node(), _namespace())
        return here and _start_time(self.pid) != self.born


UNKNOWN = Owner(pid=0, host="?", started="?", namespace="?", born="?")


class RunLockedError(UserError):
    """Report that another process trains into this folder."""


@contextmanager
def hold_lock(log_pth: Path) -> Iterator[None]:
    """Hold the lock of the run in ``log_pth``; leave no file behind.

    Raises RunLockedError, which names the folder and its owner, if another process trains there.
    """
    path = log_pth / LOCK
    with writing(path):
        log_pth.mkdir(parents=True, exist_ok=True)
        soft = not _has_locks(log_pth)
        lock = SoftFileLock(path) if soft else FileLock(path)
        while not lock.is_locked:
            try:
                lock.acquire(blocking=False)
            except Timeout:
                # Another run holds it, or ``owner`` shares it for an instant and nobody holds it.
                holder = _read_marker(log_pth) if soft else owner(log_pth)
                if holder is not None:
                    raise RunLockedError(_explain(log_pth, holder, soft=soft)) from None
                time.sleep(POLL_SECONDS)
    try:
        own = Owner(
            pid=os.getpid(),
            host=platform.node(),
            started=datetime.now(UTC).isoformat(sep=" ", timespec="seconds"),
            namespace=_namespace(),
            born=_start_time(os.getpid()),
        )
        write_json(log_pth / OWNER, asdict(own))
        yield
    finally:
        # Removed while held: FileLock opens the file anew if the one it has locked lost its name.
        (log_pth / OWNER).unlink(missing_ok=True)
        if not soft:  # SoftFileLock removes it by its release
            path.unlink(missing_ok=True)
        lock.release()


def owner(log_pth: Path) -> Owner | None:
    """Return the process that trains into ``log_pth`` now, or None. Writes nothing."""
    try:
        with (log_pth / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in HELD:
            return _read(log_pth)
        marked = _read_marker(log_pth)  # without locks a killed run leaves one, too
        return None if marked.has_ended else marked
    return None


def _has_locks(folder: Path) -> bool:
    """Check whether the file system of ``folder`` has locks that end with their process.

    Raises UserError if it should have them but gives none now: another machine may hold one.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.ENOLCK:
                raise UserError(
                    f"log_pth {folder}: its file system cannot lock files at present "
                    f"({error.strerror}), so that two runs could train there at once; start its "
                    "lock service (for NFS: rpc.statd), or choose a log_pth on another file system"
                ) from None
            if error.errno in NO_LOCKS:
                return False
            raise
    return True


def _read_marker(log_pth: Path) -> Owner:
    """Return the owner of the lock file; running.json may still be an earlier run's."""
    found = _read(log_pth)
    return found if SoftFileLock(log_pth / LOCK).pid == found.pid else UNKNOWN


def _explain(log_pth: Path, holder: Owner, *, soft: bool) -> str:
    """Explain why no run starts; ``soft``: a file alone says that ``holder`` trains there."""
    going_on = f"this run is in progress already ({holder})"
    lacks = "its file system has no locks that end with a process"
    remove = f"remove {log_pth / LOCK}"
    if not soft:
        reason = f"{going_on}; wait for it, end it, or choose another log_pth"
    elif holder.has_ended:
        reason = f"a run was killed there ({holder}), and {lacks}; {remove}"
    else:
        reason = f"{going_on}, or was killed: {lacks}; once that process is gone, {remove}"
    return f"log_pth {log_pth}: {reason}"


def _read(log_pth: Path) -> Owner:
    try:
        return Owner(**json.loads((log_pth / OWNER).read_text("utf-8")))
    except (OSError, ValueError, TypeError):  # the owner is about to write it
        return UNKNOWN


def _namespace() -> str:
    """Return the namespace in which this process's pid counts; "" where there is no /proc."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _start_time(pid: int) -> str:
    """Return the machine's boot and the clock ticks from it to the start of process ``pid``.

    Setting the clock changes neither. "" where there is no such process, or no /proc.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return ""
    return f"{boot} {stat.rpartition(')')[2].split()[19]}"

"""One process at a time trains into a folder: its run holds a lock there, and says whose it is.

The kernel releases the lock with the process that holds it: a killed run keeps none from starting.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from trainer.errors import UserError
from trainer.files import write_json, writing

LOCK = "running.lock"
OWNER = "running.json"
# ``owner`` shares the lock for an instant; who starts meanwhile tries again after so many seconds.
LOOK_SECONDS = 0.005


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The main process of a run; ``started`` is in UTC, ISO 8601."""

    pid: int
    host: str
    started: str

    def __str__(self) -> str:
        if self == UNKNOWN:
            return "its process has not said which it is"
        return f"process {self.pid} on {self.host} since {self.started}"


UNKNOWN = Owner(pid=0, host="?", started="?")


class HeldError(UserError):
    """Another process trains there."""


@contextmanager
def running(log_pth: Path) -> Iterator[None]:
    """Holds the lock of the run in ``log_pth``; leaves nothing of it behind.

    Raises HeldError naming the folder and its owner when another process trains there.
    """
    lock = FileLock(log_pth / LOCK)
    with writing(log_pth / LOCK):
        log_pth.mkdir(parents=True, exist_ok=True)
        while not _acquired(lock):
            # Held by another run; or shared by those who look, and nobody's.
            if (holder := owner(log_pth)) is not None:
                raise HeldError(
                    f"log_pth {log_pth}: this run is in progress already ({holder}); "
                    "wait for it, end it, or choose another log_pth"
                )
            time.sleep(LOOK_SECONDS)
    try:
        now = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
        write_json(
            log_pth / OWNER, asdict(Owner(pid=os.getpid(), host=platform.node(), started=now))
        )
        yield
    finally:
        # While it is held: whoever waits for a file that has lost its name is given the next one.
        (log_pth / OWNER).unlink(missing_ok=True)
        (log_pth / LOCK).unlink(missing_ok=True)
        lock.release()


def owner(log_pth: Path) -> Owner | None:
    """Who trains into ``log_pth`` now, if anybody does. Writes nothing."""
    try:
        with (log_pth / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:  # it is held; or the file system has no such locks, and the file says so
        return _read(log_pth)
    return None


def _acquired(lock: FileLock) -> bool:
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

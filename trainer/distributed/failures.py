"""End all processes of a run within seconds of the first failure, which is reported once.

The first process to fail leaves a note in the store that all have joined. Each looks for it in a
thread of its own: the main thread may be in a collective that the failed process will never join,
where NCCL waits until the timeout. After a failure no process destroys the process group, which may
wait, too (https://github.com/pytorch/torchtitan/issues/1342); the group ends with its process.
"""

import json
import os
import platform
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from torch.distributed.distributed_c10d import Store

from trainer.distributed.launcher_variables import LauncherVariables
from trainer.errors import ERROR_STATUS, PeerFailedError, StoppedError, report

NOTE = "first failure"
POLL_SECONDS = 0.5
# A process that knows of a peer's failure may take so long to raise and to close its files.
ENDING_SECONDS = 5.0
# The kernel ends a failed process after this, even if NCCL's threads, say, keep it waiting.
EXIT_SECONDS = 30
# The process that keeps the store waits at most so long for the others to read the note.
READ_SECONDS = 3.0


@contextmanager
def fail_together(store: Store, own: LauncherVariables) -> Iterator[None]:
    """End all processes of a run if one of them fails within the context.

    The first to fail raises its own error. The others raise PeerFailedError, or exit from wherever
    they wait. StoppedError is no failure: all processes have agreed on it.
    """
    watch = _FailureWatch(store, own)
    thread = threading.Thread(target=watch.run, name="failures of others", daemon=True)
    thread.start()
    try:
        yield
    except StoppedError:
        raise
    except BaseException:
        signal.alarm(EXIT_SECONDS)
        watch.report()
        if watch.peer_failure:
            raise PeerFailedError(watch.peer_failure) from None
        raise
    finally:
        watch.over.set()
        thread.join(POLL_SECONDS)


class _FailureWatch:
    """Exchange notes of the first failure through the store."""

    def __init__(self, store: Store, own: LauncherVariables) -> None:
        self._store = store.clone()  # a second connection: the first may be blocked
        self._own = own
        self.peer_failure: str | None = None
        self.over = threading.Event()

    def report(self) -> None:
        """Leave a note that this process has failed, unless another has failed before."""
        if self.peer_failure:
            return
        note = json.dumps([self._own.rank, platform.node()])
        with suppress(RuntimeError):  # the store is gone
            self._read_note(self._store.compare_set(NOTE, "", note))
            if self._own.rank == 0 and not self._own.store_in_launcher:
                others = [f"{NOTE}: {other} knows" for other in range(1, self._own.size)]
                self._store.wait(others, timedelta(seconds=READ_SECONDS))

    def run(self) -> None:
        """Exit from this process soon after another failed, unless it ends by itself."""
        while not self.over.wait(POLL_SECONDS):
            try:
                if not self._store.check([NOTE]):
                    continue
                self._read_note(self._store.get(NOTE))
            except RuntimeError:
                if self._own.store_in_launcher:  # it is gone, and stops its processes itself
                    return
                self.peer_failure = "process 0, which keeps the store of all, has died"
            if not self.over.wait(ENDING_SECONDS):
                report(f"ended: {self.peer_failure}")
                os._exit(ERROR_STATUS)

    def _read_note(self, note: bytes) -> None:
        """Read who failed first, and tell the process that keeps the store so."""
        rank, host = json.loads(note)
        if rank != self._own.rank:
            self.peer_failure = f"process {rank} on {host} has failed and said why"
        self._store.set(f"{NOTE}: {self._own.rank} knows", "")

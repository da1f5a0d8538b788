"""A process that fails ends the others of its run within seconds, and says why once.

The first to fail leaves a note in the store that the processes met at. Each looks for one in a
thread: it may itself be in a collective that the failed process will never join, and NCCL's wait
for that until the timeout. On this path nobody leaves the process group, which may wait, too
(https://github.com/pytorch/torchtitan/issues/1342); it ends with its process.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from torch.distributed.distributed_c10d import Store

from trainer.errors import ERROR_STATUS, PeerFailedError, StoppedError

NOTE = "first failure"
LOOK_SECONDS = 0.5
# A process that has learned of a failure may still close its files, unless it is in a collective.
ENDING_SECONDS = 5.0
# The kernel ends a failed process then, whatever its end waits for: NCCL's own threads, say.
EXIT_SECONDS = 30
# The process that keeps the store waits so long until all have learned of the failure.
KEPT_SECONDS = 3.0


@contextmanager
def ending_together(store: Store, rank: int, size: int, *, kept_by_main: bool) -> Iterator[None]:
    """Ends all ``size`` processes of a run where one of them fails within.

    The first process raises what it raised. Others raise PeerFailedError, or exit from wherever
    they wait. StoppedError is no failure: all processes have agreed on it.
    """
    failures = _Failures(store, rank, size, kept_by_main)
    watch = threading.Thread(target=failures.watch, name="failures of others", daemon=True)
    watch.start()
    try:
        yield
    except StoppedError:
        raise
    except BaseException:
        signal.alarm(EXIT_SECONDS)
        failures.report()
        if failures.of_another:
            raise PeerFailedError(failures.of_another) from None
        raise
    finally:
        failures.over.set()
        watch.join(LOOK_SECONDS)


class _Failures:
    """What a process knows of the first failure.

    ``kept_by_main``: the store is gone with the main process, else with the launcher.
    """

    def __init__(self, store: Store, rank: int, size: int, kept_by_main: bool) -> None:
        self._store = store.clone()  # a connection of its own: the other may be waiting
        self._rank = rank
        self._size = size
        self._kept_by_main = kept_by_main
        self.of_another: str | None = None
        self.over = threading.Event()

    def report(self) -> None:
        """Leaves a note of a failure of this process, or learns that another has failed before."""
        if self.of_another:
            return
        note = json.dumps([self._rank, platform.node()])
        with suppress(RuntimeError):  # the store is gone: what is known is known
            self._learn(self._store.compare_set(NOTE, "", note))
            if self._kept_by_main and self._rank == 0:
                others = [f"{NOTE}: {other} knows" for other in range(1, self._size)]
                self._store.wait(others, timedelta(seconds=KEPT_SECONDS))

    def watch(self) -> None:
        """Exits from the process soon after another failed, if it has not ended by itself."""
        while not self.over.wait(LOOK_SECONDS):
            try:
                if not self._store.check([NOTE]):
                    continue
                self._learn(self._store.get(NOTE))
            except RuntimeError:
                if not self._kept_by_main:  # the launcher is gone, and tells its processes to stop
                    return
                self.of_another = "process 0, which keeps the store of all, has died"
            if not self.over.wait(ENDING_SECONDS):
                sys.stderr.write(f"ended: {self.of_another}\n")
                sys.stderr.flush()
                os._exit(ERROR_STATUS)

    def _learn(self, note: bytes) -> None:
        rank, host = json.loads(note)
        if rank != self._rank:
            self.of_another = f"process {rank} on {host} has failed and said why"
        self._store.set(f"{NOTE}: {self._rank} knows", "")

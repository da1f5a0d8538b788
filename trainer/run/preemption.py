"""What asks a run to stop before its end: a signal, its time limit, or its job's end."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import psutil

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: try again
SIGNALS = (signal.SIGTERM, signal.SIGINT)
PR_SET_PDEATHSIG = 1  # of prctl(2)


def started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def end_with_torchrun() -> None:
    """This process gets SIGTERM when the torchrun that started it dies, killed or not."""
    if started_by_torchrun() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class StoppedError(Exception):
    """The run was asked to stop and can go on from a checkpoint; its text is one line."""


class StopRequest:
    """``reason`` is None until there is one to stop.

    ``by_torchrun``: its processes get each Ctrl-C twice, from the terminal and from torchrun, which
    kills them 30 s later anyway. Without it, a second signal ends the process at once.
    """

    def __init__(
        self,
        time_limit: float | None = None,
        *,
        by_torchrun: bool = False,
        job_stops: float | None = None,
    ) -> None:
        """``time_limit``: minutes, counted from the start of the process, or of its torchrun.

        ``job_stops``: when the run is to stop for its job's sake, in seconds since 1970.
        """
        self._signal: str | None = None
        self._by_torchrun = by_torchrun
        self._time_limit = time_limit
        self._end = float("inf")
        self._job_stops = job_stops if job_stops is not None else float("inf")
        if time_limit is not None:
            # A process that torchrun starts anew has no more time than the first.
            started_by = psutil.Process(os.getppid() if by_torchrun else None)
            self._end = started_by.create_time() + 60 * time_limit

    @property
    def reason(self) -> str | None:
        return self.reason_within(0)

    def reason_within(self, seconds: float) -> str | None:
        """Why the run must have stopped so many seconds from now."""
        if self._signal is not None:
            return self._signal
        if time.time() + seconds >= self._end:
            return f"time_limit of {self._time_limit:g} minutes"
        if time.time() + seconds >= self._job_stops:
            return "the Slurm job ends soon"
        return None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Meanwhile, SIGTERM and SIGINT are reasons; those that are ignored stay so."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        heeded = [number for number, handler in before.items() if handler != signal.SIG_IGN]
        try:
            for number in heeded:
                signal.signal(number, self._note)
            yield
        finally:
            for number in heeded:
                signal.signal(number, before[number])

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None and not self._by_torchrun:
            raise KeyboardInterrupt
        self._signal = signal.Signals(number).name

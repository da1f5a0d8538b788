"""Estimate the time until the last of many runs is done, from how long the finished ones took."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache


class TimeLeft:
    """Estimate when all runs are done: each takes as long per unit of ``work`` as the others did.

    As many run at once as ever did in this call. ``work`` maps a run's id to any positive number.
    """

    def __init__(self, runs: Iterable[str], work: Callable[[str], float]) -> None:
        self.waiting, self.running = set(runs), dict[str, float]()
        self._work, self._done, self._seconds, self._at_once = cache(work), 0.0, 0.0, 1

    def begin(self, run: str, now: float) -> None:
        self.waiting.discard(run)
        self.running[run] = now
        self._at_once = max(self._at_once, len(self.running))

    def end(self, run: str, now: float) -> None:
        self._seconds += now - self.running.pop(run)
        self._done += self._work(run)

    def fail(self, run: str) -> None:
        self.running.pop(run, None)

    def seconds(self, now: float) -> float:
        """Estimate the seconds from ``now`` on; at least one run must have ended."""
        pace = self._seconds / self._done
        begun = (max(0, pace * self._work(run) - now + at) for run, at in self.running.items())
        return (sum(begun) + pace * sum(map(self._work, self.waiting))) / self._at_once


def duration(seconds: float) -> str:
    """Format seconds in the unit that fits."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

"""Decide when a run is saved, and when it stops early: on a signal, a time limit, its job's end."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import psutil
import torch

from trainer.distributed.world import World
from trainer.local_sgd.schedule import Round

SIGNALS = (signal.SIGTERM, signal.SIGINT)
PACE_SECONDS = 1.0
# torchrun kills a process 30 s after it has asked it to stop.
LONG_EVALUATION_SECONDS = 15.0


class PreemptionGuard:
    """Know why the run must stop: ``reason`` is None as long as it need not.

    A second signal ends the process at once, but not ``by_torchrun``: its processes get each Ctrl-C
    twice, from the terminal and from torchrun, which kills them 30 s later anyway.
    """

    def __init__(
        self,
        time_limit: float | None = None,
        *,
        by_torchrun: bool = False,
        job_stops: float | None = None,
    ) -> None:
        """Set the deadlines.

        ``time_limit``: minutes from the start of the process or its torchrun. ``job_stops``: when
        the run must stop because its job ends, in seconds since 1970.
        """
        self._signal: str | None = None
        self._by_torchrun = by_torchrun
        self._deadlines: dict[str, float] = {}
        if time_limit is not None:
            # A process that torchrun restarts has no more time than the first.
            started_by = psutil.Process(os.getppid() if by_torchrun else None)
            end = started_by.create_time() + 60 * time_limit
            self._deadlines[f"time_limit of {time_limit:g} minutes"] = end
        if job_stops is not None:
            self._deadlines["the Slurm job ends soon"] = job_stops

    @property
    def reason(self) -> str | None:
        return self.reason_within(0)

    def reason_within(self, seconds: float) -> str | None:
        """Return why the run must stop before ``seconds`` from now have passed, or None."""
        then = time.time() + seconds
        due = (reason for reason, end in self._deadlines.items() if then >= end)
        return self._signal or next(due, None)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within the context, SIGTERM and SIGINT request a stop; ignored signals stay ignored."""
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        before = {n: handler for n, handler in handlers.items() if handler != signal.SIG_IGN}
        try:
            for number in before:
                signal.signal(number, self._handle)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None and not self._by_torchrun:
            raise KeyboardInterrupt
        self._signal = signal.Signals(number).name


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Say what all processes do after a step.

    ``before_use``: the state is about to be saved or evaluated.
    """

    before_use: bool
    save: bool
    stop: bool


class CheckpointPolicy:
    """Decide after each step, alike on all processes, whether to check, save and stop.

    They agree at steps that each of them knows beforehand: the ends of rounds whose model is
    exported, and a step that the main process chose at the last agreement, about a second after it.
    In between, no process waits for another. A signal to any process stops all after the same step.

    A checkpoint is due after ``every`` seconds, but may wait as long again for its round to end.
    One is also saved before an evaluation so long that torchrun may kill the run during it.
    """

    def __init__(self, world: World, guard: PreemptionGuard, every: float, start: int) -> None:
        """Start the clocks; ``start`` steps were done before."""
        self._world = world
        self._guard = guard
        self._every = every
        self._saved = self._agreed = time.monotonic()
        self._agreed_step = start
        self._next = start
        self._evaluation_seconds = 0.0
        self._own_reason: str | None = None

    @property
    def reason(self) -> str:
        """Say why the run stops."""
        return self._own_reason or "another process was asked to stop"

    def evaluated(self, seconds: float) -> None:
        """Record the evaluation's duration."""
        self._evaluation_seconds = seconds
        self._agreed += seconds  # does not count towards the pace of steps

    def saved(self) -> None:
        """Record that the state was saved, or could not be."""
        self._saved = time.monotonic()

    def decide(self, step: int, round: Round) -> Decision | None:
        """Decide what to do after ``step`` steps, the last of them in ``round``; None: go on."""
        at_end = step == round.stop
        before_export = at_end and round.exported
        alone = self._world.size == 1 and self._guard.reason is not None
        if step < self._next and not before_export and not alone:
            return None
        lasts = self._evaluation_seconds if at_end and round.evaluate else 0.0
        self._own_reason = self._guard.reason_within(lasts)
        save, next_step = False, 0
        if self._world.is_main:
            waits = self._every if at_end else 2 * self._every
            due = time.monotonic() - self._saved >= waits
            save = due or lasts > LONG_EVALUATION_SECONDS
            next_step = self._next_agreement(step, round)
        votes = torch.tensor(
            [self._own_reason is not None, save, next_step], device=self._world.device
        )
        stops, saves, self._next = self._world.all_sum(votes).tolist()
        use = before_export or stops + saves > 0
        return Decision(before_use=use, save=saves > 0, stop=stops > 0)

    def _next_agreement(self, step: int, round: Round) -> int:
        """Estimate the step in ``PACE_SECONDS``; not past a round's end that a save awaits."""
        now = time.monotonic()
        steps_per_second = (step - self._agreed_step) / max(now - self._agreed, 1e-6)
        self._agreed, self._agreed_step = now, step
        pace = min(PACE_SECONDS, self._every)
        next_step = step + max(1, int(steps_per_second * pace))
        waiting = now - self._saved >= self._every and step < round.stop
        return min(next_step, round.stop) if waiting else next_step

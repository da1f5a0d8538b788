"""When a run that is going on is saved, and when it stops: the same on all its processes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

from trainer.distributed.world import World
from trainer.errors import UserError
from trainer.local_sgd.schedule import Round
from trainer.run.preemption import StoppedError, StopRequest

PACE_SECONDS = 1.0
# torchrun kills a process 30 s after it has asked it to stop.
LONG_EVALUATION_SECONDS = 15.0


class Pauses:
    """Called after each step; at some, all processes agree on whether to save and to stop.

    They do so at steps that each of them knows beforehand: the ends of rounds whose model is looked
    at or kept, and the step that the main process named when they agreed last, about a second
    later. Between them no process waits for another. A signal to any stops all after the same step.

    A checkpoint is due after ``every`` seconds, and waits for the end of its round for as long
    again. It is saved before an evaluation, and so that one that outlasts torchrun's patience can
    be repeated.
    """

    def __init__(
        self,
        world: World,
        request: StopRequest,
        every: float,
        start: int,
        check: Callable[[int, Round, bool], None],
        save: Callable[[int, Round], None],
    ) -> None:
        """``start``: steps done before. ``save`` is given the step and its round, as ``check`` is.

        ``check`` raises where the run must not go on; asked to be thorough where its state is about
        to be saved or evaluated.
        """
        self._world = world
        self._request = request
        self._every = every
        self._check = check
        self._save = save
        self._saved = self._agreed = time.monotonic()
        self._agreed_step = start
        self._next = start
        self._evaluation_seconds = 0.0

    def evaluated(self, seconds: float) -> None:
        """So long an evaluation took, and what is done with it."""
        self._evaluation_seconds = seconds
        self._agreed += seconds  # not the pace of steps

    def after(self, step: int, round: Round) -> None:
        """After ``step`` steps of the run, the last of them in ``round``.

        Raises StoppedError, once the state is saved.
        """
        before_export = step == round.stop and round.exported
        alone = self._world.size == 1 and self._request.reason is not None
        if step < self._next and not before_export and not alone:
            return
        stop, save, self._next = self._agree(step, round)
        self._check(step, round, before_export or stop or save)
        if not (stop or save):
            return
        try:
            self._save(step, round)
        except UserError as error:
            if stop:
                raise
            if self._world.is_main:
                print(f"warning: {error}; training goes on", file=sys.stderr, flush=True)
        self._saved = time.monotonic()
        if stop:
            reason = self._request.reason or "another process was asked to stop"
            raise StoppedError(f"{reason}; saved at step {step}, start it again to go on")

    def _agree(self, step: int, round: Round) -> tuple[bool, bool, int]:
        """Whether to stop, to save, and the step to agree at next."""
        lasts = self._evaluation_seconds if step == round.stop and round.evaluate else 0.0
        stop = self._request.reason_within(lasts) is not None
        save, next_step = False, 0
        if self._world.is_main:
            save = self._due(step, round, lasts > LONG_EVALUATION_SECONDS)
            next_step = self._paced(step, round)
        votes = torch.tensor([stop, save, next_step], device=self._world.device)
        stops, saves, next_step = self._world.sum_(votes).tolist()
        return stops > 0, saves > 0, next_step

    def _due(self, step: int, round: Round, before_long_evaluation: bool) -> bool:
        waits = self._every if step == round.stop else 2 * self._every
        return before_long_evaluation or time.monotonic() - self._saved >= waits

    def _paced(self, step: int, round: Round) -> int:
        """The step about ``PACE_SECONDS`` from now; not beyond a round whose end is waited for."""
        now = time.monotonic()
        steps_per_second = (step - self._agreed_step) / max(now - self._agreed, 1e-6)
        self._agreed, self._agreed_step = now, step
        pace = min(PACE_SECONDS, self._every)
        next_step = step + max(1, int(steps_per_second * pace))
        waiting = now - self._saved >= self._every and step < round.stop
        return min(next_step, round.stop) if waiting else next_step

"""Compute learning rate, H, phases and rounds as pure functions of the step.

A step counts the local steps of one client since the run's start; all clients step together.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from trainer.local_sgd.h_rules import HRule, InversePower, RoundStart, constant


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Give steps ``start`` … ``stop`` − 1 one learning rate factor and one H."""

    start: int
    stop: int
    lr_factor: float
    local_steps: int
    eval_freq: int
    save_freq: int | None = None


@dataclass(frozen=True, kw_only=True)
class Round:
    """Describe steps ``start`` … ``stop`` − 1, then averaging; fewer than H where a phase ends.

    An evaluation, a saved model (``save``) or the next phase (``decay``) may follow.
    """

    index: int
    phase: int
    start: int
    stop: int
    local_steps: int
    evaluate: bool
    save: bool = False
    decay: bool = False

    @property
    def exported(self) -> bool:
        """Return whether the averaged model is evaluated or saved."""
        return self.evaluate or self.save or self.decay


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Compute a run's learning rate and rounds from its phases."""

    phases: tuple[Phase, ...]
    peak_lr: float
    initial_lr: float
    warmup_steps: int
    cosine: bool = False
    h_rule: HRule = constant

    @property
    def steps(self) -> int:
        return self.phases[-1].stop

    def lr(self, step: int) -> float:
        """Return η: linear warm-up, then constant or a cosine, times the phase's factor."""
        if step < self.warmup_steps:
            rise = (self.peak_lr - self.initial_lr) * step / self.warmup_steps
            return (self.initial_lr + rise) * self._factor(step)
        return self._decayed_lr(step)

    def phase(self, step: int) -> int:
        """Return the index of the phase that ``step`` belongs to."""
        return next(i for i, phase in enumerate(self.phases) if step < phase.stop)

    def initial_round(self) -> Round:
        """Return a round of no steps, to evaluate the initial model."""
        h = self.local_steps(self.phases[0], 0)
        return Round(index=0, phase=0, start=0, stop=0, local_steps=h, evaluate=True)

    def rounds(self, start: int = 0) -> Iterator[Round]:
        """Yield the rounds in order, from the one that step ``start`` belongs to.

        H changes only right after averaging: a phase's end ends a round. Every ``eval_freq``-th
        round of a phase and the run's last are evaluated; every ``save_freq``-th is saved.
        """
        index = 0
        for i, phase in enumerate(self.phases):
            step, in_phase = phase.start, 0
            if self._constant_h and start > step:
                # Skip the rounds before ``start`` in one leap: they may be millions.
                h, done = self.local_steps(phase, step), min(start, phase.stop) - step
                in_phase = -(-done // h) if start >= phase.stop else done // h
                index, step = index + in_phase, min(step + in_phase * h, phase.stop)
            while step < phase.stop:
                index, in_phase = index + 1, in_phase + 1
                local_steps = self.local_steps(phase, step)
                stop = min(step + local_steps, phase.stop)
                if stop > start:
                    yield Round(
                        index=index,
                        phase=i,
                        start=step,
                        stop=stop,
                        local_steps=local_steps,
                        evaluate=in_phase % phase.eval_freq == 0 or stop == self.steps,
                        save=phase.save_freq is not None and in_phase % phase.save_freq == 0,
                        decay=stop == phase.stop != self.steps,
                    )
                step = stop

    @property
    def averages_every_step(self) -> bool:
        """Return whether every round is a single step: large-batch SGD."""
        if self._constant_h:
            return all(self.local_steps(phase, phase.start) == 1 for phase in self.phases)
        return all(round.local_steps == 1 for round in self.rounds())

    @property
    def _constant_h(self) -> bool:
        """Return whether H stays the same within each phase."""
        by_lr = isinstance(self.h_rule, InversePower) and not self.cosine
        return self.h_rule is constant or by_lr

    def local_steps(self, phase: Phase, step: int) -> int:
        """Return H of a round that begins at ``step``; in the warm-up, as right after it.

        QSR would otherwise answer a warm-up's small η with long rounds at the very beginning.
        """
        lr = self._decayed_lr(max(step, self.warmup_steps))
        h = phase.local_steps
        return self.h_rule(RoundStart(step=step, steps=self.steps, lr=lr, local_steps=h))

    def _decayed_lr(self, step: int) -> float:
        lr = self.peak_lr
        if self.cosine and step < self.steps:
            share = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
            lr *= (1 + math.cos(math.pi * share)) / 2
        return lr * self._factor(step)

    def _factor(self, step: int) -> float:
        return self.phases[self.phase(min(step, self.steps - 1))].lr_factor

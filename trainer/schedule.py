"""Learning rate, H, phases and rounds as pure functions of the step.

A step counts the local steps of one client since the run's start; every client takes the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trainer.config import MAX_PHASES, RunSettings


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Steps ``start`` … ``stop`` − 1 with one learning rate factor and one H."""

    start: int
    stop: int
    lr_factor: float
    local_steps: int
    eval_freq: int


@dataclass(frozen=True, kw_only=True)
class Round:
    """``stop − start`` local steps, then averaging; shorter than H where a phase ends."""

    index: int
    phase: int
    start: int
    stop: int
    evaluate: bool


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The phases of a run and its learning rate."""

    phases: tuple[Phase, ...]
    peak_lr: float
    start_lr: float
    warmup_steps: int

    @property
    def steps(self) -> int:
        return self.phases[-1].stop

    def lr(self, step: int) -> float:
        """η of ``step``: linear warm-up from start_lr to peak_lr, times the phase's factor."""
        warm = self.peak_lr
        if step < self.warmup_steps:
            warm = self.start_lr + (self.peak_lr - self.start_lr) * step / self.warmup_steps
        return warm * self.phases[self.phase(step)].lr_factor

    def phase(self, step: int) -> int:
        """Index of the phase that ``step`` belongs to."""
        return next(i for i, phase in enumerate(self.phases) if step < phase.stop)

    def rounds(self) -> Iterator[Round]:
        """All rounds in order. H changes only right after averaging: a phase end ends a round.

        Every ``eval_freq``-th round of a phase is evaluated, and the last of the run.
        """
        index = 0
        for i, phase in enumerate(self.phases):
            starts = range(phase.start, phase.stop, phase.local_steps)
            for in_phase, start in enumerate(starts, 1):
                index += 1
                stop = min(start + phase.local_steps, phase.stop)
                evaluate = in_phase % phase.eval_freq == 0 or stop == self.steps
                yield Round(index=index, phase=i, start=start, stop=stop, evaluate=evaluate)


def make_schedule(settings: RunSettings, steps_per_epoch: int) -> Schedule:
    """The schedule of ``settings``; decays at or past the end of the run never come."""
    steps = settings.epochs * steps_per_epoch
    decays = [
        epoch * steps_per_epoch for epoch in (settings.decay1, settings.decay2) if epoch is not None
    ]
    starts = [0, *(step for step in decays if step < steps)]
    stops = [*starts[1:], steps]
    phases = tuple(
        Phase(
            start=start,
            stop=stop,
            lr_factor=settings.gamma**i,
            local_steps=getattr(settings, f"step{i + 1}"),
            eval_freq=getattr(settings, f"eval_freq{i + 1}"),
        )
        for i, (start, stop) in enumerate(zip(starts, stops, strict=True))
    )
    assert len(phases) <= MAX_PHASES
    return Schedule(
        phases=phases,
        peak_lr=settings.peak_lr,
        start_lr=settings.start_lr,
        warmup_steps=settings.warmup_epochs * steps_per_epoch if settings.warm_up else 0,
    )

"""How long a run is, and what H, the learning rate, evaluation and saving are in its phases."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, field_validator

from trainer.settings.base import Settings, changed, setting
from trainer.settings.yaml import parse_yaml

# The authors' scripts write a decay that is to never come as a very large epoch.
FAR_PAST_THE_END = 10


class PhaseSettings(Settings):
    """A stretch of a run with one learning rate factor and one H."""

    epochs: int = Field(description="length in epochs", ge=1)
    lr_factor: float = Field(1.0, description="times the learning rate after warm-up", gt=0)
    local_steps: int = Field(1, description="H", ge=1)
    eval_freq: int = Field(1, description="evaluate every so many rounds", ge=1)
    save_freq: int | None = Field(
        None, description="save the model every so many rounds; None: at the end alone", ge=1
    )


class ScheduleSettings(Settings):
    """By flags for up to four phases, or by a list of any number."""

    epochs: int = setting(300, "epochs to train from the start point", "schedule", ge=1)
    steps_per_epoch: int | None = setting(
        None, "steps in one epoch; None or -1: ⌊training samples / B⌋", "schedule", ge=1
    )
    decay1: int | None = setting(
        None,
        "epoch of the first decay, from the start point (dataset imagenet: from epoch 0, as the "
        "authors'); None or far past the end: no decay",
        "schedule",
        ge=1,
    )
    decay2: int | None = setting(None, "epoch of the second decay", "schedule", ge=1)
    decay3: int | None = setting(None, "epoch of the third decay", "schedule", ge=1)
    gamma: float = setting(0.1, "factor at each decay", "schedule", gt=0)
    step1: int = setting(1, "H, the local steps of a round, in phase 1", "schedule", ge=1)
    step2: int = setting(1, "H in phase 2 (after the first decay)", "schedule", ge=1)
    step3: int = setting(1, "H from phase 3 on (after the second decay)", "schedule", ge=1)
    eval_freq1: int = setting(1, "evaluate every so many rounds in phase 1", "schedule", ge=1)
    eval_freq2: int = setting(1, "the same in phase 2", "schedule", ge=1)
    eval_freq3: int = setting(1, "the same from phase 3 on", "schedule", ge=1)
    save_freq1: int | None = setting(
        None,
        "save the model every so many rounds in phase 1; None: at the phase's end alone",
        "schedule",
        affects_results=False,
        ge=1,
    )
    save_freq2: int | None = setting(
        None, "the same in phase 2", "schedule", affects_results=False, ge=1
    )
    save_freq3: int | None = setting(
        None, "the same from phase 3 on", "schedule", affects_results=False, ge=1
    )
    schedule: tuple[PhaseSettings, ...] | None = setting(
        None,
        "phases as a list instead of epochs, decay, step and eval-freq: YAML, each with epochs, "
        "lr_factor, local_steps, eval_freq, save_freq",
        "schedule",
        min_length=1,
    )
    h_rule: Literal["constant", "qsr"] = setting(
        "constant",
        "H in a phase: constant, or max(h_base, ⌊(alpha/η)²⌋) (https://arxiv.org/abs/2310.14423)",
        "schedule",
    )
    h_base: int = setting(1, "smallest H of the qsr rule", "schedule", ge=1)
    alpha: float | None = setting(None, "α of the qsr rule", "schedule", gt=0)

    @field_validator("steps_per_epoch", mode="before")
    @classmethod
    def _minus_one_is_none(cls, value: Any) -> Any:
        """The default of the authors' ``--steps-per-epoch``, which their ImageNet code takes so."""
        return None if value in (-1, "-1") else value

    @field_validator("schedule", mode="before")
    @classmethod
    def _schedule_is_yaml(cls, value: Any) -> Any:
        """On the command line the list is one word: ``'[{epochs: 3, local_steps: 4}]'``."""
        if not isinstance(value, str):
            return value
        try:
            return parse_yaml(value)
        except ValueError as error:
            raise ValueError(f"is not valid YAML: {error}") from None

    @property
    def phases(self) -> tuple[PhaseSettings, ...]:
        """``schedule``, or what the flags say in its terms; decays past the end never come."""
        if self.schedule is not None:
            return self.schedule
        decays = [d for d in self.decays if d < self.epochs]
        starts, stops = [0, *decays], [*decays, self.epochs]
        return tuple(
            PhaseSettings(
                epochs=stop - start,
                lr_factor=self.gamma**i,
                local_steps=getattr(self, f"step{min(i, 2) + 1}"),
                eval_freq=getattr(self, f"eval_freq{min(i, 2) + 1}"),
                save_freq=getattr(self, f"save_freq{min(i, 2) + 1}"),
            )
            for i, (start, stop) in enumerate(zip(starts, stops, strict=True))
        )

    @property
    def total_epochs(self) -> int:
        """Length of the run, by ``epochs`` or ``schedule``."""
        return sum(phase.epochs for phase in self.phases)

    @property
    def epochs_before_decays(self) -> int:
        """Count the epochs that decays count and this run does not train."""
        return 0

    @property
    def decays(self) -> list[int]:
        """List the epochs from the start point to the decays, in the order of their names."""
        given = [d for d in (self.decay1, self.decay2, self.decay3) if d is not None]
        return [decay - self.epochs_before_decays for decay in given]


def schedule_is_given_once(s: ScheduleSettings) -> str | None:
    by_phase = [
        f"{name}{i}" for name in ("decay", "step", "eval_freq", "save_freq") for i in (1, 2, 3)
    ]
    both = changed(s, "epochs", "gamma", *by_phase)
    if s.schedule is None or not both:
        return None
    return f"schedule and {', '.join(both)} both say how long and how; give one way"


def decays_come_in_order(s: ScheduleSettings) -> str | None:
    before = s.epochs_before_decays
    end = before + s.epochs
    coming = [(f"decay{i}", getattr(s, f"decay{i}")) for i in (1, 2, 3)]
    late = max(end, FAR_PAST_THE_END * s.epochs)
    coming = [(n, None if epoch is not None and epoch >= late else epoch) for n, epoch in coming]
    for name, epoch in coming:
        if epoch is not None and epoch <= before:
            return (
                f"{name} {epoch} is not after epoch {before}, where this run starts: decays of "
                "dataset imagenet count from epoch 0, as in the authors' code; raise it, or leave "
                "it out"
            )
        if epoch is not None and epoch >= end:
            length = f"{s.epochs} epochs" + (f" from epoch {before}" if before else "")
            return (
                f"{name} {epoch} is past the end ({length}) and would never come; "
                f"lower it, or leave it out"
            )
    for (first, a), (second, b) in pairwise(coming):
        if b is not None and a is None:
            return f"{second} {b} needs {first} before it; set {first}"
        if b is not None and a is not None and b <= a:
            return f"{second} {b} must come after {first} ({a}); raise {second}"
    return None


def decays_leave_a_rate(s: ScheduleSettings) -> str | None:
    count = sum(decay < s.epochs for decay in s.decays)
    try:
        last = s.gamma**count
    except OverflowError:
        last = math.inf
    if 0 < last < math.inf:
        return None
    return f"gamma {s.gamma:g} at {count} decays is beyond all floats; bring gamma nearer to 1"


def h_follows_one_rule(s: ScheduleSettings) -> str | None:
    if s.h_rule == "constant":
        extra = changed(s, "h_base", "alpha")
        return f"{extra[0]} is for h_rule qsr; set h_rule or leave it out" if extra else None
    if s.alpha is None:
        return "h_rule qsr needs alpha, the η below which H exceeds 1; set alpha"
    fixed = changed(s, "step1", "step2", "step3")
    return f"{fixed[0]} and h_rule qsr both say H; leave {fixed[0]} out" if fixed else None

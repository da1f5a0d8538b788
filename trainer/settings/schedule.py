"""Define a run's phases: length, learning rate factor, H, evaluation and saving."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, field_validator

from trainer.settings.base import Settings, changed, setting
from trainer.settings.yaml import parse_yaml

# The authors' scripts switch a decay off by giving it a very large epoch.
FAR_PAST_THE_END = 10


class PhaseSettings(Settings):
    """Describe a stretch of a run with one learning rate factor and one H."""

    epochs: int = Field(description="length in epochs", ge=1)
    lr_factor: float = Field(1.0, description="factor on the learning rate after warm-up", gt=0)
    local_steps: int = Field(1, description="H", ge=1)
    eval_freq: int = Field(1, description="rounds from one evaluation to the next", ge=1)
    save_freq: int | None = Field(
        None,
        description="rounds from one save of the model to the next; None: only at the end",
        ge=1,
    )


class ScheduleSettings(Settings):
    """Set up to four phases by options, or any number by a list."""

    epochs: int = setting(300, "epochs to train from the start point", "schedule", ge=1)
    steps_per_epoch: int | None = setting(
        None, "steps in one epoch; None or -1: ⌊training samples / B⌋", "schedule", ge=1
    )
    decay1: int | None = setting(
        None,
        "epoch of the first decay, from the start point (dataset imagenet: from epoch 0, as in the "
        "authors' code); None or far past the end: no decay",
        "schedule",
        ge=1,
    )
    decay2: int | None = setting(None, "epoch of the second decay", "schedule", ge=1)
    decay3: int | None = setting(None, "epoch of the third decay", "schedule", ge=1)
    gamma: float = setting(0.1, "factor at each decay", "schedule", gt=0)
    step1: int = setting(1, "H, the local steps of a round, in phase 1", "schedule", ge=1)
    step2: int = setting(1, "H in phase 2 (after the first decay)", "schedule", ge=1)
    step3: int = setting(1, "H from phase 3 on (after the second decay)", "schedule", ge=1)
    eval_freq1: int = setting(
        1, "rounds from one evaluation to the next in phase 1", "schedule", ge=1
    )
    eval_freq2: int = setting(1, "the same in phase 2", "schedule", ge=1)
    eval_freq3: int = setting(1, "the same from phase 3 on", "schedule", ge=1)
    save_freq1: int | None = setting(
        None,
        "rounds from one save of the model to the next in phase 1; None: only at the phase's end",
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
        """Read -1, the authors' default of ``--steps-per-epoch``, as their ImageNet code does."""
        return None if value in (-1, "-1") else value

    @field_validator("schedule", mode="before")
    @classmethod
    def _schedule_is_yaml(cls, value: Any) -> Any:
        """Parse the list from one word of a command line: ``'[{epochs: 3, local_steps: 4}]'``."""
        if not isinstance(value, str):
            return value
        try:
            return parse_yaml(value)
        except ValueError as error:
            raise ValueError(f"is not valid YAML: {error}; fix the list") from None

    @property
    def phases(self) -> tuple[PhaseSettings, ...]:
        """Return ``schedule``, or the phases of the options, without decays past the end."""
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
        """Return the length of the run, from ``epochs`` or ``schedule``."""
        return sum(phase.epochs for phase in self.phases)

    @property
    def epochs_before_decays(self) -> int:
        """Return the epochs before the start point, if decays count from epoch 0."""
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
    return f"schedule and {', '.join(both)} both define the phases; set one or the other"


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
                "dataset imagenet count from epoch 0, as in the authors' code; raise or remove it"
            )
        if epoch is not None and epoch >= end:
            length = f"{s.epochs} epochs" + (f" from epoch {before}" if before else "")
            return (
                f"{name} {epoch} is past the end ({length}) and would never happen; "
                "lower or remove it"
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
    return f"gamma {s.gamma:g} at {count} decays overflows or underflows; bring gamma closer to 1"


def h_follows_one_rule(s: ScheduleSettings) -> str | None:
    if s.h_rule == "constant":
        extra = changed(s, "h_base", "alpha")
        if not extra:
            return None
        return f"{extra[0]} applies only to h_rule qsr; set h_rule qsr or remove {extra[0]}"
    if s.alpha is None:
        return "h_rule qsr needs alpha, the η below which H exceeds 1; set alpha"
    fixed = changed(s, "step1", "step2", "step3")
    return f"{fixed[0]} and h_rule qsr both set H; remove {fixed[0]}" if fixed else None

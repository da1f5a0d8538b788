"""Define a run's phases: length, learning rate factor, H, evaluation and saving."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator

from trainer.local_sgd import h_rules
from trainer.local_sgd.schedule import WeightAveraging
from trainer.settings.base import Settings, execution_setting, setting
from trainer.settings.yaml import parse_yaml

# The authors' scripts switch a decay off by giving it a very large epoch.
FAR_PAST_THE_END = 10
NUMBERED = ("decay", "step", "eval_freq", "save_freq", "weight_averaging")
# Options that `ScheduleSettings.schedule` replaces
PHASE_OPTIONS = ("epochs", "gamma", *(f"{name}{i}" for name in NUMBERED for i in (1, 2, 3)))
# The rules for H that a setting is for
RULES_WITH = {
    "h_base": (*h_rules.POWERS, "post-local"),
    "alpha": tuple(h_rules.POWERS),
    "switch": ("post-local",),
}


class PhaseSettings(Settings):
    """Describe a stretch of a run with one learning rate factor and one H."""

    epochs: int = Field(ge=1)
    """length in epochs"""
    lr_factor: float = Field(1.0, gt=0)
    """factor on the learning rate after warm-up"""
    local_steps: int = Field(1, ge=1)
    """H"""
    eval_freq: int = Field(1, ge=1)
    """rounds from one evaluation to the next"""
    save_freq: int | None = Field(None, ge=1)
    """rounds from one save of the model to the next; None: only at the end"""
    # Left out of the content that ids hash, so that schedules from before it keep their ids
    weight_averaging: WeightAveraging = Field("none", exclude_if=lambda kind: kind == "none")
    """mean of the phase's iterates, which takes their place"""


class ScheduleSettings(Settings):
    """Set up to four phases by options, or any number by a list."""

    epochs: int = setting(300, "schedule", ge=1)
    """epochs to train from the start point"""
    steps_per_epoch: int | None = setting(None, "schedule", ge=1)
    """steps in one epoch; None or -1: ⌊training samples / B⌋"""
    decay1: int | None = setting(None, "schedule", ge=1)
    """epoch of the first decay, from the start point (dataset imagenet: from epoch 0, as in the
    authors' code); None or far past the end: no decay"""
    decay2: int | None = setting(None, "schedule", ge=1)
    """epoch of the second decay"""
    decay3: int | None = setting(None, "schedule", ge=1)
    """epoch of the third decay"""
    gamma: float = setting(0.1, "schedule", gt=0)
    """factor at each decay"""
    step1: int = setting(1, "schedule", ge=1)
    """H, the local steps of a round, in phase 1"""
    step2: int = setting(1, "schedule", ge=1)
    """H in phase 2 (after the first decay)"""
    step3: int = setting(1, "schedule", ge=1)
    """H from phase 3 on (after the second decay)"""
    eval_freq1: int = setting(1, "schedule", ge=1)
    """rounds from one evaluation to the next in phase 1"""
    eval_freq2: int = setting(1, "schedule", ge=1)
    """the same in phase 2"""
    eval_freq3: int = setting(1, "schedule", ge=1)
    """the same from phase 3 on"""
    save_freq1: int | None = execution_setting(None, "schedule", ge=1)
    """rounds from one save of the model to the next in phase 1; None: only at the phase's end"""
    save_freq2: int | None = execution_setting(None, "schedule", ge=1)
    """the same in phase 2"""
    save_freq3: int | None = execution_setting(None, "schedule", ge=1)
    """the same from phase 3 on"""
    weight_averaging1: WeightAveraging = setting("none", "schedule")
    """in phase 1, evaluate and save a mean of the models at the ends of rounds, and begin the next
    phase from it, without momentum: swa, the equal mean
    (https://arxiv.org/abs/1803.05407), or ema, an exponential moving average"""
    weight_averaging2: WeightAveraging = setting("none", "schedule")
    """the same in phase 2"""
    weight_averaging3: WeightAveraging = setting("none", "schedule")
    """the same from phase 3 on"""
    ema_decay: float = setting(0.999, "schedule", ge=0, lt=1)
    """weight of the old mean when ema adds a model to it"""
    schedule: tuple[PhaseSettings, ...] | None = setting(None, "schedule", min_length=1)
    """phases as a list instead of epochs, decay, step and eval-freq: YAML, each with epochs,
    lr_factor, local_steps, eval_freq, save_freq, weight_averaging"""
    h_rule: Annotated[str, AfterValidator(h_rules.require_rule)] = setting("constant", "schedule")
    """H of a round: constant in a phase; post-local: 1 until the switch, then h_base; inverse, qsr
    or cubic: max(h_base, ⌊(alpha/η)^p⌋) with p = 1, 2, 3 (https://arxiv.org/abs/2310.14423); or
    your own pure function of a RoundStart (trainer/local_sgd/h_rules.py) as module:function"""
    h_base: int = setting(1, "schedule", ge=1)
    """smallest H of the rules inverse, qsr and cubic; H after the switch of post-local"""
    alpha: float | None = setting(None, "schedule", gt=0)
    """α of the rules inverse, qsr and cubic"""
    switch: int | None = setting(None, "schedule", ge=1)
    """epoch, from the start point, of post-local's switch from H = 1 to h_base"""

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
        """Return ``schedule``, or the phases of the options."""
        if self.schedule is not None:
            return self.schedule
        starts, stops = [0, *self.decays], [*self.decays, self.epochs]
        return tuple(
            PhaseSettings(
                epochs=stop - start,
                lr_factor=self.gamma**i,
                local_steps=getattr(self, f"step{min(i, 2) + 1}"),
                eval_freq=getattr(self, f"eval_freq{min(i, 2) + 1}"),
                save_freq=getattr(self, f"save_freq{min(i, 2) + 1}"),
                weight_averaging=getattr(self, f"weight_averaging{min(i, 2) + 1}"),
            )
            for i, (start, stop) in enumerate(zip(starts, stops, strict=True))
        )

    def rule(self, steps_per_epoch: int) -> h_rules.HRule:
        """Return the rule that ``h_rule`` names; raises UserError for a user's that cannot be."""
        if self.h_rule == "constant":
            return h_rules.constant
        if self.h_rule == "post-local":
            assert self.switch is not None, "conflicts asks for it"
            switch = self.switch * steps_per_epoch
            return h_rules.PostLocal(switch=switch, h_base=self.h_base)
        if power := h_rules.POWERS.get(self.h_rule):
            assert self.alpha is not None, "conflicts asks for it"
            return h_rules.InversePower(power=power, h_base=self.h_base, alpha=self.alpha)
        return h_rules.own_rule(self.h_rule)

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
        """List the epochs from the start point to the decays before the end."""
        given = [d for d in (self.decay1, self.decay2, self.decay3) if d is not None]
        epochs = [decay - self.epochs_before_decays for decay in given]
        return [epoch for epoch in epochs if epoch < self.epochs]

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        both = self.changed(*PHASE_OPTIONS)
        if self.schedule is not None and both:
            yield f"schedule and {', '.join(both)} both define the phases; set one or the other"
        yield from self._misplaced_decays()
        yield from self._phases_without_decay()
        count = len(self.decays)
        if not 1e-300 < math.prod([self.gamma] * count) < 1e300:  # unlike **, without an exception
            yield (
                f"gamma {self.gamma:g} at {count} decays overflows or underflows; "
                "bring gamma closer to 1"
            )
        yield from self._incomplete_rule()
        if self.changed("ema_decay") and all(p.weight_averaging != "ema" for p in self.phases):
            yield "ema_decay applies only to weight_averaging ema; remove ema_decay"

    def _incomplete_rule(self) -> Iterator[str]:
        rule = self.h_rule
        if rule in h_rules.POWERS and self.alpha is None:
            yield f"h_rule {rule} needs alpha, the η below which H exceeds 1; set alpha"
        if rule == "post-local" and (self.switch is None or self.h_base == 1):
            yield "h_rule post-local needs switch and, after it, h_base > 1; set both"
        if self.switch is not None and self.switch >= self.total_epochs:
            yield (
                f"switch {self.switch} is past the end ({self.total_epochs} epochs) and would "
                "never happen; lower it"
            )
        for name, rules in RULES_WITH.items():
            if rule not in rules and self.changed(name):
                yield f"{name} applies only to h_rule {' or '.join(rules)}; remove {name}"
        if rule in RULES_WITH["h_base"]:
            given = self.changed("step1", "step2", "step3")
            if any(phase.local_steps > 1 for phase in self.schedule or ()):
                given.append("local_steps")
            for name in given:
                yield f"{name} and h_rule {rule} both set H; remove {name}"

    def _phases_without_decay(self) -> Iterator[str]:
        """Refuse options of a phase that no decay begins: the run would silently ignore them."""
        for i in (2, 3):
            if getattr(self, f"decay{i - 1}") is None:
                for name in self.changed(*(f"{name}{i}" for name in NUMBERED if name != "decay")):
                    yield f"{name} applies after decay{i - 1}; set decay{i - 1} or remove {name}"

    def _misplaced_decays(self) -> Iterator[str]:
        start = self.epochs_before_decays
        end = start + self.epochs
        off = max(end, FAR_PAST_THE_END * self.epochs)
        given = {name: getattr(self, name) for name in ("decay1", "decay2", "decay3")}
        coming = {name: epoch for name, epoch in given.items() if epoch is not None and epoch < off}
        for name, epoch in coming.items():
            if epoch <= start:
                yield (
                    f"{name} {epoch} is not after epoch {start}, where this run starts: decays of "
                    "dataset imagenet count from epoch 0, as in the authors' code; raise or remove "
                    "it"
                )
            if epoch >= end:
                length = f"{self.epochs} epochs" + (f" from epoch {start}" if start else "")
                yield (
                    f"{name} {epoch} is past the end ({length}) and would never happen; "
                    "lower or remove it"
                )
        for first, second in pairwise(given):
            if second not in coming:
                continue
            if first not in coming:
                yield f"{second} {coming[second]} needs {first} before it; set {first}"
            elif coming[second] <= coming[first]:
                yield (
                    f"{second} {coming[second]} must come after {first} ({coming[first]}); "
                    f"raise {second}"
                )

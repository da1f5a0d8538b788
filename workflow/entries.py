"""Tell the entries of an experiment's ``runs`` apart: by their settings and the field's symbols."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.settings.run import RESULT_SETTINGS, RunSettings
from trainer.settings.schedule import PhaseSettings
from workflow.figures import RULES, name_of

# Settings that describe the measurement, or the start point, which all entries share
UNSEEN = {
    "seed", "resume", "resume_sha256", "eval_on_start", "eval_freq1", "eval_freq2", "eval_freq3",
    "sharpness", "sharpness_samples", "sharpness_probes",
}  # fmt: skip
# Settings that the aspects H, η, K, B_loc, decays, length, iterates and outer say together
SAID = {
    "step1", "step2", "step3", "h_rule", "h_base", "alpha", "switch", "schedule", "decay1",
    "decay2", "decay3", "gamma", "lr", "start_lr", "max_lr", "batch_size", "total_batch_size",
    "epochs", "steps_per_epoch", "weight_averaging1", "weight_averaging2", "weight_averaging3",
    "ema_decay", "outer_lr", "outer_momentum", "outer_nesterov", "outer_slowmo",
}  # fmt: skip
SAY_IT_ALL = {"lr_schedule", "model", "dataset", "optimizer"}  # values that need no name
ONE_H = re.compile(r"H = \d+")
SEPARATOR = "; "


@dataclass(frozen=True)
class Entry:
    """Hold an entry's values as written, its settings with one seed, and whether it cools down."""

    values: Mapping[str, Any]
    settings: RunSettings
    cooldown: bool = False

    def matches(self, wanted: Mapping[str, Any]) -> bool:
        """Return whether each wanted setting has the value that was written, or its default.

        ``step1`` is H of the constant rule alone.
        """
        if "step1" in wanted:
            wanted = {"h_rule": "constant"} | dict(wanted)
        return all(
            self.values.get(name, getattr(self.settings, name)) == value
            for name, value in wanted.items()
        )

    @property
    def phases(self) -> tuple[PhaseSettings, ...]:
        """Return the phases before the cool-down."""
        phases = self.settings.phases
        return phases[:-1] if self.cooldown else phases

    @property
    def h(self) -> str:
        """Write H: one number, one per phase, or a rule and its parameters."""
        s = self.settings
        if s.h_rule == "post-local":
            return f"H: 1, from epoch {s.switch} on {s.h_base}"
        if s.h_rule != "constant":
            parts = [f"H: {RULES.get(s.h_rule, s.h_rule)}"]
            parts += [f"α = {s.alpha:g}"] if s.alpha is not None else []
            parts += [f"H ≥ {s.h_base}"] if s.h_base > 1 else []
            return ", ".join(parts)
        found = [phase.local_steps for phase in self.phases]
        changes = [h for i, h in enumerate(found) if i == 0 or h != found[i - 1]]
        return "H = " + " → ".join(map(str, changes))

    @property
    def iterates(self) -> str:
        """Write which mean of the iterates is taken, by phase if they differ; empty for none."""
        names = {"none": "last iterate", "swa": "SWA", "ema": f"EMA {self.settings.ema_decay:g}"}
        found = [names[phase.weight_averaging] for phase in self.phases]
        changes = [name for i, name in enumerate(found) if i == 0 or name != found[i - 1]]
        return " → ".join(changes) if changes != [names["none"]] else ""

    @property
    def outer(self) -> str:
        """Write the outer optimizer; empty for plain averaging."""
        s, words = self.settings, []
        if s.outer_momentum:
            kind = "Nesterov momentum" if s.outer_nesterov else "momentum"
            words.append(f"{'SlowMo' if s.outer_slowmo else 'outer'} {kind} {s.outer_momentum:g}")
        if s.outer_lr != 1:
            words.append(f"outer lr {s.outer_lr:g}")
        return ", ".join(words)

    @property
    def one_h(self) -> int | None:
        """Return H where it is one number throughout."""
        return self.phases[0].local_steps if ONE_H.fullmatch(self.h) else None

    @property
    def aspects(self) -> dict[str, str]:
        """Describe all that figures can show a difference in; empty texts need no words."""
        s = self.settings
        factors = [phase.lr_factor for phase in self.phases]
        ends = [sum(p.epochs for p in self.phases[:i]) for i in range(1, len(factors))]
        decays = [f"η · {f:g} from epoch {e}" for f, e in zip(factors[1:], ends, strict=True)]
        length = f"{s.total_epochs} epochs"
        if s.steps_per_epoch is not None:
            length = f"{s.total_epochs * s.steps_per_epoch:,} steps"
        others = sorted(RESULT_SETTINGS - UNSEEN - SAID)
        return {
            "H": self.h,
            "η": f"η = {s.peak_lr * factors[0]:g}",
            "decays": ", ".join(decays),
            "K": f"K = {s.num_clients}",
            "B_loc": f"B_loc = {s.batch_size}",
            "length": length,
            "iterates": self.iterates,
            "outer": self.outer,
            **{name: _word(name, getattr(s, name)) for name in others},
        }


def labels(entries: Sequence[Entry]) -> list[str] | None:
    """Label each entry by its H and by what else differs; None where one H, η and K say it all.

    What more than half of the entries share goes without saying.
    """
    described = [entry.aspects for entry in entries]
    counts = {name: Counter(each[name] for each in described) for name in described[0]}
    differing = [name for name, count in counts.items() if len(count) > 1]
    if {"H", "η", "K"} >= set(differing) and all(entry.one_h for entry in entries):
        return None
    others = [name for name in differing if name != "H"]

    def words(each: Mapping[str, str]) -> Iterator[str]:
        yield each["H"]
        yield from (each[n] for n in others if counts[n][each[n]] <= len(entries) / 2)

    return [SEPARATOR.join(filter(None, words(each))) for each in described]


def without(label: str, symbol: str) -> str:
    """Return what ``label`` says beside ``symbol``, H or K."""
    parts = label.split(SEPARATOR)
    return SEPARATOR.join(part for part in parts if not re.match(rf"{symbol}\b", part))


def h_of(label: str) -> str:
    """Return what ``label`` says about H; empty where it says nothing."""
    first = label.partition(SEPARATOR)[0]
    return first if first.startswith("H") else ""


def one_h_of(label: str) -> int | None:
    """Return H where ``label`` says that it is one number."""
    h = h_of(label)
    return int(h.removeprefix("H = ")) if ONE_H.fullmatch(h) else None


def _word(name: str, value: Any) -> str:
    if name in SAY_IT_ALL:
        return str(value)
    named = name_of(name)
    if value is None or isinstance(value, bool):
        return named if value else f"no {named}"
    return f"{named} {value:g}" if isinstance(value, float) else f"{named} {value}"

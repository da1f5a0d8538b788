"""Define experiments/<scale>.yaml: typed, closed, expanded into runs.

A run is identified by its content: its id ends in a hash of every setting that decides its numbers
and of its start point. Two figures that need the same run therefore share it, and a changed value
names another run, so that no old result stands for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import Field, StrictInt, model_validator

from trainer.errors import UserError
from trainer.settings.base import Settings
from trainer.settings.cli import options, validated
from trainer.settings.run import RESULT_SETTINGS, RunSettings, data_set_suffices
from trainer.settings.runtime import Device, WandbMode
from trainer.settings.schedule import PhaseSettings
from trainer.settings.yaml import read_yaml
from workflow.claims import Stated
from workflow.cooldown import with_cooldown
from workflow.entries import Entry
from workflow.published import PublishedCheckpoint
from workflow.stated import Asked, check

# Settings that an experiment may vary; seed and start point have keys of their own.
VARIABLE = RESULT_SETTINGS - {"seed", "resume", "resume_sha256"}
DEFAULT = RunSettings()


class Execution(Settings):
    """Suggest how a scale's training runs are executed; config.yaml wins."""

    processes: int = Field(1, description="processes of each training run", ge=1)
    nodes: int = Field(1, description="nodes of a cluster for each training run", ge=1)
    threads: int | None = Field(
        None,
        description="cores of each process; null: all, divided among the processes at once",
        ge=1,
    )
    device: Device = Field("auto", description="auto (a GPU where there is one), cpu or cuda")
    grouped: bool = Field(
        False,
        description="runs are so short that a job of a cluster takes several, one after the other",
    )
    wandb: WandbMode = Field("disabled", description="copy of each run on Weights & Biases")
    retries: int = Field(0, description="how often a job that stopped or failed is repeated", ge=0)


Overrides = dict[str, Any]


class Experiment(Settings):
    """Define a grid of runs for one figure: ``settings`` | ``phase2`` | one of ``runs``, per seed.

    Runs begin from the end of a phase-1 run (``settings`` | ``phase1``, same seed), from a
    published ``checkpoint``, or from random initialisation.
    """

    title: str = Field(description="what the figure shows")
    seeds: list[StrictInt] = Field(description="one run each", min_length=1)
    pilot_seeds: list[StrictInt] = Field(
        default=[], description="seeds that chose these settings; never judged"
    )
    settings: Overrides = Field(default={}, description="settings of both phases")
    phase1: Overrides | None = Field(None, description="further settings of the start point's run")
    checkpoint: PublishedCheckpoint | None = Field(None, description="a published start point")
    phase2: Overrides = Field(default={}, description="further settings of the figure's runs")
    runs: list[Overrides] = Field(description="what differs between the runs", min_length=1)
    cooldown: PhaseSettings | None = Field(None, description="last phase of all runs, small η")
    allow_divergence: bool = Field(
        False, description="a run that diverges is a result, marked so in the table; else an error"
    )
    judged_h: int | None = Field(
        None,
        description="H that claims compare with H = 1, chosen on the pilot seeds; "
        "null: the only one above 1",
        gt=1,
    )
    smallest_effect: float = Field(
        0.5,
        description="smallest difference in accuracy that matters, in points; "
        "chosen before the judged seeds",
        gt=0,
        allow_inf_nan=False,
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.phase1 is not None and self.checkpoint is not None:
            raise ValueError("phase1 and checkpoint are two start points; remove one")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds has a seed twice; remove one")
        if both := set(self.seeds) & set(self.pilot_seeds):
            raise ValueError(f"seeds and pilot_seeds share {sorted(both)}; judge on other seeds")
        return self


class Experiments(Stated):
    """Hold the content of experiments/<scale>.yaml; its claims are a family of their own."""

    execution: Execution = Field(default_factory=Execution, description="what a run needs")
    experiments: dict[str, Experiment] = Field(description="by name")


@dataclass(frozen=True)
class RunSpec:
    """Specify a training run: its settings, seed included, and its start point."""

    settings: RunSettings
    start: RunSpec | PublishedCheckpoint | None = None

    @cached_property
    def id(self) -> str:
        """Name the run readably and uniquely by its content: dataset-model-K-H-seed-hash."""
        content = json.dumps([self.settings.identity(), self._start_id()])
        digest = hashlib.sha256(content.encode()).hexdigest()[:8]
        s = self.settings
        own = s.h_rule.rpartition(":")[2]  # of module:function, the function
        h = s.phases[0].local_steps if s.h_rule == "constant" else own
        return f"{s.dataset}-{s.model}-K{s.num_clients}-H{h}-s{s.seed}-{digest}"

    def _start_id(self) -> str | None:
        """Identify the start point, unless ``settings.resume_sha256`` does."""
        if isinstance(self.start, PublishedCheckpoint):
            return self.start.git_blob
        return self.start.id if self.start is not None else None

    def options(self) -> str:
        """Write the data set and all settings that are not default as a quoted command line."""
        return options(self.settings, sorted({"dataset", *self.settings.non_default()}))


Start = RunSpec | PublishedCheckpoint | None


def load_experiments(path: Path) -> Experiments:
    """Read an experiments file and check every run. Raises UserError naming file and setting."""
    file = f"{path.parent.name}/{path.name}: "
    loaded = validated(Experiments, read_yaml(path), where=file)
    for name, experiment in loaded.experiments.items():
        for part in ("settings", "phase1", "phase2"):
            _check_names(getattr(experiment, part) or {}, f"{file}{name}.{part}: ")
        for i, overrides in enumerate(experiment.runs):
            _check_names(overrides, f"{file}{name}.runs[{i}]: ")
        runs = expand(experiment, where=f"{file}{name}: ")
        if len({run.id for run in runs}) < len(runs):
            raise UserError(f"{file}{name}.runs: two entries are the same run; remove one")
    check(loaded, {name: asked(e) for name, e in loaded.experiments.items()}, file)
    return loaded


def expand(experiment: Experiment, where: str = "") -> list[RunSpec]:
    """Expand the grid into runs with their starts, in order of settings, then seeds."""
    starts = _starts(experiment, where)
    return [
        run
        for values in _values(experiment)
        for run in _runs(values, starts, where, experiment.cooldown)
    ]


def _values(experiment: Experiment) -> list[Overrides]:
    """Return the settings of each of ``runs``, as they are written."""
    shared = {**experiment.settings, **experiment.phase2}
    return [{**shared, **overrides} for overrides in experiment.runs]


def asked(experiment: Experiment) -> Asked:
    """Describe each of ``runs``, by its first seed, for figures and claims."""
    seed = experiment.seeds[0]
    starts, cooldown = {seed: _starts(experiment, "")[seed]}, experiment.cooldown
    entries = [
        Entry(values, _runs(values, starts, "", cooldown)[0].settings, cooldown is not None)
        for values in _values(experiment)
    ]
    return Asked(entries, experiment.judged_h, cooldown is not None)


def matching(experiment: Experiment, wanted: Overrides) -> list[RunSpec]:
    """List the runs of the entries that have the ``wanted`` settings."""
    n = len(experiment.seeds)
    runs = expand(experiment)
    return [
        run
        for i, entry in enumerate(asked(experiment).entries)
        if entry.matches(wanted)
        for run in runs[i * n : (i + 1) * n]
    ]


def start_points(runs: list[RunSpec]) -> list[RunSpec]:
    """List the phase-1 runs that ``runs`` begin from, each once."""
    found = {run.start.id: run.start for run in runs if isinstance(run.start, RunSpec)}
    return list(found.values())


def _starts(experiment: Experiment, where: str) -> dict[int, Start]:
    if experiment.phase1 is None:
        return dict.fromkeys(experiment.seeds, experiment.checkpoint)
    settings = {**experiment.settings, **experiment.phase1}
    runs = _runs(settings, dict.fromkeys(experiment.seeds), where, None)
    return {run.settings.seed: run for run in runs}


def _runs(
    values: Overrides, starts: Mapping[int, Start], where: str, cooldown: PhaseSettings | None
) -> list[RunSpec]:
    """Make a run per seed: a copy, since a check of its settings takes 30 times as long."""
    for seed in {min(starts), max(starts)}:  # those between can be no worse
        checked = _settings(values, seed, starts[seed], where, cooldown)
    return [RunSpec(checked.model_copy(update={"seed": s}), start) for s, start in starts.items()]


def _settings(
    values: Overrides, seed: int, start: Start, where: str, cooldown: PhaseSettings | None
) -> RunSettings:
    begin: Overrides = {"seed": seed}
    if isinstance(start, RunSpec):
        begin["resume"] = start.settings.resume + start.settings.total_epochs
    elif start is not None:
        begin |= {"resume": start.epoch, "resume_sha256": start.sha256}
    settings = validated(RunSettings, {**values, **begin}, where=where)
    if cooldown is not None:
        values = with_cooldown(values, settings, cooldown, where)
        settings = validated(RunSettings, {**values, **begin}, where=where)
    if reason := data_set_suffices(settings):
        raise UserError(where + reason)
    return settings


def _check_names(overrides: Overrides, where: str) -> None:
    for name in overrides:
        if name in RunSettings.model_fields and name not in VARIABLE:
            raise UserError(f"{where}{name} cannot be set in experiments; it follows from the run")
        if name not in VARIABLE:
            validated(RunSettings, {name: None}, where=where)

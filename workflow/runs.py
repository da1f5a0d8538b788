"""Derive from config.yaml and experiments/<scale>.yaml which runs to train, and how.

This module knows nothing of Snakemake.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trainer.settings.run import check_processes
from workflow.config import Config
from workflow.experiments import Execution, Experiments, RunSpec, expand, start_points
from workflow.paths import experiments_file
from workflow.published import PublishedCheckpoint


@dataclass(frozen=True)
class Runs:
    """Hold the runs that config.yaml, KEY=VALUE and experiments/<scale>.yaml ask for."""

    config: Config
    experiments: Experiments
    overrides: Sequence[str] = ()

    @property
    def experiments_file(self) -> Path:
        return experiments_file(self.config.scale)

    @cached_property
    def execution(self) -> Execution:
        """Return the scale's suggestions, replaced by what config.yaml sets."""
        set_here = {name: getattr(self.config, name, None) for name in Execution.model_fields}
        chosen = {name: value for name, value in set_here.items() if value is not None}
        return self.experiments.execution.model_copy(update=chosen)

    # Runs

    @cached_property
    def runs_by_experiment(self) -> dict[str, list[RunSpec]]:
        found = self.experiments.experiments.items()
        return {name: expand(experiment) for name, experiment in found}

    @cached_property
    def runs(self) -> dict[str, RunSpec]:
        """Map ids to the experiments' runs, without start points."""
        return {run.id: run for runs in self.runs_by_experiment.values() for run in runs}

    @cached_property
    def start_points(self) -> dict[str, RunSpec]:
        return {run.id: run for run in start_points(list(self.runs.values()))}

    @cached_property
    def all_runs(self) -> dict[str, RunSpec]:
        return self.start_points | self.runs

    @cached_property
    def published(self) -> dict[str, PublishedCheckpoint]:
        """Map paths to the published start points."""
        starts = [run.start for run in self.runs.values()]
        found = [start for start in starts if isinstance(start, PublishedCheckpoint)]
        return {str(start.path): start for start in found}

    @cached_property
    def downloads(self) -> dict[str, PublishedCheckpoint]:
        """Select the published start points that can be downloaded or, if named, copied."""
        copied = self.config.checkpoints_source is not None
        return {path: start for path, start in self.published.items() if start.url or copied}

    @cached_property
    def may_diverge(self) -> set[str]:
        """Collect the ids of runs for which divergence is a result."""
        return {
            run.id
            for name, experiment in self.experiments.experiments.items()
            if experiment.allow_divergence
            for run in self.runs_by_experiment[name]
        }

    @cached_property
    def wandb_groups(self) -> dict[str, str]:
        """Map run ids to W&B groups; a run that several figures share belongs to the first."""
        return {
            run.id: f"{self.config.scale}/{name}"
            for name, runs in reversed(self.runs_by_experiment.items())
            for run in [*start_points(runs), *runs]
        }

    # Processes

    def processes(self, run: RunSpec) -> int:
        """Return a run's processes, never more than its clients: a start point may have one."""
        return min(self.execution.processes, run.settings.num_clients)

    def nodes(self, run: RunSpec) -> int:
        """Return a run's nodes: as many as asked for, or as its processes fill evenly."""
        return math.gcd(self.execution.nodes, self.processes(run))

    def processes_per_node(self, run: RunSpec) -> int:
        return self.processes(run) // self.nodes(run)

    @property
    def start_seconds(self) -> float:
        """Return the time from a job's start to its first step, by ``python -m bench``."""
        forked = self.execution.device == "cpu" and self.execution.processes == 1
        return 0.3 if forked else 3.0

    def check_clients(self) -> None:
        """Raise UserError if the processes of a run cannot share its clients evenly."""
        for run in self.all_runs.values():
            check_processes(run.settings, self.processes(run))

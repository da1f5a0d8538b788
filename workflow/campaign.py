"""Locate the files of the runs that config.yaml and experiments/<scale>.yaml ask for.

The rules and the commands look everything up here; this module knows nothing of Snakemake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from trainer.errors import UserError
from trainer.settings.yaml import read_yaml
from workflow.claims import THEORY
from workflow.config import load_config
from workflow.earlier import METRICS
from workflow.experiments import (
    RunSpec,
    load_experiments,
    start_points,
)
from workflow.figures import Figure
from workflow.job import Job
from workflow.paper import paper
from workflow.paths import experiments_file
from workflow.runs import Runs


@dataclass(frozen=True)
class Campaign(Runs):
    """Add to the runs where they lie, and what is drawn from them."""

    # Files. Given tables are for figures alone: the runs' own results stay where they are.

    @property
    def run_results(self) -> Path:
        """Locate the results of the scale's runs, also while tables are given instead of them."""
        return Path("results", self.config.scale)

    @cached_property
    def jobs_by_experiment(self) -> dict[str, list[Job]]:
        """Place the runs of each experiment, start points first; experiments may share some."""
        return {
            name: [Job(run, "start_points", self.run_results) for run in start_points(runs)]
            + [Job(run, "runs", self.run_results) for run in runs]
            for name, runs in self.runs_by_experiment.items()
        }

    @cached_property
    def jobs(self) -> list[Job]:
        """List every job once, in the order of the experiments."""
        found = self.jobs_by_experiment.values()
        return list({job.folder: job for jobs in found for job in jobs}.values())

    def betons(self, run: RunSpec) -> dict[str, str]:
        """Map the splits of a run's data set to their .beton files."""
        folder = f"resources/{run.settings.dataset}"
        return {split: f"{folder}/{split}.beton" for split in ("train", "test")}

    def inputs(self, run: RunSpec, ageless: Callable[[str], str] = str) -> dict[str, str]:
        """Map the inputs of a run to their files.

        ``ageless`` marks a published start point: its SHA-256 is a parameter of the run, so that a
        merely newer file repeats nothing.
        """
        if isinstance(run.start, RunSpec):
            return self.betons(run) | {"start": self.model_file(run.start)}
        start = {} if run.start is None else {"start": ageless(str(run.start.path))}
        return self.betons(run) | start

    def model_file(self, start: RunSpec) -> str:
        """Locate the model of a start point."""
        return f"{self.config.results}/start_points/{start.id}/model.pt"

    def metrics_files(self, experiments: Iterable[str]) -> list[str]:
        """List the metrics of experiments' runs; with ``only_finished``, those that are there."""
        runs = [run for name in experiments for run in self.runs_by_experiment[name]]
        placed = [("start_points", run) for run in start_points(runs)]
        placed += [("runs", run) for run in {run.id: run for run in runs}.values()]
        files = [f"{self.config.results}/{role}/{run.id}/{METRICS}" for role, run in placed]
        return [file for file in files if Path(file).exists() or not self.config.only_finished]

    def requested_metrics(self, experiments: Iterable[str]) -> list[str]:
        """List the metrics that a target of Snakemake asks for itself; none with given tables.

        Snakemake makes a missing file only where a target, or a job that runs, asks for it: behind
        a table that is there it would stay missing.
        """
        return [] if self.config.tables is not None else self.metrics_files(experiments)

    # Tables and figures

    @property
    def tables(self) -> str:
        """Locate the folder of the tables: those given, else those of the runs."""
        return str(self.config.tables or self.config.results / "tables")

    def table_files(self, names: Iterable[str]) -> list[str]:
        """Locate tables; the theory's needs no run, so it is made where it is not given."""
        files = {name: f"{self.tables}/{name}.csv" for name in names}
        if THEORY in files and not Path(files[THEORY]).exists():
            files[THEORY] = f"{self.config.results}/tables/{THEORY}.csv"
        return list(files.values())

    @cached_property
    def experiments_with_results(self) -> list[str]:
        """List all experiments; of given tables, or with ``only_finished``, those with any."""
        names = list(self.runs_by_experiment)
        if self.config.tables is not None:
            return [name for name in names if Path(*self.table_files([name])).exists()]
        if not self.config.only_finished:
            return names
        folder = Path(self.config.results, "runs")
        return [
            name
            for name, runs in self.runs_by_experiment.items()
            if any((folder / run.id / METRICS).exists() for run in runs)
        ]

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """Map names to the paper's figures and to those of the experiments file."""
        return paper().figures | self.experiments.figures

    def experiments_of(self, figure: str) -> list[str]:
        """List the scale's experiments that a figure shows; none for the theory's figure."""
        names = () if figure == THEORY else self.figures[figure].experiments
        return [name for name in names if name in self.runs_by_experiment]

    def _shown(self, figure: str) -> list[str]:
        """List the experiments that a figure can be drawn from now."""
        return [n for n in self.experiments_of(figure) if n in self.experiments_with_results]

    def figure_tables(self, figure: str) -> list[str]:
        given = self.config.tables is not None
        names = self._shown(figure) if given else self.experiments_of(figure)
        return self.table_files(names or [THEORY])

    @cached_property
    def available_figures(self) -> list[str]:
        """List the figures that this scale has an experiment with results for, and the theory's."""
        return [*(figure for figure in self.figures if self._shown(figure)), THEORY]

    def why_unavailable(self, figure: str) -> str:
        needs = ", ".join(self.figures[figure].experiments)
        file = f"experiments/{self.config.scale}.yaml"
        if not self.experiments_of(figure):
            return f"{figure} needs {needs}, which {file} lacks; add them there"
        if self.config.tables is not None:
            return f"{figure} needs tables of {needs}, which {self.tables} lacks; add them there"
        return f"{figure} needs runs of {needs}, and none is finished; set only_finished to false"


def make_campaign(config: Mapping[str, Any], overrides: Sequence[str] = ()) -> Campaign:
    """Check ``config`` and its scale's experiments. Raises UserError naming file and setting."""
    if not isinstance(config, Mapping):  # of a module's importer
        raise UserError(f"the module's config must be a mapping of settings, got {config!r}")
    checked = load_config(dict(config))
    experiments = load_experiments(experiments_file(checked.scale))
    return Campaign(checked, experiments, overrides)


def load_campaign(overrides: Sequence[str]) -> Campaign:
    """Read ./config.yaml, replaced by KEY=VALUE ``overrides``. Raises UserError for bad ones."""
    values = read_yaml(Path("config.yaml"))
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals:
            raise UserError(f"--config {override}: must be KEY=VALUE, such as scale=paper")
        try:
            # As Snakemake does; this loader knows strings, lists and mappings alone.
            values[name] = yaml.load(value, yaml.BaseLoader)
        except (yaml.YAMLError, RecursionError):
            raise UserError(f"--config {override}: is not valid YAML; correct it") from None
    return make_campaign(values, overrides)

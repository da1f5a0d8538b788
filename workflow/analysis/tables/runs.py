"""Tabulate what was run, on what and for how long: one row per run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from trainer.errors import UserError
from trainer.files.atomic import read_json
from workflow.analysis.pages.html import write_page
from workflow.experiments import Experiments, RunSpec, expand, start_points


class Machine(BaseModel):
    """Describe the machine that a run was made on."""

    model_config = ConfigDict(extra="ignore")

    processor: str
    cores: int | None
    system: str


class Provenance(BaseModel):
    """Read the part of a run's provenance.json that the table shows."""

    model_config = ConfigDict(extra="ignore")

    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    processes: Annotated[int, Field(ge=1)]
    device: str
    execution: str
    version: str | None = None  # runs of before it was noted
    git_commit: str | None
    git_dirty: bool
    versions: dict[str, str]
    machine: Machine


def build_runs(experiments: Experiments, results: Path) -> pd.DataFrame:
    """Build one row per finished run of ``experiments``, phase-1 runs first, each once.

    Column ``experiments`` names those that use the run.
    """
    used: dict[str, list[str]] = {}
    lines: dict[str, dict[str, Any]] = {}
    for name, experiment in experiments.experiments.items():
        runs = expand(experiment)
        parts = [("start_points", r) for r in start_points(runs)] + [("runs", r) for r in runs]
        for role, run in parts:
            folder = results / role / run.id
            used.setdefault(run.id, []).append(name)
            if run.id not in lines and (folder / "provenance.json").exists():
                lines[run.id] = _describe_run(role, run, folder)
    table = pd.DataFrame(lines.values())
    if table.empty:
        raise UserError(f"{results}: no run of the experiments is finished; train some first")
    return table.assign(experiments=[" ".join(used[run]) for run in table["run"]])


def _describe_run(role: str, run: RunSpec, folder: Path) -> dict[str, Any]:
    made = read_json(folder / "provenance.json", Provenance, "delete the run's folder, run again")
    machine = made.machine
    return {
        "run": run.id,
        "role": {"start_points": "phase 1", "runs": "phase 2"}[role],
        "settings": run.options(),
        "start": run.start.id if isinstance(run.start, RunSpec) else None,
        "seconds": made.seconds,
        "processes": made.processes,
        "device": made.device,
        "executed": made.execution,
        "version": made.version,
        "git_commit": made.git_commit,
        "git_dirty": made.git_dirty,
        "versions": " ".join(f"{name} {version}" for name, version in made.versions.items()),
        "machine": f"{machine.processor}, {machine.cores} cores, {machine.system}",
    }


def write_runs_page(runs: pd.DataFrame, path: Path) -> None:
    """Write the report's page: time per experiment, machines and versions, then every run."""
    per_experiment = (
        runs.assign(experiment=runs["experiments"].str.split())
        .explode("experiment")
        .groupby("experiment")
        .agg(runs=("run", "count"), seconds=("seconds", "sum"))
    )
    made = runs.groupby(
        ["machine", "device", "versions", "version", "git_commit", "git_dirty"], dropna=False
    )
    sections = {
        "Time per experiment (runs that several share count in each)": per_experiment.reset_index(),
        "Made by": made.agg(runs=("run", "count")).reset_index(),
        "Runs": runs[["run", "role", "experiments", "seconds", "executed", "settings", "start"]],
    }
    write_page("Settings, provenance and run times", "", sections, path)

"""What was run, with what and how long: one line per run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from trainer.errors import UserError
from workflow.analysis.pages import write_page
from workflow.experiments import Experiments, Run, expand, start_points


def build_runs(experiments: Experiments, results: Path) -> pd.DataFrame:
    """One line per finished run of ``experiments``, phase-1 runs first; each once.

    ``experiments``: of the figures that use it. ``core_seconds``: its time times its cores.
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
                lines[run.id] = _line(role, run, folder)
    table = pd.DataFrame(lines.values())
    if table.empty:
        raise UserError(f"{results}: no run of the experiments is finished; train some first")
    return table.assign(experiments=[" ".join(used[run]) for run in table["run"]])


def _line(role: str, run: Run, folder: Path) -> dict[str, Any]:
    try:
        made: dict[str, Any] = json.loads((folder / "provenance.json").read_text("utf-8"))
        versions, machine = made["versions"], made["machine"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: provenance.json is damaged ({error}); train again") from None
    return {
        "run": run.id,
        "role": {"start_points": "phase 1", "runs": "phase 2"}[role],
        "settings": run.options(),
        "start": run.start.id if isinstance(run.start, Run) else None,
        "seconds": made["seconds"],
        "processes": made["processes"],
        "device": made["device"],
        "executed": made["execution"],
        "git_commit": made["git_commit"],
        "git_dirty": made["git_dirty"],
        "versions": " ".join(f"{name} {version}" for name, version in versions.items()),
        "machine": f"{machine['processor']}, {machine['cores']} cores, {machine['system']}",
    }


def write_runs_page(runs: pd.DataFrame, path: Path) -> None:
    """For the report: times per experiment, machines and versions, then every run."""
    per_experiment = (
        runs.assign(experiment=runs["experiments"].str.split())
        .explode("experiment")
        .groupby("experiment")
        .agg(runs=("run", "count"), seconds=("seconds", "sum"))
    )
    made = runs.groupby(["machine", "device", "versions", "git_commit", "git_dirty"], dropna=False)
    sections = {
        "Time per experiment (runs that several share count in each)": per_experiment.reset_index(),
        "Made by": made.agg(runs=("run", "count")).reset_index(),
        "Runs": runs[["run", "role", "experiments", "seconds", "executed", "settings", "start"]],
    }
    write_page("Settings, provenance and run times", "", sections, path)

"""Metrics of runs to one tidy table: a row per evaluation, with what tells the runs apart."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from trainer.errors import UserError
from trainer.files import atomic
from trainer.metrics import Evaluation
from workflow.experiments import Run, start_points


def build_table(
    name: str, runs: list[Run], results: Path, *, only_finished: bool = False
) -> pd.DataFrame:
    """One row per evaluation of ``runs`` and of their phase-1 runs (column ``role``).

    ``only_finished``: a run without metrics gets one row without an evaluation, so that figures
    and claims can say what they lack. Raises UserError for metrics that are missing or not whole.
    """
    parts = [("start_points", run) for run in start_points(runs)] + [("runs", run) for run in runs]
    rows: list[dict[str, Any]] = []
    for role, run in parts:
        path = results / role / run.id / "metrics.jsonl"
        absent = only_finished and not path.exists()
        evaluations: list[dict[str, Any]] = [{}] if absent else read_metrics(path)
        rows += [{**_settings(name, role, run), **evaluation} for evaluation in evaluations]
    columns = [*_settings(name, "runs", runs[0]), *(f.name for f in fields(Evaluation))]
    return pd.DataFrame(rows, columns=columns)


def read_table(path: Path) -> pd.DataFrame:
    """A table as it was written, to the last bit. Raises UserError when it is damaged."""
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: missing or damaged ({error}); remove it, run again") from None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The evaluations of one run, in order."""
    try:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: missing or damaged ({error}); run the training again") from None


def write_csv(table: pd.DataFrame, path: Path) -> None:
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False)


def _settings(experiment: str, role: str, run: Run) -> dict[str, Any]:
    settings = run.settings
    return {
        "experiment": experiment,
        "role": {"start_points": "phase 1", "runs": "phase 2"}[role],
        "run": run.id,
        "start": run.start.id if isinstance(run.start, Run) else None,
        "dataset": settings.dataset,
        "model": settings.model,
        "seed": settings.seed,
        "num_clients": settings.num_clients,
        "batch_size": settings.batch_size,
        "peak_lr": settings.peak_lr,
        "first_local_steps": settings.phases[0].local_steps,
        "first_epoch": settings.resume,
    }

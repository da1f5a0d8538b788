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


def build_table(name: str, runs: list[Run], results: Path) -> pd.DataFrame:
    """One row per evaluation of ``runs`` and of their phase-1 runs (column ``role``).

    Raises UserError for metrics that are missing or not whole.
    """
    parts = [("start_points", run) for run in start_points(runs)] + [("runs", run) for run in runs]
    rows = [
        {**_settings(name, role, run), **evaluation}
        for role, run in parts
        for evaluation in read_metrics(results / role / run.id / "metrics.jsonl")
    ]
    table = pd.DataFrame(rows)
    # A column of nulls alone would have no type.
    numbers = [f.name for f in fields(Evaluation) if f.name in table and table[f.name].hasnans]
    return table.astype(dict.fromkeys(numbers, float))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The evaluations of one run, in order."""
    try:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: missing or damaged ({error}); run the training again") from None


def write_table(table: pd.DataFrame, out: Path) -> None:
    """``table`` as ``out``.csv (read by people) and ``out``.parquet (typed)."""
    write_csv(table, out.with_name(out.name + ".csv"))
    with atomic(out.with_name(out.name + ".parquet")) as temporary:
        table.to_parquet(temporary, index=False)


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

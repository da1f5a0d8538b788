"""Gather the metrics of runs in one tidy table, with a row per evaluation."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd

from trainer.errors import UserError
from trainer.files.atomic import atomic, parse_json, reading
from trainer.tracking.metrics import Evaluation
from workflow.analysis.tables.evaluations import SETTING
from workflow.entries import Entry, labels
from workflow.experiments import RunSpec, start_points


def build_table(
    name: str,
    runs: list[RunSpec],
    results: Path,
    *,
    only_finished: bool = False,
    cooldown: bool = False,
) -> pd.DataFrame:
    """Build one row per evaluation of ``runs`` and of their phase-1 runs.

    Column ``role``: phase 1, phase 2 or, for the last phase of ``runs`` if they have a
    ``cooldown``, that. Column ``setting``, only where H, η and K do not tell the runs apart: what
    does. ``only_finished``: a run without metrics gets one row without an evaluation, so that
    figures and claims can name it. Raises UserError for missing or incomplete metrics.
    """
    settings = labels([Entry({}, run.settings, cooldown) for run in runs])
    told_apart = dict(zip((run.id for run in runs), settings or [], strict=False))
    parts = [("start_points", run) for run in start_points(runs)] + [("runs", run) for run in runs]
    rows: list[dict[str, Any]] = []
    for folder, run in parts:
        path = results / folder / run.id / "metrics.jsonl"
        absent = only_finished and not path.exists()
        evaluations: list[dict[str, Any]] = (
            [{}] if absent else [asdict(each) for each in read_metrics(path, run)]
        )
        for evaluation in evaluations:
            role = {"start_points": "phase 1", "runs": "phase 2"}[folder]
            if cooldown and folder == "runs" and evaluation.get("phase") == _last_phase(run):
                role = "cooldown"
            setting = told_apart.get(run.id, role) if folder == "runs" else role
            rows.append({**_run_columns(name, role, run), SETTING: setting, **evaluation})
    columns = [*_run_columns(name, "phase 2", runs[0]), *(f.name for f in fields(Evaluation))]
    columns += [SETTING] if settings else []
    return pd.DataFrame(rows, columns=columns)


def _last_phase(run: RunSpec) -> int:
    return len(run.settings.phases) - 1


def read_metrics(path: Path, run: RunSpec) -> list[Evaluation]:
    """Read the evaluations of ``run``, in order.

    Raises UserError for a file that is missing, damaged or stops before the run's end.
    """
    with reading(path, "run again"):
        lines = path.read_bytes().splitlines()
    try:
        evaluations = [parse_json(line, Evaluation) for line in lines]
        reason = _find_fault(evaluations, run)
    except ValueError as error:
        reason = str(error)
    if reason:
        raise UserError(f"{path}: damaged ({reason}); delete it and run again")
    return evaluations


def _find_fault(evaluations: list[Evaluation], run: RunSpec) -> str | None:
    """Explain why these cannot be all evaluations of ``run``; None where they can."""
    steps = [each.step for each in evaluations]
    if not steps or (steps[0] == 0) != run.settings.eval_on_start:
        return "the first evaluation is not there"
    if steps != sorted(set(steps)) or steps[0] < 0:
        return "its steps do not ascend"
    for each in evaluations:
        numbers = [v for v in asdict(each).values() if isinstance(v, float)]
        if not all(map(math.isfinite, numbers)) or not 0 <= each.test_accuracy <= 1:
            return f"impossible numbers at step {each.step}"
    last, end = evaluations[-1], run.settings.resume + run.settings.total_epochs
    if last.epoch != end and not last.diverged:
        return f"it ends at epoch {last.epoch:g}, the run at {end}"
    return None


def write_csv(table: pd.DataFrame, path: Path) -> None:
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False)


def _run_columns(experiment: str, role: str, run: RunSpec) -> dict[str, Any]:
    settings = run.settings
    return {
        "experiment": experiment,
        "role": role,
        "run": run.id,
        "start": run.start.id if isinstance(run.start, RunSpec) else None,
        "dataset": settings.dataset,
        "model": settings.model,
        "seed": settings.seed,
        "num_clients": settings.num_clients,
        "batch_size": settings.batch_size,
        "peak_lr": settings.peak_lr,
        "first_local_steps": settings.phases[0].local_steps,
        "first_epoch": settings.resume,
    }

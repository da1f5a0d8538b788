"""Tables: built from metrics, read back, compared."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.analysis.test_analysis import table
from trainer.errors import UserError
from trainer.tracking.metrics import Evaluation
from workflow.analysis.tables.build import build_table, write_csv
from workflow.analysis.tables.compare import compare
from workflow.analysis.tables.read import read_table
from workflow.experiments import Experiment, expand, start_points


def test_missing_or_damaged_metrics_are_named(tmp_path: Path) -> None:
    experiment = Experiment(title="t", seeds=[1], phase1={"epochs": 1}, runs=[{"step1": 2}])
    runs = expand(experiment)
    with pytest.raises(UserError, match=r"metrics\.jsonl: no such file"):
        build_table("fig1a", runs, tmp_path)
    numbers = [field.name for field in fields(Evaluation)]
    for role, run in [("start_points", start_points(runs)[0]), ("runs", runs[0])]:
        folder = tmp_path / role / run.id
        folder.mkdir(parents=True)
        end = run.settings.resume + run.settings.epochs
        line = dict.fromkeys(numbers, 1) | {"epoch": end, "diverged": False}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert build_table("fig1a", runs, tmp_path)["step"].tolist() == [1, 1]
    assert build_table("fig1a", runs, tmp_path, only_finished=True)["step"].tolist() == [1, 1]
    (folder / "metrics.jsonl").unlink()
    partly = build_table("fig1a", runs, tmp_path, only_finished=True)
    assert partly["step"].isna().tolist() == [False, True]
    assert partly["run"].tolist() == [start_points(runs)[0].id, runs[0].id]
    (folder / "metrics.jsonl").write_text('{"step": 1}\n{"ste')
    with pytest.raises(UserError, match="damaged"):
        build_table("fig1a", runs, tmp_path)


def test_run_ids_tell_contents_apart_and_start_points_ripple() -> None:
    def ids(**changes: object) -> set[str]:
        values: dict[str, object] = {
            "title": "t", "seeds": [1, 2], "phase1": {"epochs": 1}, "runs": [{"step1": 2}],
        }  # fmt: skip
        return {run.id for run in expand(Experiment.model_validate(values | changes))}

    assert ids() == ids(title="other")
    assert ids().isdisjoint(ids(phase1={"epochs": 1, "wd": 0.1}))
    assert ids() < ids(seeds=[1, 2, 3])
    assert ids().isdisjoint(ids(runs=[{"step1": 3}]))


def test_tables_come_back_as_they_were(tmp_path: Path) -> None:
    rows = table(test_accuracy=np.random.default_rng(0).random(12))
    write_csv(rows, tmp_path / "fig1a.csv")
    pd.testing.assert_frame_equal(read_table(tmp_path / "fig1a.csv"), rows, check_exact=True)
    with pytest.raises(UserError, match=r"fig1b\.csv: no such file"):
        read_table(tmp_path / "fig1b.csv")


def test_a_spreadsheets_byte_order_mark_is_no_damage(tmp_path: Path) -> None:
    rows = table(test_accuracy=np.random.default_rng(0).random(12))
    path = tmp_path / "fig1a.csv"
    write_csv(rows, path)
    text = path.read_text("utf-8")
    path.write_text(text, "utf-8-sig")
    pd.testing.assert_frame_equal(read_table(path), rows, check_exact=True)
    path.write_text(text, "utf-16")
    with pytest.raises(UserError, match=r"fig1a.csv: is not text in UTF-8; save it so"):
        read_table(path)


def compared(tmp_path: Path, here: pd.DataFrame) -> pd.DataFrame:
    write_csv(table(), tmp_path / "there" / "fig1a.csv")
    compare({"fig1a": here}, tmp_path / "there", tmp_path / "compare.csv")
    return pd.read_csv(tmp_path / "compare.csv")


def test_compare_names_means_that_differ(tmp_path: Path) -> None:
    assert compared(tmp_path, table())["within"].all()
    a_little = table(test_accuracy=table()["test_accuracy"] + 0.003)
    assert compared(tmp_path, a_little)["within"].all()
    said = compare({"fig1a": a_little}, tmp_path / "there", tmp_path / "compare.csv")
    assert said.startswith(
        f"all 4 means agree with {tmp_path / 'there'}, the farthest differs by 75%"
    )
    other = table(test_accuracy=table()["test_accuracy"] + 0.01 * (table()["seed"] == 1) * 2)
    with pytest.raises(UserError, match=r"fig1a phase 2 H = 1 .*test_accuracy 0\.7067, there 0\.7"):
        compared(tmp_path, other)
    with pytest.raises(UserError, match=r"fig1b\.csv: missing"):
        compare({"fig1b": table()}, tmp_path / "there", tmp_path / "compare.csv")
    with pytest.raises(UserError, match="2 of 4 means differ"):
        compared(tmp_path, table()[lambda rows: rows["first_local_steps"] == 1])

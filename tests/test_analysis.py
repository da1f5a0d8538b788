"""Tables, statistics and the figure's numbers against scipy and hand-made cases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trainer.errors import UserError
from workflow.analysis.fig1 import fig1, fig1_curves
from workflow.analysis.statistics import mean_interval, over_seeds, paired_difference
from workflow.analysis.style import line_style
from workflow.analysis.tables import build_table
from workflow.experiments import Experiment, Plot, expand, start_points


@given(st.lists(st.floats(0, 100), min_size=2, max_size=20))
def test_the_interval_is_scipys_t_interval(values: list[float]) -> None:
    got = mean_interval(pd.Series(values))
    assert got["n"] == len(values)
    if np.ptp(values) > 1e-6:
        wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert got["low"] == pytest.approx(wanted.low, rel=1e-9, abs=1e-9)
        assert got["high"] == pytest.approx(wanted.high, rel=1e-9, abs=1e-9)


def test_one_seed_has_no_interval() -> None:
    got = mean_interval(pd.Series([3.0]))
    assert got["mean"] == 3
    assert np.isnan(got["low"])
    assert np.isnan(got["high"])


def test_pairs_are_by_key_and_rows_without_partner_are_left_out() -> None:
    treated = pd.DataFrame({"seed": [1, 2, 3], "value": [5.0, 7.0, 9.0]})
    control = pd.DataFrame({"seed": [2, 1], "value": [1.0, 2.0]})
    difference = paired_difference(treated, control, ["seed"], "value")
    assert difference["value"].tolist() == [3.0, 6.0]


def test_a_seed_that_counts_twice_is_a_bug() -> None:
    table = pd.DataFrame({"seed": [1, 1], "h": [2, 2], "value": [1.0, 2.0]})
    with pytest.raises(AssertionError, match="twice"):
        over_seeds(table, ["h"], "value")


def table() -> pd.DataFrame:
    """Three seeds; H = 8 gains 1, 2 and 3 points over SGD at epoch 20, nothing at 10."""
    rows = [
        {
            "role": "phase 2",
            "seed": seed,
            "first_local_steps": h,
            "first_epoch": 10,
            "epoch": epoch,
            "test_accuracy": 0.5 + 0.1 * seed + 0.01 * seed * (h > 1) * (epoch == 20),
        }
        for seed in (1, 2, 3)
        for h in (1, 8)
        for epoch in (10, 20)
    ]
    return pd.DataFrame(rows)


def test_the_gain_is_paired_by_seed() -> None:
    curves = fig1_curves(table()).set_index(["quantity", "first_local_steps", "epoch"])
    gain = curves.loc[("gain over SGD (points)", 8, 20)]
    wanted = stats.ttest_1samp([1.0, 2.0, 3.0], 0).confidence_interval(0.95)
    assert gain[["mean", "low", "high"]].tolist() == pytest.approx([2.0, wanted.low, wanted.high])
    assert curves.loc[("gain over SGD (points)", 8, 10), "mean"] == pytest.approx(0, abs=1e-9)
    accuracy = curves.loc[("test accuracy (%)", 1, 10), "mean"]
    assert accuracy == pytest.approx(70)
    assert (curves["n"] == 3).all()


def test_a_figure_without_sgd_is_refused(tmp_path: Path) -> None:
    only_local = table()[lambda t: t["first_local_steps"] > 1]
    with pytest.raises(UserError, match="step1 1"):
        fig1(only_local, "", Plot(), tmp_path / "fig")


def test_evaluations_that_sgd_lacks_are_named(tmp_path: Path) -> None:
    gaps = table()[lambda t: (t["first_local_steps"] > 1) | (t["epoch"] == 20)]
    with pytest.raises(UserError, match="eval_freq1"):
        fig1(gaps, "", Plot(), tmp_path / "fig")


def test_equal_tables_give_equal_figures(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fig1(table(), "title", Plot(), tmp_path / name)
    for ending in (".png", ".pdf", ".csv"):
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


def test_an_h_keeps_its_colour_whatever_else_is_drawn() -> None:
    plot = Plot()
    assert line_style(32, 0, plot)["color"] == line_style(32, 3, plot)["color"]
    assert line_style(32, 0, plot)["color"] != line_style(64, 0, plot)["color"]
    assert line_style(1, 0, plot)["color"] == plot.sgd_color


def test_missing_or_damaged_metrics_are_named(tmp_path: Path) -> None:
    experiment = Experiment(title="t", seeds=[1], phase1={"epochs": 1}, runs=[{"step1": 2}])
    runs = expand(experiment)
    with pytest.raises(UserError, match=r"metrics\.jsonl: missing or damaged"):
        build_table("fig1a", runs, tmp_path)
    for role, run in [("start_points", start_points(runs)[0]), ("runs", runs[0])]:
        folder = tmp_path / role / run.id
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text(json.dumps({"step": 1}) + "\n")
    assert build_table("fig1a", runs, tmp_path)["step"].tolist() == [1, 1]
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

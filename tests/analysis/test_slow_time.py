"""Test the figure over slow time against plain loops and the claims' own measure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.analysis.test_analysis import drawn, table
from tests.commands import ROOT
from workflow.analysis.claims.effects import flatter_throughout
from workflow.analysis.figures.panels import panel_numbers, slow_times
from workflow.analysis.tables.read import read_table
from workflow.paper import paper

GAIN, FLATTER = (
    "gain over SGD\nof the same seed (points)",
    "ln(trace of the Hessian:\nSGD's ÷ its own)",
)
PANEL = paper().figures["slowtime"].panels[0]
REFERENCE = ROOT / "results/reference/laptop/tables"


def test_slow_time_is_the_sum_of_squared_rates_over_steps() -> None:
    """Take rates that decay, runs evaluated at different times, and lines in any order."""
    rate, b_loc = {"a": lambda step: 0.4 if step < 30 else 0.04, "b": lambda step: 0.2}, 5
    ends = {"a": [0, 10, 30, 60], "b": [25, 50]}
    rows = pd.DataFrame(
        [
            {"run": run, "step": float(end), "lr": rate[run](max(end - 1, 0)), "batch_size": b_loc}
            for run in ends
            for end in ends[run]
        ]
    ).sample(frac=1, random_state=0)
    for run, end, found in zip(rows["run"], rows["step"], slow_times(rows), strict=True):
        wanted = sum(rate[run](step) ** 2 for step in range(int(end))) / b_loc
        assert found == pytest.approx(wanted, abs=1e-12)


def test_gain_and_flatness_are_paired_with_sgd_of_the_same_seed() -> None:
    """Gain 1, 2 and 3 points at step 40; SGD's trace is 8 times that of H = 8."""
    numbers = panel_numbers(table(), PANEL).set_index("quantity")
    assert numbers.loc[[GAIN], ["x", "n", "mean"]].to_numpy().tolist() == [
        pytest.approx([0.1**2 * 40 / 5, 3, 2])
    ]
    assert numbers.loc[FLATTER, "mean"] == pytest.approx(np.log(8))
    without_trace = panel_numbers(table(hessian_trace=np.nan), PANEL)
    assert set(without_trace["quantity"]) == {GAIN}
    negative = table()
    negative.loc[negative["seed"] == 1, "hessian_trace"] = -1.0
    assert panel_numbers(negative, PANEL).set_index("quantity").loc[FLATTER, "n"] == 2


def test_evaluations_that_sgd_lacks_are_left_out() -> None:
    more = table()
    extra = more[(more["first_local_steps"] == 8) & (more["epoch"] == 20)]
    rows = pd.concat([more, extra.assign(epoch=18, step=32.0)], ignore_index=True)
    assert panel_numbers(rows, PANEL).equals(panel_numbers(more, PANEL))


def test_all_experiments_share_one_axis(tmp_path: Path) -> None:
    tables = {
        "fig1a": table(),
        "fig2b": table(experiment="fig2b", peak_lr=0.4, lr=0.4),
        "fig7a": table(experiment="fig7a", batch_size=1),
    }
    numbers = drawn("slowtime", tables, tmp_path / "slowtime").query("quantity == @GAIN")
    found = dict(zip(numbers["experiment"], numbers["x"], strict=True))
    assert found == pytest.approx({"fig1a": 0.08, "fig2b": 1.28, "fig7a": 0.4})


def test_flatness_is_what_the_claims_measure() -> None:
    """Compare with the judged value of the reference results, the mean over evaluations."""
    noise = read_table(REFERENCE / "fig7a.csv")
    numbers = panel_numbers(noise, PANEL)
    found = numbers[(numbers["quantity"] == FLATTER) & (numbers["first_local_steps"] == 32)]
    assert found["mean"].mean() == pytest.approx(flatter_throughout(noise, 32).mean(), rel=1e-12)


def test_every_experiment_with_sgd_is_in_the_figure() -> None:
    """Expect all but Figure 3(a), which compares numbers of clients at one H."""
    for path in REFERENCE.glob("fig*.csv"):
        rows = read_table(path)
        has_sgd = (rows.loc[rows["role"] == "phase 2", "first_local_steps"] == 1).any()
        assert has_sgd == (path.stem in paper().figures["slowtime"].experiments), path.stem

"""The simulation's table, its points and its figure; what the reference table says of chance."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.integrate import quad

from tests.commands import ROOT
from workflow.analysis.theory import figure as theory
from workflow.analysis.theory.simulation import Circle, Valley
from workflow.analysis.theory.slow_sde import exact_factor, slow_sde_factor
from workflow.config import Plot

BATCHES = 20
PREDICTIONS = ["slow_sde", "exact", "sgd_limit", "k_fold_limit"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the whole table's grid, what takes no time."""
    monkeypatch.setattr(theory, "VALLEY", Valley(time=0.02))
    monkeypatch.setattr(theory, "CIRCLE", Circle(time=0.002))
    monkeypatch.setattr(theory, "VALLEY_RUNS", ((1, 5), 2))
    monkeypatch.setattr(theory, "CIRCLE_RUNS", ((1, 20), 2))


def test_the_table_and_its_figure(small: None, tmp_path: Path) -> None:
    table = theory.simulate_all(1)
    rows = 3 * 2 * theory.BATCHES
    assert table.groupby(["model", "quantity"]).size().to_dict() == {
        ("valley", "drift factor"): rows,
        ("circle", "drift factor"): rows,
        ("circle", "diffusion"): rows,
    }
    assert table.notna().all().all()
    valley = table[table["model"] == "valley"]
    np.testing.assert_allclose(valley["argument"], 0.02 * 4 * valley["local_steps"])
    pd.testing.assert_frame_equal(table, theory.simulate_all(2))
    theory.theory_figure(table, Plot(), tmp_path / "theory")
    assert (tmp_path / "theory.png").stat().st_size > 10_000
    assert (tmp_path / "theory.pdf").read_bytes().startswith(b"%PDF")
    assert len(pd.read_csv(tmp_path / "theory.csv")) == 3 * 3 * 2


@pytest.mark.parametrize("local_steps", [1, 5])
def test_the_valleys_measured_factor_is_its_ends(small: None, local_steps: int) -> None:
    """With SGD x is exp(−t / 2K) at slow time t; the factor is the exponent over that."""
    k, valley = 4, Valley(time=0.02)
    table = pd.DataFrame(theory._valley_rows(k, local_steps, np.random.default_rng(7)))
    ends = valley.simulate(k, local_steps, 2 * BATCHES, np.random.default_rng(7))
    logs = [math.log((ends[2 * i] + ends[2 * i + 1]) / 2) for i in range(BATCHES)]
    steps = 50  # of η = 0.02, to t = 0.02
    assert table["batch"].tolist() == list(range(BATCHES))
    np.testing.assert_allclose(table["measured"], np.array(logs) / (-steps * 0.02**2 / (2 * k)))


@pytest.mark.parametrize("local_steps", [1, 20])
def test_the_circles_measured_factors_are_its_angles(small: None, local_steps: int) -> None:
    """SGD drifts by −0.6 / K in slow time and diffuses by 1 / K; the control has no drift."""
    k, circle = 4, Circle(time=0.002)
    table = pd.DataFrame(theory._circle_rows(k, local_steps, np.random.default_rng(7)))
    angle, control = circle.simulate(k, local_steps, 2 * BATCHES, np.random.default_rng(7))
    time = 80 * 0.005**2
    found = table.set_index(["quantity", "batch"])["measured"]
    for batch in range(BATCHES):
        a, b = angle[2 * batch : 2 * batch + 2]
        drift = (a + b - control[2 * batch] - control[2 * batch + 1]) / 2
        assert found["drift factor", batch] == pytest.approx(drift / (-0.6 / k * time))
        assert found["diffusion", batch] == pytest.approx((a - b) ** 2 / 2 / (time / k))
    assert len(found) == 2 * BATCHES


def test_the_tables_predictions_are_the_formulas(small: None) -> None:
    """On the valley, where λ = 1 + x² falls, the way to the predicted end takes the whole time.

    It takes ∫ 2K / (x · factor(λ)) dx. At finite η SGD, too, drifts faster: 1 / (1 − ηλ / 2) times.
    """
    table = theory.simulate_all(1)
    keys = ["model", "quantity", "num_clients", "local_steps"]
    assert (table.groupby(keys)[PREDICTIONS].nunique() == 1).all().all()
    found = table.groupby(keys)[PREDICTIONS].first()
    for k, h in product((2, 4, 8), (1, 20)):
        predicted = found.loc["circle", "drift factor", k, h].tolist()
        exact = float(exact_factor(0.005, h, (1.0, 0.0), k))
        assert predicted == pytest.approx([float(slow_sde_factor(0.005 * h, k)), exact, 1, k])
        assert found.loc["circle", "diffusion", k, h].tolist() == [1, 1, 1, 1]
    for k, h in product((2, 4, 8), (1, 5)):
        predicted = found.loc["valley", "drift factor", k, h]
        factors = {
            "slow_sde": lambda x, k=k, h=h: slow_sde_factor(2 * 0.02 * h * (1 + x**2), k),
            "exact": lambda x, k=k, h=h: (
                exact_factor(0.02, h, (1 + x**2, 1 + x**2), k) / (1 - 0.01 * (1 + x**2))
            ),
        }
        for kind, factor in factors.items():
            end = math.exp(-predicted[kind] * 0.02 / (2 * k))
            way, _ = quad(lambda x, f=factor, k=k: 2 * k / (x * f(x)), end, 1, epsrel=1e-10)
            assert way == pytest.approx(0.02, rel=1e-6), (k, h, kind)
        assert predicted[["sgd_limit", "k_fold_limit"]].tolist() == pytest.approx([1, k])


def test_a_point_is_its_batches_mean_and_t_interval() -> None:
    """The batches 1, 2 and 6 have mean 3, variance 7 and t-quantile 4.302653."""
    rows = pd.DataFrame(
        {
            "model": "valley",
            "quantity": "drift factor",
            "num_clients": 4,
            "local_steps": [5, 5, 5, 1, 1],
            "argument": [0.4, 0.4, 0.4, 0.08, 0.08],
            "measured": [1.0, 2.0, 6.0, 10.0, 30.0],
            "slow_sde": [2.2, 2.2, 2.2, 9.0, 9.0],
            "exact": [2.0, 2.0, 2.0, 25.0, 25.0],
            "sgd_limit": 1.0,
            "k_fold_limit": 4.0,
        }
    )
    one, other = theory.theory_points(rows.sample(frac=1, random_state=0)).to_dict("records")
    error = math.sqrt(7 / 3)
    assert (other["local_steps"], other["argument"], other["n"]) == (5, 0.4, 3)
    assert [other[name] for name in PREDICTIONS] == [2.2, 2.0, 1.0, 4.0]
    half = 4.302653 * error
    found = [other[name] for name in ("low", "mean", "high")]
    assert found == pytest.approx([3 - half, 3, 3 + half], rel=1e-6)
    assert other["standard_errors"] == pytest.approx((3 - 2.0) / error)
    assert (one["local_steps"], one["mean"], one["exact"]) == (1, 20, 25)
    assert one["standard_errors"] == pytest.approx(-0.5)  # 20 − 25, over 10


def test_no_other_configuration_changes_one(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = theory.simulate_all(1)
    monkeypatch.setattr(theory, "VALLEY_RUNS", ((5,), 2))
    monkeypatch.setattr(theory, "CIRCLE_RUNS", ((20,), 2))
    alone = theory.simulate_all(1)
    same = whole[whole["local_steps"] > 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, same)


def test_every_configuration_has_its_own_noise(small: None) -> None:
    """The same numbers would make the diffusion for two H rise and fall together."""
    table = theory.simulate_all(1)
    part = table[(table["quantity"] == "diffusion") & (table["num_clients"] == 4)]
    of_h = part.pivot(index="batch", columns="local_steps", values="measured")
    assert abs(of_h[1].corr(of_h[20])) < 0.8


def test_the_reference_diffusion_is_as_chance_allows() -> None:
    """One of its 24 points lies 3.6 of its own standard errors off (docs/theory.md)."""
    table = pd.read_csv(ROOT / "results/reference/laptop/tables/theory.csv")
    points = table[table["quantity"] == "diffusion"].groupby(["num_clients", "local_steps"])
    error = math.sqrt(2 / 49 / 20)  # 20 batches of 50 normal angles
    off = (points["measured"].mean() - 1) / error
    assert len(off) == 24 and off.abs().max() == pytest.approx(3.0, abs=0.05)
    assert stats.chi2.sf((off**2).sum(), 24) == pytest.approx(0.37, abs=0.005)


@pytest.mark.exhaustive
def test_that_point_with_ten_times_as_many_replicas() -> None:
    circle = Circle()
    angle, _ = circle.simulate(4, 10, 10_000, np.random.default_rng([20261128, 4, 10]))
    batches = angle.reshape(20, 500).var(1, ddof=1) * 4 / circle.end(10)
    assert batches.mean() == pytest.approx(1.013, abs=0.001)
    assert batches.std(ddof=1) / math.sqrt(20) == pytest.approx(0.018, abs=0.001)

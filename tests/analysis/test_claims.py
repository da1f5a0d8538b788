"""Judge claims by hand-made runs and measurements: what decides, what leaves undecided."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.analysis.made_runs import CLAIMS, ROWS, judge_row, measurement, row_verdict, varied
from workflow.analysis.claims.judge import judge, write_claims
from workflow.analysis.claims.measure import ExperimentDesign, Measurement, NamedClaim
from workflow.analysis.claims.verdict import Row
from workflow.claims import Claim
from workflow.paper import paper


def without(table: pd.DataFrame, gone: pd.Series[bool]) -> pd.DataFrame:
    """As a table of what is finished has it: one line without an evaluation for a missing run."""
    lacking = table.copy()
    lacking.loc[gone, ["step", "test_accuracy", "hessian_trace"]] = np.nan
    return lacking[~(gone & lacking.duplicated("run"))]


def judged_h(claim: NamedClaim) -> int:
    return 64 if claim.name.endswith("1/η") else 8


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_seeds_with_a_missing_run_are_left_out_and_named(claim: NamedClaim) -> None:
    """Whatever is measured: without one run of seed 3, seed 3 does not count, nor is it judged."""
    table = varied(claim.experiment)
    whole = judge_row(claim.name, table, judged_h(claim))
    assert whole.n == 5, whole.note
    assert whole.p is not None
    gone = (table["seed"] == 3) & (table["first_local_steps"] == 8)
    lacking = judge_row(claim.name, without(table, gone), judged_h(claim))
    assert lacking.n == 4
    assert lacking.verdict == "inconclusive"
    assert lacking.note.startswith("interim: a verdict needs all runs; missing: ")
    assert "(seed 3: H = 8" in lacking.note


@pytest.mark.parametrize(
    ("name", "grid"), [("3e, 1/η", (1, 64)), ("3e, 1/η", (1, 4)), ("3e, fall", (1, 4))]
)
def test_a_grid_that_ends_too_early_is_named(name: str, grid: tuple[int, ...]) -> None:
    table = varied("fig2e")
    found = judge_row(name, table[table["first_local_steps"].isin(grid)], grid[-1])
    assert (found.verdict, found.n) == ("inconclusive", 0)
    assert found.note == "fig2e has no H on one side of what is compared; add one"


def test_a_designed_experiment_that_was_not_run_is_not_called_missing_from_the_scale() -> None:
    designs = {
        name: ExperimentDesign(8, 0.5, cooldown=name != "fig1a") for name in ("fig1a", "fig2e")
    }
    found = judge({}, designs, None).set_index("claim")["note"]
    assert found["1a"] == "this scale has not run fig1a"
    assert found["1a, small η"] == "this scale has no fig1a with a cool-down"
    assert found["3e, rise"] == "this scale has not run fig2e"
    assert found["1b"] == "this scale has no such experiment"
    assert found["1"] == "this scale has no fig1a and no fig1b"


NEEDED = {
    "rate": [("peak_lr", 0.1), ("peak_lr", 0.4)],
    "fall": [("first_local_steps", 64)],
    "1/η": [("first_local_steps", 4)],
    "order": [("first_local_steps", 64)],
    "5": [("num_clients", 2), ("num_clients", 8)],
}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_a_setting_none_of_whose_runs_is_there_leaves_a_claim_undecided(claim: NamedClaim) -> None:
    """Rather than judged on the settings that are."""
    table, h = varied(claim.experiment), judged_h(claim)
    needed = [("first_local_steps", 8), *NEEDED.get(claim.name.split(", ")[-1], [])]
    if claim.name != "5" and not claim.name.endswith(("fall", "1/η")):
        needed.append(("first_local_steps", 1))
    for column, value in needed:
        found = judge_row(claim.name, without(table, table[column] == value), h)
        assert (found.n, found.p, found.verdict) == (0, None, "inconclusive"), (column, value)
        assert "missing" in found.note and "two seeds" in found.note
    nothing = judge_row(claim.name, without(table, table["seed"] > 0), h)
    assert (nothing.n, nothing.verdict) == (0, "inconclusive")


@pytest.mark.parametrize(
    ("name", "mean", "expected"),
    [("1a", 1.0, "supported"), ("1a", -1.0, "contradicted"), ("1a", 0.2, "no effect"),
     ("1a", -0.3, "no effect"), ("1a", 0.5, "supported"), ("2d", 0.0, "supported"),
     ("2d", -3.0, "supported"), ("2d", 0.3, "supported"), ("2d", 0.5, "inconclusive"),
     ("2d", 0.7, "contradicted")],
)  # fmt: skip
def test_the_interval_decides(name: str, mean: float, expected: str) -> None:
    values = mean + 0.1 * stats.norm.ppf((np.arange(20) + 0.5) / 20)
    found = row_verdict(name, measurement(values.tolist()))
    assert found.verdict == expected
    wanted = stats.ttest_1samp(values, 0).confidence_interval(1 - 0.025 / 18)
    assert (found.low, found.high) == pytest.approx(tuple(wanted))
    assert found.level == 0.025 / 18


@pytest.mark.parametrize(
    ("mean", "expected"),
    [(0.0, "supported"), (0.3, "supported"), (-0.3, "supported"), (0.5, "inconclusive"),
     (-0.5, "inconclusive"), (0.7, "contradicted"), (-0.7, "contradicted")],
)  # fmt: skip
def test_equivalence_is_an_interval_within_the_smallest_effect(mean: float, expected: str) -> None:
    values = mean + 0.1 * stats.norm.ppf((np.arange(20) + 0.5) / 20)
    claim = Claim(says="so", experiment="e", effect="gain_at_the_end", direction="equivalence")
    row = Row("own", "so", [NamedClaim("own", claim)], "own", 0.05)
    found = row.judge({"own": measurement(values.tolist())})
    assert found.verdict == expected
    tests = [
        stats.ttest_1samp(values, -0.5, alternative="greater").pvalue,
        stats.ttest_1samp(values, 0.5, alternative="less").pvalue,
    ]
    assert found.p == pytest.approx(max(tests))
    assert found.p_corrected is not None
    assert (found.p_corrected < 0.05) == (expected == "supported")


def test_a_wide_interval_is_inconclusive_and_p_below_5_percent_decides() -> None:
    for scale in np.linspace(0.2, 3, 40):
        values = (0.9 + scale * np.array([-1, -0.5, 0, 0.5, 1])).tolist()
        found = row_verdict("1a", measurement(values))
        assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
        assert found.p_corrected == pytest.approx(min(1, found.p * 0.05 * 18 / 0.025))
        assert (found.p_corrected < 0.05) == (found.verdict == "supported")
        found = row_verdict("2d", measurement([value - 1 for value in values]))
        assert found.p_corrected is not None
        assert (found.p_corrected < 0.05) == (found.verdict == "supported")


def test_levels_share_five_percent_whatever_is_judged() -> None:
    levels, families = paper().levels, paper().families
    assert Counter(families.values()) == {"primary": 7, "panels": 18, "controls": 2}
    assert len(levels) == len(ROWS) + 1 == 27
    for family, rate in {"primary": 0.025, "panels": 0.025, "controls": 0.05}.items():
        of_family = [level for name, level in levels.items() if families[name] == family]
        assert sum(of_family) == pytest.approx(rate)
    table = varied("fig1a")
    alone = judge({"fig1a": table}, {"fig1a": ExperimentDesign(8, 0.5)}, None).set_index("claim")
    both = judge(
        {"fig1a": table, "fig1b": table.assign(experiment="fig1b")},
        dict.fromkeys(("fig1a", "fig1b"), ExperimentDesign(8, 0.5)),
        None,
    ).set_index("claim")
    assert alone.loc["1a", "p_corrected"] == both.loc["1a", "p_corrected"]
    assert (alone.loc["1", "verdict"], alone.loc["1", "note"]) == (
        "not judged",
        "this scale has no fig1b",
    )
    assert both.loc["1", "n"] == 10 and both.loc["1", "target"] == "fig1a fig1b"


def test_equal_accuracies_are_no_proof_and_equal_numbers_decide_nothing() -> None:
    """Check two seeds of one more image of 1,000, which gave p = 0 without a least spread."""
    two = row_verdict("1a", measurement([0.1, 0.1], least_spread=0.1))
    assert two.p == pytest.approx(2 * stats.t.sf(1 / (0.1 / 2**0.5) * 0.1, 1))
    assert two.verdict == "inconclusive"
    many = row_verdict("1a", measurement([0.0] * 12, least_spread=0.1))
    assert many.verdict == "no effect"
    for values in ([0.3, 0.3], [0.1 + 0.2, 0.3]):
        same = row_verdict("6a, sharpness", measurement(values))
        assert (same.verdict, same.effect) == ("inconclusive", None)
        assert "no spread" in same.note
    one = row_verdict("1", measurement([0.3]), measurement([0.3, 0.4], least_spread=0.1))
    assert one.verdict == "inconclusive" and "two seeds" in one.note


def test_a_measurement_knows_its_resolution_and_smallest_effect() -> None:
    def measured(name: str, experiment: str) -> Measurement:
        [claim] = [claim for claim in CLAIMS if claim.name == name]
        table = varied(experiment)
        table["test_accuracy"] = table["test_accuracy"].round(3)  # 1,000 test images
        return claim.measured(table, ExperimentDesign(8, 0.6))

    end = measured("1a", "fig1a")
    assert (end.smallest, end.least_spread) == pytest.approx((0.6, 0.1))
    rise = measured("3e, rise", "fig2e")  # H from 1 to 8
    assert (rise.smallest, rise.least_spread) == pytest.approx((0.2, 0.1 / 3))
    clients = measured("5", "fig3a")  # K from 2 to 8
    assert (clients.smallest, clients.least_spread) == pytest.approx((0.3, 0.05))
    flat = measured("6a, sharpness", "fig7a")
    assert (flat.smallest, flat.least_spread) == pytest.approx((np.log(1.1), 0))
    order = measured("7, order", "fig7a")  # H from 1 to 64
    assert (order.smallest, order.least_spread) == pytest.approx((np.log(1.1) / 6, 0))


def test_claims_without_runs_say_so(tmp_path: Path) -> None:
    found = judge({}, {}, None)
    assert set(found["verdict"]) == {"not judged"}
    assert found["note"].str.len().min() > 0
    write_claims(found, tmp_path / "claims.csv")
    page = (tmp_path / "claims.html").read_text("utf-8")
    assert "not judged" in page
    assert "Bonferroni" in page


def test_every_claim_is_about_an_experiment_that_a_figure_shows() -> None:
    shown = {name for figure in paper().figures.values() for name in figure.experiments}
    assert {claim.experiment for claim in CLAIMS} == shown

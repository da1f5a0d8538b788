"""Judge claims by hand-made runs and measurements: what decides, what leaves undecided."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.analysis.made_runs import judge_row, measurement, row_verdict, varied
from tests.tracking.test_revision import git, new_repository
from trainer.tracking.provenance import ROOT
from workflow.analysis.claims.catalogue import CLAIMS, CONTROLS, LEVELS, PANELS, PRIMARY, ROWS
from workflow.analysis.claims.design import RULES, DesignCommits
from workflow.analysis.claims.judge import judge, write_claims
from workflow.analysis.claims.measure import Claim, ExperimentDesign, Measurement
from workflow.analysis.claims.theory_claim import TheoryClaim
from workflow.analysis.figures.catalogue import FIGURES


def without(table: pd.DataFrame, gone: pd.Series[bool]) -> pd.DataFrame:
    """As a table of what is finished has it: one line without an evaluation for a missing run."""
    lacking = table.copy()
    lacking.loc[gone, ["step", "test_accuracy", "hessian_trace"]] = np.nan
    return lacking[~(gone & lacking.duplicated("run"))]


def judged_h(claim: Claim) -> int:
    return 64 if claim.name.endswith("1/η") else 8


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_seeds_with_a_missing_run_are_left_out_and_named(claim: Claim) -> None:
    """Whatever is measured: without one run of seed 3, seed 3 does not count."""
    table = varied(claim.experiment)
    whole = judge_row(claim.name, table, judged_h(claim))
    assert whole.n == 5, whole.note
    assert whole.p is not None
    gone = (table["seed"] == 3) & (table["first_local_steps"] == 8)
    lacking = judge_row(claim.name, without(table, gone), judged_h(claim))
    assert lacking.n == 4
    assert "missing" in lacking.note
    assert "seed 3" in lacking.note


NEEDED = {
    "rate": [("peak_lr", 0.1), ("peak_lr", 0.4)],
    "fall": [("first_local_steps", 64)],
    "1/η": [("first_local_steps", 4)],
    "order": [("first_local_steps", 64)],
    "5": [("num_clients", 2), ("num_clients", 8)],
}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_a_setting_none_of_whose_runs_is_there_leaves_a_claim_undecided(claim: Claim) -> None:
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
     ("2d", -3.0, "supported"), ("2d", 0.3, "supported"), ("2d", 0.5, "contradicted")],
)  # fmt: skip
def test_the_interval_decides(name: str, mean: float, expected: str) -> None:
    values = mean + 0.1 * stats.norm.ppf((np.arange(20) + 0.5) / 20)
    found = row_verdict(name, measurement(values.tolist()))
    assert found.verdict == expected
    wanted = stats.ttest_1samp(values, 0).confidence_interval(1 - 0.025 / 18)
    assert (found.low, found.high) == pytest.approx(tuple(wanted))
    assert found.level == 0.025 / 18


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
    assert (len(PRIMARY), len(PANELS), len(CONTROLS)) == (7, 18, 2)
    assert len(LEVELS) == len(ROWS) + 1 == 27
    assert sum(LEVELS[name] for name in {*PRIMARY, *PANELS}) == pytest.approx(0.05)
    assert sum(LEVELS[name] for name in CONTROLS) == pytest.approx(0.05)
    assert sum(LEVELS[name] for name in PRIMARY) == pytest.approx(0.025)
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
    shown = {name for figure in FIGURES.values() for name in figure.experiments}
    assert {claim.experiment for claim in CLAIMS} == shown
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)


DESIGN = """\
experiments:
  fig1a: {title: a, seeds: &seeds [1, 2]}
  fig2a: {title: b, seeds: *seeds}
"""


def test_a_design_is_the_last_commit_that_changed_its_experiments_or_the_rules(
    tmp_path: Path,
) -> None:
    """Blank for a change that is not committed, and outside of a repository."""
    project = new_repository(tmp_path / "project")
    experiments, rule = project / "experiments/laptop.yaml", project / RULES[1]
    judging = project / RULES[0].replace("*", "judge")

    def design(*names: str, of: Path = project) -> str:
        return DesignCommits(of / "experiments/laptop.yaml", of).of(names)

    def commit(file: Path, text: str) -> str:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        assert design("fig1a") == ""
        git(project, "add", ".")
        git(project, "commit", "-m", "a change")
        return git(project, "rev-parse", "HEAD")

    commit(rule, "a")
    commit(judging, "a")
    first = commit(experiments, DESIGN)
    assert design("fig1a") == design("fig2a") == first
    # A title is no design, nor is the way of writing; another experiment's design is its own.
    commit(experiments, DESIGN.replace("title: b", "title: c").replace("*seeds", "[1, 2]"))
    second = commit(experiments, DESIGN.replace("*seeds", "[1, 2, 3]"))
    assert design("fig1a") == first
    assert design("fig2a") == design("fig1a", "fig2a") == design("fig2a", "fig1a") == second
    third = commit(experiments, DESIGN.replace("&seeds [1, 2]", "&seeds [1, 2, 3]"))
    assert (design("fig1a"), design("fig2a")) == (third, second)
    for broken in ("experiments: [", "no experiments", "[1]", ""):
        commit(experiments, broken)
        fixed = commit(experiments, DESIGN)
        assert design("fig1a") == design("fig2a") == fixed
    for file in (rule, judging):
        assert design("fig1a") != (changed := commit(file, "b"))
        assert design("fig1a") == design("fig2a") == design() == changed
    git(tmp_path, "clone", "--depth", "1", project.as_uri(), "shallow")
    assert design("fig1a", of=tmp_path / "shallow") == ""
    (tmp_path / "own.yaml").write_text(DESIGN)
    assert DesignCommits(tmp_path / "own.yaml", project).of(["fig1a"]) == ""
    assert all(list(ROOT.glob(pattern)) for pattern in RULES)


@pytest.mark.parametrize(
    ("factor", "spread", "expected"),
    [(1.01, 0.01, "supported"), (1.2, 0.01, "contradicted"), (1.0, 0.4, "inconclusive")],
)
def test_the_mechanism_is_judged_within_its_margin(
    factor: float, spread: float, expected: str
) -> None:
    draw = np.random.default_rng(2)
    rows = [
        {
            "model": "valley",
            "quantity": "drift factor",
            "num_clients": k,
            "local_steps": h,
            "measured": k * (1 if h < 10 else factor) * (1 + spread * draw.normal()),
            "slow_sde": k * (3.0 if h < 10 else 1.0),
        }
        for k in (2, 4)
        for h in (1, 20, 100)
        for _ in range(20)
    ]
    line = TheoryClaim(name="7").judge(pd.DataFrame(rows), "panels", 0.025 / 18)
    assert line.verdict == expected
    assert line.low is not None and line.high is not None and line.p_corrected is not None
    assert (line.high < 0.05) == (expected == "supported") == (line.p_corrected < 0.05)
    assert (line.low > 0.05) == (expected == "contradicted")

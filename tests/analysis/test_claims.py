"""Effects, verdicts and their statistics against scipy, closed formulas and hand-made runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.tracking.test_revision import git, new_repository
from trainer.tracking.provenance import ROOT
from workflow.analysis.claims import effects
from workflow.analysis.claims.catalogue import CLAIMS, LEVELS, PANELS, PRIMARY, ROWS
from workflow.analysis.claims.design import RULES, design_commit
from workflow.analysis.claims.judge import judge, write_claims
from workflow.analysis.claims.measure import Claim, ExperimentDesign, Measurement
from workflow.analysis.claims.theory_claim import TheoryClaim
from workflow.analysis.claims.verdict import Judgement
from workflow.analysis.figures.catalogue import FIGURES
from workflow.analysis.statistics import Estimate, estimate, pool

SEEDS = (1, 2, 3, 4, 5)
Accuracy = Callable[[int, int, float, int, int], float]  # of seed, H, η, K and step


def runs(
    accuracy: Accuracy,
    *,
    local_steps: tuple[int, ...] = (1, 8),
    rates: tuple[float, ...] = (0.1,),
    clients: tuple[int, ...] = (16,),
    steps: tuple[int, ...] = (0, 100, 200),
    experiment: str = "fig1a",
) -> pd.DataFrame:
    """Build a table of phase-2 runs: ``accuracy`` in points, Hessian trace exp(-accuracy / 10)."""
    rows = [
        {
            "experiment": experiment,
            "role": "phase 2",
            "run": f"H{h}-{lr}-K{k}-s{seed}",
            "seed": seed,
            "num_clients": k,
            "peak_lr": lr,
            "first_local_steps": h,
            "step": float(step),
            "test_accuracy": accuracy(seed, h, lr, k, step) / 100,
            "hessian_trace": np.exp(-accuracy(seed, h, lr, k, step) / 10),
            "diverged": False,
        }
        for seed in SEEDS
        for h in local_steps
        for lr in rates
        for k in clients
        for step in steps
    ]
    return pd.DataFrame(rows)


def noise(seed: int, h: int) -> float:
    return float(np.random.default_rng([seed, h]).normal())


def test_the_gain_is_paired_and_at_the_end() -> None:
    table = runs(lambda seed, h, lr, k, step: 10 * seed + (h > 1) * (step == 200) * seed)
    gains = effects.gain_at_the_end(table, 8)
    assert gains.to_dict() == pytest.approx({seed: float(seed) for seed in SEEDS})


def test_a_run_that_diverged_ends_with_its_accuracy_and_is_named() -> None:
    """Seed 2's Local SGD guesses one class of ten after 130 steps."""
    table = runs(lambda seed, h, lr, k, step: 70.0 + seed + (h > 1) * step / 100)
    ended = (table["seed"] == 2) & (table["first_local_steps"] == 8)
    table.loc[ended & (table["step"] == 200), ["step", "test_accuracy", "diverged"]] = (
        130,
        0.1,
        True,
    )
    gain = effects.gain_at_the_end(table, 8)
    assert gain.drop(2).to_numpy() == pytest.approx(2)
    assert gain[2] == pytest.approx(10 - 72)
    throughout = effects.gain_throughout(table, 8)
    assert throughout.drop(2).to_numpy() == pytest.approx(1.5)
    assert throughout[2] == pytest.approx(np.mean([1, 10 - 72]))
    judged = judge_row("1a", table, 8)
    assert judged.n == 5
    assert judged.note == "diverged: 1 of 10 runs of fig1a (seed 2: H = 8)"


def test_a_diverged_run_keeps_its_last_accuracy_at_every_later_evaluation() -> None:
    """Seed 2 of SGD ends at step 130 with 10 %, then all of Local SGD at 150 with 20 %."""
    table = runs(lambda seed, h, lr, k, step: 70.0 + step / 100, steps=(0, 100, 200, 300, 400))
    at = [table["step"] == step for step in (200, 300, 400)]
    one = (table["seed"] == 2) & (table["first_local_steps"] == 1)
    table.loc[one & at[0], ["step", "test_accuracy", "diverged"]] = 130, 0.1, True
    table = table[~(one & (at[1] | at[2]))]
    gains = effects.gain_throughout(table, 8)
    assert gains.drop(2).to_numpy() == pytest.approx(0)
    assert gains[2] == pytest.approx(np.mean([0, 62, 63, 64]))
    assert effects.gain_of_time(table, 8)[2] == pytest.approx(64)
    local = table["first_local_steps"] == 8
    table.loc[local & at[0].loc[table.index], ["step", "test_accuracy", "diverged"]] = (
        150,
        0.2,
        True,
    )
    table = table[~(local & (at[1] | at[2]).loc[table.index])]
    gains = effects.gain_throughout(table, 8)
    assert gains.drop(2).to_numpy() == pytest.approx(np.mean([0, -52, -53, -54]))
    assert gains[2] == pytest.approx(np.mean([0, 10, 10, 10]))


@pytest.mark.parametrize("name", ["6a, sharpness", "7, order"])
def test_a_diverged_run_leaves_sharpness_undecided(name: str) -> None:
    """It names the seed; a run of an H that the claim does not compare does not matter."""
    table = varied("fig7a")
    assert judge_row(name, table, 8).note == ""
    for h, matters in ((8, True), (64, name == "7, order")):
        diverged = table.copy()
        ended = (table["seed"] == 2) & (table["first_local_steps"] == h) & (table["step"] == 200)
        diverged.loc[ended, ["step", "hessian_trace", "diverged"]] = 130, np.nan, True
        found = judge_row(name, diverged, 8)
        if matters:
            assert (found.verdict, found.effect) == ("inconclusive", None)
            assert "no sharpness (seed 2)" in found.note
        else:
            assert (found.n, found.effect is None) == (5, False)


def test_what_the_gain_needs() -> None:
    def accuracy(seed: int, h: int, lr: float, k: int, step: int) -> float:
        return 50 + seed + (h > 1) * step / 100 * (1 if lr < 0.2 else 0.25)

    table = runs(accuracy, rates=(0.1, 0.4))
    assert effects.gain_of_a_small_rate(table, 8).tolist() == pytest.approx([1.5] * 5)
    assert effects.gain_of_time(table, 8).tolist() == pytest.approx([1.0] * 5)


def test_rise_fall_and_long_rounds() -> None:
    """Over log₂ H: 0, 3, 6, 9 points up to H = 512, then 5; 1/η = 10."""
    points = {1: 0.0, 8: 3.0, 64: 6.0, 512: 9.0, 4096: 5.0}
    table = runs(lambda seed, h, lr, k, step: 50 + seed + points[h], local_steps=tuple(points))
    assert effects.rise_with_h(table, 512).tolist() == pytest.approx([1.0] * 5)
    assert effects.fall_beyond(table, 512).tolist() == pytest.approx([4.0] * 5)
    assert effects.gain_of_long_rounds(table, 512).tolist() == pytest.approx([7.5 - 3] * 5)
    assert effects.fall_beyond(table, 4096).empty
    assert effects.gain_of_long_rounds(table, 8).empty


def test_rise_with_k_looks_at_the_judged_h_alone() -> None:
    def accuracy(seed: int, h: int, lr: float, k: int, step: int) -> float:
        return 50 + seed + (0.5 * np.log2(k) if h == 8 else -k)

    table = runs(accuracy, clients=(2, 4, 32))
    assert effects.rise_with_k(table, 8).tolist() == pytest.approx([0.5] * 5)


def test_label_noise_is_judged_throughout_and_not_at_the_start() -> None:
    table = runs(lambda seed, h, lr, k, step: 50 + (step == 0) * 7 * h + np.log2(h) * step / 100)
    assert effects.gain_throughout(table, 8).tolist() == pytest.approx([4.5] * 5)
    assert effects.flatter_throughout(table, 8).tolist() == pytest.approx([0.45] * 5)
    assert effects.flatter_with_h(table, 8).tolist() == pytest.approx([0.15] * 5)


def varied(experiment: str) -> pd.DataFrame:
    """Build noisy runs of every setting that some claim needs."""
    return runs(
        lambda seed, h, lr, k, step: 50 + noise(seed, h) + step * noise(seed, k) / 100 + lr,
        local_steps=(1, 4, 8, 64),
        rates=(0.1, 0.4) if experiment in ("fig2b", "fig2c") else (0.1,),
        clients=(2, 4, 8) if experiment == "fig3a" else (16,),
        experiment=experiment,
    )


def without(table: pd.DataFrame, gone: pd.Series[bool]) -> pd.DataFrame:
    """As a table of what is finished has it: one line without an evaluation for a missing run."""
    lacking = table.copy()
    lacking.loc[gone, ["step", "test_accuracy", "hessian_trace"]] = np.nan
    return lacking[~(gone & lacking.duplicated("run"))]


def judge_row(name: str, table: pd.DataFrame, h: int) -> Judgement:
    [claim] = [claim for claim in CLAIMS if claim.name == name]
    [row] = [row for row in ROWS if row.name == name]
    return row.judge({name: claim.measured(table, ExperimentDesign(h))})


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


def measurement(values: list[float], **changes: float | str) -> Measurement:
    given: dict[str, object] = {"smallest": 0.5, "local_steps": 8, **changes}
    return Measurement(values=pd.Series(values), **given)  # type: ignore[arg-type]


def row_verdict(name: str, *samples: Measurement) -> Judgement:
    [row] = [row for row in ROWS if row.name == name]
    return row.judge(dict(zip((c.name for c in row.claims), samples, strict=True)))


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
    assert (len(PRIMARY), len(PANELS), len(LEVELS), len(ROWS)) == (7, 18, 25, 24)
    assert sum(LEVELS.values()) == pytest.approx(0.05)
    assert sum(LEVELS[name] for name in PRIMARY) == pytest.approx(0.025)
    table = varied("fig1a")
    alone = judge({"fig1a": table}, {"fig1a": ExperimentDesign(8)}, None).set_index("claim")
    both = judge(
        {"fig1a": table, "fig1b": table.assign(experiment="fig1b")},
        dict.fromkeys(("fig1a", "fig1b"), ExperimentDesign(8)),
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
    assert "committed as" not in page
    assert "Bonferroni" in page


def test_every_claim_is_about_an_experiment_that_a_figure_shows() -> None:
    shown = {name for figure in FIGURES.values() for name in figure.experiments}
    assert {claim.experiment for claim in CLAIMS} == shown
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30), st.floats(1e-4, 0.5))
def test_the_t_test_is_scipys(values: list[float], level: float) -> None:
    if np.std(values) > 1e-6:
        got, wanted = estimate(values), stats.ttest_1samp(values, 0)
        interval = wanted.confidence_interval(1 - level)
        assert got.p() == pytest.approx(wanted.pvalue, rel=1e-6, abs=1e-12)
        assert got.interval(level) == pytest.approx(tuple(interval), rel=1e-6, abs=1e-9)
        less = stats.ttest_1samp(values, 3, alternative="less").pvalue
        assert got.p_below(3) == pytest.approx(less, rel=1e-6, abs=1e-12)


def test_pooled_panels_are_welchs_test() -> None:
    """The mean of means of x and y is half the difference of the means of x and −y."""
    draw = np.random.default_rng(3)
    x, y = draw.normal(1, 1, 5), draw.normal(2, 4, 9)
    got = pool([estimate(x), estimate(y)])
    wanted = stats.ttest_ind(x, -y, equal_var=False)
    assert (got.n, got.df) == (14, pytest.approx(wanted.df))
    assert got.mean == pytest.approx((x.mean() + y.mean()) / 2)
    assert got.error**2 == pytest.approx((x.var(ddof=1) / 5 + y.var(ddof=1) / 9) / 4)
    assert got.p() == pytest.approx(wanted.pvalue)
    half = np.array(wanted.confidence_interval(0.99)) / 2
    assert got.interval(0.01) == pytest.approx(tuple(half))
    row = row_verdict("1", measurement(x.tolist()), measurement(y.tolist(), smallest=0.7))
    assert (row.n, row.p, row.smallest) == (14, pytest.approx(wanted.pvalue), pytest.approx(0.6))


@pytest.mark.parametrize(("n", "level"), [(3, 0.05), (8, 0.025 / 7), (12, 0.025 / 18)])
def test_power_is_what_simulation_finds(n: int, level: float) -> None:
    draw, count = np.random.default_rng(n), 40_000
    found = Estimate(n, 0.0, 1 / n**0.5, n - 1)  # values of spread 1

    def bounds(mean: float) -> tuple[np.ndarray, np.ndarray]:
        values = draw.normal(mean, 1, (count, n))
        half = stats.sem(values, axis=1) * stats.t.isf(level / 2, n - 1)
        return values.mean(axis=1) - half, values.mean(axis=1) + half

    size = found.smallest_detectable(level)
    for effect, power in ((size, 0.9), (size / 2, found.power(size / 2, level))):
        low, high = bounds(effect)
        assert np.mean((low > 0) | (high < 0)) == pytest.approx(power, abs=0.01)
    low, high = bounds(0)
    assert np.mean(high < 0.8 * size) == pytest.approx(
        found.power_above(0.8 * size, level), abs=0.01
    )
    inside = np.mean((low > -size) & (high < size))
    assert inside == pytest.approx(found.power_inside(size, level), abs=0.01)


def test_equivalence_is_two_one_sided_tests() -> None:
    values = np.random.default_rng(1).normal(1.0, 0.02, 20)
    above = stats.ttest_1samp(values, 0.95, alternative="greater").pvalue
    below = stats.ttest_1samp(values, 1.05, alternative="less").pvalue
    assert estimate(values).p_inside(0.95, 1.05) == pytest.approx(max(above, below))


def test_the_design_is_the_last_commit_of_experiments_and_rules(tmp_path: Path) -> None:
    """Blank for a change that is not committed, and outside of a repository."""
    project = new_repository(tmp_path / "project")
    files = [project / "experiments/laptop.yaml", project / RULES[1]]
    files.append(project / RULES[0].replace("*", "judge"))
    assert design_commit(files[0], project) == ""
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("a")
    assert design_commit(files[0], project) == ""
    git(project, "add", ".")
    for file in files:
        git(project, "commit", "-m", "the first", "--allow-empty")
        file.write_text("b")
        assert design_commit(files[0], project) == ""
        git(project, "commit", "-am", "a change")
        assert design_commit(files[0], project) == (changed := git(project, "rev-parse", "HEAD"))
        (project / "own").write_text(str(file))
        git(project, "commit", "-am", "not of the design")
        assert design_commit(files[0], project) == changed
    git(tmp_path, "clone", "--depth", "1", project.as_uri(), "shallow")
    shallow = tmp_path / "shallow"
    assert design_commit(shallow / "experiments/laptop.yaml", shallow) == ""
    (tmp_path / "own.yaml").write_text("a")
    assert design_commit(tmp_path / "own.yaml", project) == ""
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

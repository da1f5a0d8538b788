"""Effects, verdicts and their statistics against scipy, closed formulas and hand-made runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from workflow.analysis.claims import effects
from workflow.analysis.claims.judge import CLAIMS, judge, write_claims
from workflow.analysis.claims.theory_claim import TheoryClaim
from workflow.analysis.claims.verdict import Claim
from workflow.analysis.figures.catalogue import FIGURES
from workflow.analysis.statistics import equivalence, holm, t_test

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
    missing = effects.no_gain_at_the_end(table, 8)
    assert missing.to_dict() == pytest.approx({seed: effects.MARGIN - seed for seed in SEEDS})


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
    assert 2 not in throughout.index and throughout.to_numpy() == pytest.approx(1.5)
    [claim] = [claim for claim in CLAIMS if claim.name == "1a"]
    assert claim.judge(table, 8).note == "diverged: 1 of 10 runs of fig1a (seed 2: H = 8)"


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


def judged_h(claim: Claim) -> int:
    return 64 if claim.name.endswith("1/η") else 8


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_seeds_with_a_missing_run_are_left_out_and_named(claim: Claim) -> None:
    """Whatever is measured: without one run of seed 3, seed 3 does not count."""
    table = varied(claim.experiment)
    whole = claim.judge(table, judged_h(claim))
    assert whole.n == 5, whole.note
    assert whole.p is not None
    gone = (table["seed"] == 3) & (table["first_local_steps"] == 8)
    lacking = claim.judge(without(table, gone), judged_h(claim))
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
def test_a_setting_none_of_whose_runs_is_there_leaves_a_claim_unjudged(claim: Claim) -> None:
    """Rather than judged on the settings that are."""
    table, h = varied(claim.experiment), judged_h(claim)
    needed = [("first_local_steps", 8), *NEEDED.get(claim.name.split(", ")[-1], [])]
    if claim.name != "5" and not claim.name.endswith(("fall", "1/η")):
        needed.append(("first_local_steps", 1))
    for column, value in needed:
        found = claim.judge(without(table, table[column] == value), h)
        assert (found.n, found.p, found.verdict) == (0, None, "not judged"), (column, value)
        assert "missing" in found.note
    nothing = claim.judge(without(table, table["seed"] > 0), h)
    assert (nothing.n, nothing.verdict) == (0, "not judged")


def tables(gain: float, spread: float) -> dict[str, pd.DataFrame]:
    def accuracy(seed: int, h: int, lr: float, k: int, step: int) -> float:
        return 50 + (h > 1) * (gain + spread * noise(seed, h))

    return {"fig1a": runs(accuracy)}


def verdict(gain: float, spread: float) -> str:
    found = judge(tables(gain, spread), {"fig1a": 8}, None).set_index("claim")
    return str(found.loc["1a", "verdict"])


def test_verdicts_follow_sign_and_corrected_p() -> None:
    assert verdict(gain=1.0, spread=0.1) == "supported"
    assert verdict(gain=-1.0, spread=0.1) == "contradicted"
    assert verdict(gain=0.0, spread=1.0) == "inconclusive"


def test_the_number_of_claims_counts() -> None:
    """Check that judging a second claim with the same p doubles the adjusted p."""
    values = tables(0.55, 0.45)["fig1a"]
    alone = judge({"fig1a": values}, {"fig1a": 8}, None).set_index("claim").loc["1a"]
    p = stats.ttest_1samp(effects.gain_at_the_end(values, 8), 0).pvalue
    assert alone["p"] == pytest.approx(p)
    assert alone["p_holm"] == pytest.approx(p)
    both = judge({"fig1a": values, "fig1b": values}, {"fig1a": 8, "fig1b": 8}, None)
    assert both.set_index("claim").loc["1a", "p_holm"] == pytest.approx(min(1, 2 * p))


def test_claims_without_runs_say_so(tmp_path: Path) -> None:
    found = judge({}, {}, None)
    assert set(found["verdict"]) == {"not judged"}
    assert found["note"].str.len().min() > 0
    write_claims(found, tmp_path / "claims.csv")
    page = (tmp_path / "claims.html").read_text("utf-8")
    assert "not judged" in page
    assert "Holm" in page


def test_every_claim_is_about_an_experiment_that_a_figure_shows() -> None:
    shown = {name for figure in FIGURES.values() for name in figure.experiments}
    assert {claim.experiment for claim in CLAIMS} == shown
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30))
def test_the_t_test_is_scipys(values: list[float]) -> None:
    got = t_test(values)
    if np.std(values) > 1e-6:
        wanted = stats.ttest_1samp(values, 0)
        interval = wanted.confidence_interval(0.95)
        assert got.p == pytest.approx(wanted.pvalue, rel=1e-6, abs=1e-12)
        assert [got.low, got.high] == pytest.approx(list(interval), rel=1e-6, abs=1e-9)


def test_the_smallest_detectable_effect_is_detected_four_times_in_five() -> None:
    """By simulation: spread and mean as found, fresh data."""
    draw = np.random.default_rng(0)
    values = draw.normal(size=8)
    size = t_test(values).smallest_detectable / np.std(values, ddof=1)
    p = stats.ttest_1samp(draw.normal(size, 1, (20_000, 8)), 0, axis=1).pvalue
    assert np.mean(p < 0.05) == pytest.approx(0.8, abs=0.01)


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_its_definition(values: list[float]) -> None:
    order = np.argsort(values, kind="stable")
    steps = [(len(values) - rank) * values[i] for rank, i in enumerate(order)]
    wanted = np.empty(len(values))
    wanted[order] = np.minimum(1, np.maximum.accumulate(steps))
    assert holm(values) == pytest.approx(list(wanted))
    assert holm([]) == []


def test_equivalence_is_two_one_sided_tests() -> None:
    values = np.random.default_rng(1).normal(1.0, 0.02, 20)
    above = stats.ttest_1samp(values, 0.95, alternative="greater").pvalue
    below = stats.ttest_1samp(values, 1.05, alternative="less").pvalue
    assert equivalence(values, 0.95, 1.05) == pytest.approx(max(above, below))


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
    line = TheoryClaim(name="7").judge(pd.DataFrame(rows))
    assert line.verdict == expected

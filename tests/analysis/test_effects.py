"""Measure effects in hand-made runs, of which some diverge."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.analysis.made_runs import SEEDS, judge_row, runs, varied
from workflow.analysis.claims import effects
from workflow.analysis.claims.effects import gain_after_cooldown, gain_at_the_end
from workflow.analysis.claims.judge import judge
from workflow.analysis.claims.measure import ExperimentDesign


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


def test_after_a_cooldown_its_end_counts_and_before_it_that_of_phase_2() -> None:
    """A run that diverged has none and counts with the accuracy that it ended with."""
    before = runs(lambda seed, h, lr, k, step: 50 + (h > 1) * step / 100, steps=(0, 100, 200))
    late = runs(lambda seed, h, lr, k, step: 60 + (h > 1) * seed, steps=(250, 300))
    diverged = (late["seed"] == 3) & (late["first_local_steps"] == 8)
    table = pd.concat([before, late[~diverged].assign(role="cooldown")], ignore_index=True)
    assert gain_at_the_end(table, 8).tolist() == pytest.approx([2] * 5)
    assert gain_after_cooldown(table, 8).tolist() == pytest.approx([1, 2, 52 - 60, 4, 5])
    design = {"fig1a": ExperimentDesign(8, 0.5), "fig1b": ExperimentDesign(8, 0.5, cooldown=True)}
    found = judge({"fig1a": table}, design, None).set_index("claim")
    assert found.loc["1a, small η", "note"] == "this scale has no fig1a with a cool-down"
    found = judge({"fig1a": table}, {"fig1a": design["fig1b"]}, None).set_index("claim")
    assert found.loc["1a, small η", "n"] == found.loc["1a", "n"] == 5
    assert found.loc["1a", "effect"] == pytest.approx(2)
    assert found.loc["1a, small η", "family"] == "controls"


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

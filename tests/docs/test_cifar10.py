"""Numbers of docs/cifar10.md follow from the reference results of the workstation scale."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from tests.docs.reference import REFERENCE, last, page, with_interval

WORKSTATION = REFERENCE / "workstation"
UNTIL_END, UNTIL_COOLED = ["phase 2"], ["phase 2", "cooldown"]
PHASES = (UNTIL_END, UNTIL_COOLED)


def table(experiment: str) -> pd.DataFrame:
    return pd.read_csv(WORKSTATION / f"tables/{experiment}.csv")


def at(experiment: str, step: int, value: str) -> pd.DataFrame:
    """Return ``value`` at ``step`` after the switch: a row per seed, a column per H."""
    rows = table(experiment)
    rows = rows[rows["role"].isin(UNTIL_COOLED) & (rows["step"] == step)]
    return rows.pivot(index="seed", columns="first_local_steps", values=value)


def claims() -> pd.DataFrame:
    return pd.read_csv(WORKSTATION / "claims.csv").set_index("claim")


@pytest.fixture(scope="module")
def text() -> str:
    return page("docs/cifar10.md")


def row(name: str, *cells: str) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def test_what_post_local_sgd_showed(text: str) -> None:
    end, cooled = (
        100 * last(table("fig1a"), "test_accuracy", roles, "first_local_steps") for roles in PHASES
    )
    for name, accuracy in (
        ("after 3,000 steps", 100 * at("fig1a", 3000, "test_accuracy")),
        ("end of phase 2, 7,800 steps", end),
        ("end of the cool-down", cooled),
    ):
        cells = [f"{accuracy[h].mean():.2f}" for h in (1, 200)]
        assert f"| {name} | {' | '.join(cells)} |" in text
        if name != "after 3,000 steps":
            assert row(name, *cells, with_interval(accuracy[200] - accuracy[1])) in text
    lifts = [with_interval((cooled - end)[h]) for h in (1, 200)]
    assert f"lifts SGD by {lifts[0]} points and Local SGD by {lifts[1]}" in text
    for name, value, step, digits in (
        ("training loss, second half of the cool-down", "train_loss", 8580, 2),
        ("test loss, end of the cool-down", "test_loss", 8580, 2),
        ("test loss, after 600 steps", "test_loss", 600, 2),
    ):
        loss = at("fig1a", step, value)
        cells = [f"{loss[h].mean():.{digits}f}" for h in (1, 200)]
        assert row(name, *cells, with_interval(loss[200] - loss[1], 3)) in text
    steps = range(600, 7800 + 1, 600)
    course = pd.DataFrame({step: at("fig1a", step, "test_loss").mean() for step in steps}).T
    start = at("fig1a", 0, "test_loss").mean()
    assert (course.loc[600] < start).all()  # "both test losses fall"
    assert course[1].is_monotonic_increasing  # "From then on SGD's rises to the end of phase 2"
    assert np.ptp(course[200]) < 0.02  # "stays within 0.02"


@pytest.mark.parametrize(("experiment", "hs"), [("fig7a", (1, 40, 200)), ("fig7b", (1, 200))])
def test_what_label_noise_showed(text: str, experiment: str, hs: tuple[int, ...]) -> None:
    accuracy, trace = (
        {step: at(experiment, step, value) for step in (0, 600, 3000)}
        for value in ("test_accuracy", "hessian_trace")
    )
    end = 100 * accuracy[3000]
    assert row("test accuracy, %", *(f"{end[h].mean():.2f}" for h in hs)) in text
    for name, step in (
        ("trace of the Hessian at the start", 0),
        ("trace of the Hessian after 600 steps", 600),
        ("trace of the Hessian", 3000),
    ):
        assert row(name, *(f"{trace[step][h].mean():,.0f}" for h in hs)) in text
    for h in hs[1:]:
        assert with_interval(end[h] - end[1]) in text
    start = 100 * accuracy[0][1].mean()
    if experiment == "fig7a":
        assert row("test accuracy at the start, %", *[f"{start:.2f}"] * 3) in text
        falls = 1 - np.exp(np.log(trace[3000]).mean() - np.log(trace[600]).mean())
        by = [f"{100 * falls[h]:.0f} % ({'SGD' if h == 1 else f'H = {h}'})" for h in hs]
        assert f"by {by[0]}, {by[1]} and {by[2]}" in text
        gain = 100 * (accuracy[600][200] - accuracy[600][1]).mean()
        assert f"{gain:.2f} points after 600 steps of H = 200" in text
    else:
        assert f"below the start point's {start:.2f} %" in text


def test_what_is_judged_of_label_noise(text: str) -> None:
    for name, digits in (
        ("6a, accuracy", 2), ("6a, sharpness", 2), ("7, order", 3),
        ("6b, accuracy", 2), ("6b, sharpness", 2), ("6", 2),
    ):  # fmt: skip
        found = claims().loc[name]
        assert found["verdict"] == "supported"
        effect, low, high = (f"{found[key]:.{digits}f}" for key in ("effect", "low", "high"))
        assert f"{effect} [{low}, {high}]" in text
        if name.endswith("sharpness"):
            times = np.exp(found["effect"])
            assert f"{effect} [{low}, {high}], so SGD's trace is {times:.1f} times" in text


def test_what_more_clients_showed(text: str) -> None:
    for roles in PHASES:
        end = 100 * last(table("fig3a"), "test_accuracy", roles, "num_clients")
        assert f"| {' | '.join(f'{end[k].mean():.2f}' for k in (1, 2, 4, 8))} |" in text
        for k in (2, 4, 8):
            assert with_interval(end[k] - end[1]) in text
    slopes = pd.Series(np.polyfit(np.log2(end.columns.to_numpy(float)), end.T.to_numpy(), 1)[0])
    assert f"After the cool-down the slope is {with_interval(slopes)} points" in text
    assert f"the gain is {with_interval(end[8] - end[4])} points" in text
    found = claims().loc["5"]
    assert found["verdict"] == "supported"
    assert f"{found['effect']:.2f} [{found['low']:.2f}, {found['high']:.2f}]" in text


def test_what_the_controls_showed(text: str) -> None:
    controls = table("controls")
    end, cooled = (100 * last(controls, "test_accuracy", roles, "setting") for roles in PHASES)
    for setting in end.columns:
        cells = [f"{phase[setting].mean():.2f}" for phase in (end, cooled)]
        for phase in (end, cooled) if setting != "H = 200" else []:
            cells.append(with_interval(phase["H = 200"] - phase[setting]))
        assert row(setting, *cells) in text
    means = ["H = 1; SWA", "H = 1; EMA 0.999"]
    before, after = end.mean(), cooled.mean()
    shares = (before[means] - before["H = 1"]) / (before["H = 200"] - before["H = 1"])
    assert shares.between(0.7, 0.8).all()
    assert "Before the cool-down SWA and EMA have three quarters of it" in text
    swa = end["H = 1; SWA"]
    assert 0.45 < (swa - cooled["H = 1"]).mean() / (after["H = 200"] - after["H = 1"]) < 0.55
    assert f"with {swa.mean():.2f} %" in text
    assert f"by {with_interval(end['H = 200'] - swa)} points at the end of phase 2" in text
    assert f"by {with_interval(cooled['H = 200'] - swa)} points if only Local SGD" in text
    assert f"ends {(before['H = 1'] - before['H = 1; K = 1']):.1f} points below SGD" in text
    assert f"no longer clear: {with_interval(cooled['H = 1; K = 1'] - cooled['H = 1'])}" in text


def test_what_the_controls_losses_showed(text: str) -> None:
    order = ["H = 7800", "H = 200", "H = 1; K = 1", "H = 1; SWA", "H = 1; EMA 0.999", "H = 1"]
    names = ["H = 7800", "H = 200", "K = 1", "SWA", "EMA", "SGD"]
    test, train = (
        last(table("controls"), value, UNTIL_COOLED, "setting")[order].mean()
        for value in ("test_loss", "train_loss")
    )
    said = [f"{loss:.2f} ({name})" for name, loss in zip(names, test, strict=True)]
    assert f"the test losses are {', '.join(said[:-1])} and {said[-1]}" in text
    losses = [f"{loss:.2f}" for loss in train]
    assert f"the training losses {', '.join(losses[:-1])} and {losses[-1]}" in text
    assert train.idxmax() == "H = 1; K = 1"


def test_what_is_judged_of_the_controls(text: str) -> None:
    own = claims()[claims()["family"] == "own"]
    assert (own["verdict"] == "supported").sum() == 4
    once = own.loc["Local SGD, once, small η"]
    assert once["verdict"] == "inconclusive"
    assert f"its corrected interval is [{once['low']:.2f}, {once['high']:.2f}]" in text


def test_what_all_images_showed(text: str) -> None:
    start = "accuracy in %, "
    for name, step in (
        (f"{start}at the switch", 0),
        (f"{start}after 6,000 steps", 6000),
        (f"{start}end of phase 2, 15,600 steps", 15_600),
        (f"{start}end of the cool-down", 17_550),
    ):
        [(_, accuracy)] = (100 * at("all_images", step, "test_accuracy")).iterrows()
        gain = f" {accuracy[200] - accuracy[1]:.2f}" if step else ""
        assert f"| {name} | {accuracy[1]:.2f} | {accuracy[200]:.2f} |{gain} |" in text
    for name, value, digits in (
        ("test loss, end of the cool-down", "test_loss", 3),
        ("training loss, second half of the cool-down", "train_loss", 2),
    ):
        [(_, loss)] = at("all_images", 17_550, value).iterrows()
        assert f"| {name} | {loss[1]:.{digits}f} | {loss[200]:.{digits}f} | |" in text


def test_what_the_pilot_runs_showed(text: str) -> None:
    pilots = pd.read_csv(WORKSTATION / "pilots.csv")

    def gain(figure: str, seed: int, step: int, rate: float) -> float:
        """Return Local SGD's accuracy minus SGD's at ``step``, in points."""
        runs = pilots[pilots["figures"].str.contains(figure) & (pilots["seed"] == seed)]
        runs = runs[(runs["peak_lr"] == rate) & (runs["num_clients"] == 8)]
        accuracy = {
            h: json.loads(a) for h, a in zip(runs["local_steps"], runs["accuracies"], strict=True)
        }
        return 100 * (accuracy[200][str(step)] - accuracy[1][str(step)])

    seeds = 1001, 1002
    end, cooled = ([gain("1a", s, step, 0.1) for s in seeds] for step in (7800, 8580))
    assert f"end of phase 2 of {end[0]:.2f} and {end[1]:.2f} points" in text
    assert f"after the cool-down of {cooled[0]:.2f} and {cooled[1]:.2f}" in text
    assert f"Local SGD is {-gain('2a', 1001, 600, 0.1):.1f} points below SGD after 600" in text
    large = gain("2b", 1001, 8580, 0.8)
    assert f"{cooled[0]:.1f} points with η = 0.1, {large:.1f} with η = 0.8" in text
    stand_in = pilots[pilots["figures"] == "1b"].set_index("local_steps")
    curves = stand_in["accuracies"].map(json.loads)
    for step, said in (
        (6000, "SGD has {} %, H = 25 has {} % and H = 200 has {} %"),
        (7800, "after 7,800 steps {}, {} and {} %"),
        (8580, "{}, {} and {} %"),
    ):
        found = [f"{100 * curves[h][str(step)]:.2f}" for h in (1, 25, 200)]
        assert said.format(*found) in text

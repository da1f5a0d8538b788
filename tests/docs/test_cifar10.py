"""Numbers of docs/cifar10.md follow from the reference results of the workstation scale."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from tests.docs.reference import last, page, with_interval
from tests.docs.workstation import PHASES, UNTIL_COOLED, WORKSTATION, at, claims, row, table


@pytest.fixture(scope="module")
def text() -> str:
    return page("docs/cifar10.md")


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
    phase1 = last(table("fig1a"), "train_loss", ["phase 1"], "first_local_steps").mean()[1]
    losses = [at("fig1a", step, "train_loss").mean() for step in (7800, 8580)]
    ends = [f"{loss[h]:.2f}" for loss in losses for h in (1, 200)]
    assert f"The training loss, on augmented images, is {phase1:.2f} at the switch" in text
    said = "phase 2 at {} (SGD) and {} (Local SGD), and the cool-down at {} and {}".format(*ends)
    assert said in text
    steps = range(600, 7800 + 1, 600)
    course = pd.DataFrame({step: at("fig1a", step, "test_loss").mean() for step in steps}).T
    start = at("fig1a", 0, "test_loss").mean()
    assert (course.loc[600] < start).all()  # "both test losses fall"
    assert course[1].is_monotonic_increasing  # "From then on SGD's rises to the end of phase 2"
    assert np.ptp(course[200]) < 0.02  # "stays within 0.02"


def test_what_random_initialisation_showed(text: str) -> None:
    for name, step in (
        ("after 600 steps", 600), ("after 7,800 steps", 7800),
        ("end, 15,600 steps", 15600), ("end of the cool-down", 16380),
    ):  # fmt: skip
        accuracy = 100 * at("fig2a", step, "test_accuracy")
        cells = [f"{accuracy[h].mean():.2f}" for h in (1, 200)]
        gain = with_interval(accuracy[200] - accuracy[1])
        assert row(f"accuracy in %, {name}", *cells, gain) in text
    for name, value in (("training loss", "train_loss"), ("test loss", "test_loss")):
        loss = at("fig2a", 15600, value).mean()
        assert row(f"{name}, end", f"{loss[1]:.2f}", f"{loss[200]:.2f}") in text
    gains = {s: at("fig2a", s, "test_accuracy").mean().diff()[200] for s in range(600, 15601, 600)}
    assert [s for s, gain in gains.items() if gain > 0] == list(range(8400, 15601, 600))
    found = claims().loc["4"]
    assert found["verdict"] == "supported"
    interval = f"[{found['low']:.2f}, {found['high']:.2f}]"
    assert (
        f"Row 4 is `supported`: {found['effect']:.2f} points, corrected interval {interval}" in text
    )


def test_when_local_sgd_begins_to_gain(text: str) -> None:
    def slow_time(rate: float, steps: int) -> str:
        return f"{rate**2 * steps / 16:.2g}"

    first, last_step = at("fig1a", 600, "test_accuracy"), 7800
    assert (first[200] - first[1]).mean() > 0
    said = f"at {slow_time(0.1, 600)}, and grows to the end, at {slow_time(0.1, last_step)}"
    assert said in text
    # Steps 8,400 and 2,400: the tests of Figures 2(a) and 2(b)
    assert f"is ahead from {slow_time(0.1, 8400)} on" in text
    assert f"with η = 0.8 from {slow_time(0.8, 2400)} on" in text


def test_what_the_learning_rate_changes(text: str) -> None:
    runs = table("fig2b")
    runs["rate"] = runs["run"].map(runs[runs["role"] == "phase 2"].groupby("run")["peak_lr"].max())
    runs = runs[runs["role"].isin(UNTIL_COOLED)]
    arms = [(0.1, 1), (0.1, 200), (0.8, 1), (0.8, 200)]

    def found(step: int, value: str) -> pd.DataFrame:
        rows = runs[runs["step"] == step]
        return rows.pivot(index="seed", columns=["rate", "first_local_steps"], values=value)[arms]

    for name, step, value, digits in (
        ("accuracy in %, after 600 steps", 600, "test_accuracy", 2),
        ("accuracy in %, end of phase 2", 7800, "test_accuracy", 2),
        ("accuracy in %, end of the cool-down", 8580, "test_accuracy", 2),
        ("test loss, end of the cool-down", 8580, "test_loss", 3),
    ):
        values = found(step, value) * (100 if digits == 2 else 1)
        cells = [f"{values[arm].mean():.2f}" for arm in arms]
        cells += [with_interval(values[r, 200] - values[r, 1], digits) for r in (0.1, 0.8)]
        assert row(name, *cells) in text
    cooled = 100 * found(8580, "test_accuracy")
    gains = {rate: cooled[rate, 200] - cooled[rate, 1] for rate in (0.1, 0.8)}
    assert f"After the cool-down it gains {with_interval(gains[0.1] - gains[0.8])} more" in text
    ahead = with_interval(cooled[0.8, 1] - cooled[0.1, 200])
    assert f"the difference is {ahead} points in its favour" in text
    means = {step: found(step, "test_accuracy").mean() for step in range(600, 7801, 600)}
    above = [step for step, mean in means.items() if mean[0.8, 200] > mean[0.8, 1]]
    assert above == list(range(2400, 7801, 600))  # "above it from step 2,400 on"
    rate, time = (claims().loc[f"2b, {name}"] for name in ("rate", "time"))
    assert (rate["verdict"], time["verdict"]) == ("inconclusive", "supported")
    assert f"grows by {time['effect']:.2f} points" in text
    said = f"{-rate['effect']:.2f} points less at the end of phase 2, corrected interval "
    assert f"{said}[{rate['low']:.2f}, {rate['high']:.2f}]" in text


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

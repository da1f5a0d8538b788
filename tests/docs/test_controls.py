"""Numbers of docs/cifar10.md about the controls follow from the reference results."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.docs.reference import REFERENCE, last, page, with_interval
from tests.docs.workstation import PHASES, UNTIL_COOLED, claims, row, table


@pytest.fixture(scope="module")
def text() -> str:
    return page("docs/cifar10.md")


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
    halfway = controls[controls["step"] == 8190].pivot(
        index="seed", columns="setting", values="test_accuracy"
    )
    rise = (cooled - 100 * halfway)["H = 1; K = 1"]
    assert f"second half of the cool-down, by {with_interval(rise)} points" in text
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
    each = last(table("controls"), "test_loss", UNTIL_COOLED, "setting")
    assert f"better: by {with_interval(each['H = 200'] - each['H = 7800'], 3)}" in text


def test_what_one_averaging_showed_on_digits(text: str) -> None:
    digits = pd.read_csv(REFERENCE / "extensions/claims.csv").set_index("claim")
    once = digits.loc["Local SGD, once, small η"]
    said = f"{once['effect']:.2f} [{once['low']:.2f}, {once['high']:.2f}]"
    assert f"On digits averaging once was worse, by {said} points" in text
    rows = pd.read_csv(REFERENCE / "extensions/tables/controls.csv")
    cooled = 100 * last(rows, "test_accuracy", UNTIL_COOLED, "setting")
    whole = (cooled["H = 1024"] - cooled["H = 1"]).mean()
    gain = with_interval(cooled["H = 3072"] - cooled["H = 1"])
    assert f"gain {gain} of the {whole:.2f} points" in page("docs/extensions.md")


def test_what_is_judged_of_the_controls(text: str) -> None:
    own = claims()[claims()["family"] == "own"]
    assert (own["verdict"] == "supported").sum() == 4
    once = own.loc["Local SGD, once, small η"]
    assert once["verdict"] == "inconclusive"
    assert f"its corrected interval is [{once['low']:.2f}, {once['high']:.2f}]" in text

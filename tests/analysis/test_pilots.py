"""The pilot runs that the laptop scale was designed from can be repeated, and give its power."""

from __future__ import annotations

import json
import shlex
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.commands import ROOT, trainer
from tests.conftest import metrics
from workflow.analysis.statistics import estimate
from workflow.campaign import load_campaign
from workflow.paper import paper

CIFAR10, IMAGENET = "fig1a fig2b fig2e", "fig1b fig2c fig2f"
SMALL = {"a": (CIFAR10, 0.2), "b": (IMAGENET, 0.125)}  # figures and η of Figures 1, 2(e) and 2(f)
RATES = {"b": (CIFAR10, 512, 0.11, 0.88), "c": (IMAGENET, 256, 0.1, 0.8)}  # H, and both η
Curves = pd.Series  # of {step: value}, by seed


@cache
def pilots() -> pd.DataFrame:
    table = pd.read_csv(ROOT / "results/reference/laptop/pilots.csv", dtype={"accuracies": str})
    return table[table["train_subset"] < 600].fillna({"noise_p": 0})  # 600 was given up


def curves(figures: str, h: int, column: str = "accuracies", **settings: float) -> Curves:
    rows = pilots()
    wanted = {"figures": figures, "local_steps": h, **settings}
    rows = rows[np.logical_and.reduce([rows[name] == value for name, value in wanted.items()])]
    parsed = [{int(k): v for k, v in json.loads(text).items()} for text in rows[column].dropna()]
    return pd.Series(parsed, index=rows["seed"][rows[column].notna()])


def at_end(figures: str, h: int, **settings: float) -> pd.Series:
    return curves(figures, h, **settings).map(lambda curve: 100 * curve[max(curve)])


def differences(figures: str, h: int, column: str = "accuracies", **settings: float) -> Curves:
    """Return, per seed and step that SGD was evaluated at, too, the value minus SGD's."""
    ours, sgd = (curves(figures, each, column, **settings) for each in (h, 1))
    return pd.Series(
        {
            seed: [ours[seed][step] - sgd[seed][step] for step in sorted(ours[seed])[1:]
                   if step in sgd[seed]]
            for seed in ours.index.intersection(sgd.index)
        }
    )  # fmt: skip


def gain(figures: str, h: int, control: int = 1, **settings: float) -> pd.Series:
    return (at_end(figures, h, **settings) - at_end(figures, control, **settings)).dropna()


def slope(values: list[pd.Series], columns: tuple[int, ...]) -> pd.Series:
    complete = pd.concat(values, axis=1).dropna()
    return pd.Series(np.polyfit(np.log2(columns), complete.to_numpy().T, 1)[0])


def rise(panel: str, hs: tuple[int, ...]) -> pd.Series:
    figures, lr = SMALL[panel]
    return slope([at_end(figures, h, peak_lr=lr) for h in hs], hs)


def rate(panel: str) -> pd.Series:
    figures, h, small, large = RATES[panel]
    return (gain(figures, h, peak_lr=small) - gain(figures, h, peak_lr=large)).dropna()


def time(panel: str) -> pd.Series:
    figures, h, small, _ = RATES[panel]
    return differences(figures, h, peak_lr=small).map(lambda d: 100 * (d[-1] - d[0]))


def throughout(figures: str, noise_p: float) -> pd.Series:
    return differences(figures, 32, peak_lr=0.1, noise_p=noise_p, steps=2048).map(
        lambda d: 100 * np.mean(d)
    )


def mean_log_trace(h: int) -> pd.Series:
    found = curves("fig7a", h, "hessian_traces", noise_p=0.1)
    return found.map(lambda trace: np.mean([np.log(v) for step, v in trace.items() if step]))


ROWS = {
    "1a": ("fig1a", lambda: gain(CIFAR10, 1024, peak_lr=0.2)),
    "1b": ("fig1b", lambda: gain(IMAGENET, 1024, peak_lr=0.125)),
    "2b, rate": ("fig2b", lambda: rate("b")),
    "2b, time": ("fig2b", lambda: time("b")),
    "2c, rate": ("fig2c", lambda: rate("c")),
    "2c, time": ("fig2c", lambda: time("c")),
    "3e, rise": ("fig2e", lambda: rise("a", (1, 16, 64, 256, 1024))),
    "3e, fall": ("fig2e", lambda: gain(CIFAR10, 1024, control=3072, peak_lr=0.2)),
    "3f, rise": ("fig2f", lambda: rise("b", (1, 64, 1024))),
    "3f, fall": ("fig2f", lambda: gain(IMAGENET, 1024, control=2048, peak_lr=0.125)),
    "4": ("fig2a", lambda: gain("fig2a", 1024, peak_lr=0.2)),
    "5": ("fig3a", lambda: slope(
        [at_end("fig3a", 1024, peak_lr=0.125, num_clients=k) for k in (1, 4, 16)], (1, 4, 16))),
    "6a, accuracy": ("fig7a", lambda: throughout("fig7a", 0.1)),
    "6a, sharpness": ("fig7a", lambda: mean_log_trace(1) - mean_log_trace(32)),
    "6b, accuracy": ("fig7b", lambda: throughout("fig7b", 0.2)),
    "7, order": ("fig7a", lambda: -slope([mean_log_trace(h) for h in (1, 8, 32, 128)],
                                         (1, 8, 32, 128))),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_the_documented_power_follows_from_the_pilots(
    row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, measure = ROWS[row]
    monkeypatch.chdir(ROOT)
    seeds = len(load_campaign(["scale=laptop"]).experiments.experiments[experiment].seeds)
    values = measure().dropna().to_numpy(float)
    spread = values.std(ddof=1)
    planned = estimate(np.resize([-1.0, 1.0], seeds) * spread * np.sqrt((seeds - 1) / seeds))
    power = planned.power(abs(values.mean()), paper().levels[row])
    numbers = f"{len(values)} | {values.mean():.2f} | {spread:.2f} | {seeds} | {power:.2f}"
    assert f"| {row} | {numbers} |" in (ROOT / "docs/digits.md").read_text("utf-8")


def check_that_options_repeat(row: pd.Series, data: Path, out: Path) -> None:
    """Run the options of a line of pilots.csv; they end with its accuracy."""
    options = [*shlex.split(row["settings"]), "--data-pth", data, "--log-pth", out]
    done = trainer("train", *options, "--allow-divergence", 1)
    assert done.returncode == 0, done.stderr
    assert metrics(out)[-1]["test_accuracy"] == pytest.approx(row["accuracy"], abs=0.01)


def test_a_pilot_run_is_repeated_by_its_options(digits: Path, tmp_path: Path) -> None:
    found = pilots().query("figures == 'fig2d' and local_steps == 2")
    check_that_options_repeat(found.iloc[0], digits, tmp_path)

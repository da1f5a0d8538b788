"""Numbers that the pages give in sentences follow from the reference results."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from scipy import stats

from tests.commands import ROOT
from tests.faults.damaged import CASES

REFERENCE = ROOT / "results/reference"


def page(name: str) -> str:
    return " ".join((ROOT / name).read_text("utf-8").split())


def ends(scale: str, experiment: str, value: str) -> pd.DataFrame:
    """Return ``value`` after each run's last step: a row per seed, a column per H."""
    table = pd.read_csv(REFERENCE / scale / f"tables/{experiment}.csv")
    table = table[table["role"] == "phase 2"]
    last = table[table["step"] == table.groupby("run")["step"].transform("max")]
    return last.pivot(index="seed", columns="first_local_steps", values=value)


def test_what_photos_showed() -> None:
    accuracy = 100 * ends("photos", "fig1b", "test_accuracy")
    gain = accuracy[30] - accuracy[1]
    low, high = stats.t.interval(0.95, len(gain) - 1, gain.mean(), stats.sem(gain))
    loss = ends("photos", "fig1b", "train_loss").mean()
    large = 100 * ends("photos", "fig2d", "test_accuracy")
    runs = pd.read_csv(REFERENCE / "photos/runs.csv")
    text = page("docs/imagenet.md")
    said = f"ends {-gain.mean():.1f} points below SGD, 95 % interval [{low:.1f}, {high:.1f}], n = 5"
    assert said in text
    assert f"ends {(large[1] - large[30]).mean():.1f} points below" in text
    assert f"ends at {loss[1]:.2f} (SGD) and {loss[30]:.2f} (H = 30). All {len(runs)} runs" in text


@pytest.mark.parametrize(("experiment", "hs"), [("fig7a", (1, 40, 200)), ("fig7b", (1, 200))])
def test_what_label_noise_showed_on_real_images(experiment: str, hs: tuple[int, ...]) -> None:
    accuracy = 100 * ends("workstation", experiment, "test_accuracy")
    trace = ends("workstation", experiment, "hessian_trace").mean()
    text = page("docs/cifar10.md")
    cells = [f"{accuracy[h].mean():.2f}" for h in hs]
    assert f"| test accuracy, % | {' | '.join(cells)} |" in text
    traces = " | ".join(f"{trace[h]:,.0f}" for h in hs)
    assert f"| trace of the Hessian | {traces} |" in text
    for h in hs[1:]:
        gain = accuracy[h] - accuracy[1]
        low, high = stats.t.interval(0.95, len(gain) - 1, gain.mean(), stats.sem(gain))
        assert f"{gain.mean():.2f} [{low:.2f}, {high:.2f}]" in text


def test_what_is_judged_of_label_noise_on_real_images() -> None:
    text = page("docs/cifar10.md")
    claims = pd.read_csv(REFERENCE / "workstation/claims.csv").set_index("claim")
    for name, digits in (
        ("6a, accuracy", 2), ("6a, sharpness", 2), ("7, order", 3),
        ("6b, accuracy", 2), ("6b, sharpness", 2), ("6", 2),
    ):  # fmt: skip
        found = claims.loc[name]
        assert found["verdict"] == "supported"
        effect, low, high = (f"{found[key]:.{digits}f}" for key in ("effect", "low", "high"))
        assert f"{effect} [{low}, {high}]" in text
    table = pd.read_csv(REFERENCE / "workstation/tables/fig7a.csv")
    early = table[(table["role"] == "phase 2") & (table["step"] == 600)]
    by_h = early.groupby("first_local_steps")["test_accuracy"].mean()
    assert f"{100 * (by_h[200] - by_h[1]):.2f} points after 600 steps of H = 200" in text
    start = pd.read_csv(REFERENCE / "workstation/tables/fig7b.csv")
    start = start[(start["role"] == "phase 2") & (start["step"] == 0)]
    assert f"below the start point's {100 * start['test_accuracy'].mean():.2f} %" in text


def test_what_more_clients_showed_on_real_images() -> None:
    table = pd.read_csv(REFERENCE / "workstation/tables/fig3a.csv")
    text = page("docs/cifar10.md")
    for roles in (["phase 2"], ["phase 2", "cooldown"]):
        rows = table[table["role"].isin(roles)]
        last = rows.loc[rows.groupby("run")["step"].idxmax()]
        end = 100 * last.pivot(index="seed", columns="num_clients", values="test_accuracy")
        assert f"| {' | '.join(f'{end[k].mean():.2f}' for k in (1, 2, 4, 8))} |" in text
        gains = end.drop(columns=1).sub(end[1], axis=0)
        for k in gains:
            low, high = stats.t.interval(0.95, len(gains) - 1, gains[k].mean(), stats.sem(gains[k]))
            assert f"{gains[k].mean():.2f} [{low:.2f}, {high:.2f}]" in text
    found = pd.read_csv(REFERENCE / "workstation/claims.csv").set_index("claim").loc["5"]
    assert found["verdict"] == "supported"
    assert f"{found['effect']:.2f} [{found['low']:.2f}, {found['high']:.2f}]" in text


def test_what_the_controls_showed_on_real_images() -> None:
    table = pd.read_csv(REFERENCE / "workstation/tables/controls.csv")
    text = page("docs/cifar10.md")
    until = {"phase 2": ["phase 2"], "cool-down": ["phase 2", "cooldown"]}
    ends = {}
    for name, roles in until.items():
        rows = table[table["role"].isin(roles)]
        last = rows.loc[rows.groupby("run")["step"].idxmax()]
        ends[name] = 100 * last.pivot(index="seed", columns="setting", values="test_accuracy")
    for setting in ends["phase 2"].columns:
        cells = [f"{end[setting].mean():.2f}" for end in ends.values()]
        for end in ends.values() if setting != "H = 200" else []:
            gain = end["H = 200"] - end[setting]
            low, high = stats.t.interval(0.95, len(gain) - 1, gain.mean(), stats.sem(gain))
            cells.append(f"{gain.mean():.2f} [{low:.2f}, {high:.2f}]")
        assert f"| {setting} | {' | '.join(cells)} |" in text
    before, after = (end.mean() for end in ends.values())
    shares = (before[["H = 1; SWA", "H = 1; EMA 0.999"]] - before["H = 1"]) / (
        before["H = 200"] - before["H = 1"]
    )
    assert shares.between(0.7, 0.8).all()
    assert "SWA and EMA have three quarters of the gain" in text
    below = [end["H = 1"] - end["H = 1; K = 1"] for end in (before, after)]
    assert f"{below[0]:.1f} points below SGD, {below[1]:.1f} after the cool-down" in text
    claims = pd.read_csv(REFERENCE / "workstation/claims.csv").set_index("claim")
    own = claims[claims["family"] == "own"]
    assert (own["verdict"] == "supported").sum() == 4
    once = own.loc["Local SGD, once, small η"]
    assert once["verdict"] == "inconclusive"
    assert f"its corrected interval is [{once['low']:.2f}, {once['high']:.2f}]" in text


def test_h_of_2_gains_with_the_large_rate() -> None:
    accuracy = 100 * ends("laptop", "fig2d", "test_accuracy")
    assert 0.8 < (accuracy[2] - accuracy[1]).mean() < 1.2
    assert "with H = 2, which nothing judges, Local SGD gains a point" in page("docs/claims.md")


def test_what_benchmarks_missed() -> None:
    lines = map(json.loads, (REFERENCE / "bench.jsonl").read_text("utf-8").splitlines())
    latest = {line["benchmark"]: line["figure"]["median"] for line in lines}
    whole, apart = (
        latest[f"memory: ResNet-56, K = 32, B_loc = 128, 1 process, import torch {how}"]
        for how in ("included", "apart")
    )
    text = page("docs/benchmarks.md")
    assert (
        f"CUDA's libraries takes {whole - apart:.0f} MB. Apart from it, {apart - 300:.0f}" in text
    )


def test_how_many_damaged_files_are_tried() -> None:
    assert f"- {len(CASES)} damaged or forbidden files" in page("docs/guarantees.md")

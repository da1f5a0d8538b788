"""Numbers that the pages give in sentences follow from the reference results."""

from __future__ import annotations

import json

import pandas as pd

from tests.commands import ROOT
from tests.docs.reference import REFERENCE, ends, page, with_interval
from tests.faults.damaged import CASES
from workflow.analysis.claims.measure import ExperimentDesign
from workflow.analysis.claims.rows import claims_of, rows_of
from workflow.analysis.statistics import pool
from workflow.analysis.tables.read import read_table
from workflow.experiments import load_experiments
from workflow.paper import paper


def test_what_photos_showed() -> None:
    accuracy = 100 * ends("photos", "fig1b", "test_accuracy")
    gain = accuracy[30] - accuracy[1]
    loss = ends("photos", "fig1b", "train_loss").mean()
    large = 100 * ends("photos", "fig2d", "test_accuracy")
    runs = pd.read_csv(REFERENCE / "photos/runs.csv")
    text = page("docs/imagenet.md")
    below, interval = with_interval(gain, 1).split(" ", 1)
    assert (
        f"ends {below.removeprefix('-')} points below SGD, 95 % interval {interval}, n = 5" in text
    )
    assert f"ends {(large[1] - large[30]).mean():.1f} points below" in text
    assert f"ends at {loss[1]:.2f} (SGD) and {loss[30]:.2f} (H = 30). All {len(runs)} runs" in text


def values_of(scale: str, claim: str) -> pd.Series[float]:
    """Measure ``claim`` on a scale's reference table: one number per seed."""
    [found] = [each for each in claims_of(paper()) if each.name == claim]
    experiment = load_experiments(ROOT / f"experiments/{scale}.yaml").experiments[found.experiment]
    table = read_table(REFERENCE / scale / f"tables/{found.experiment}.csv")
    return found.measured(table, ExperimentDesign.of(experiment)).values


def test_what_pooled_rows_hide() -> None:
    text = page("docs/claims.md")
    one, other = (values_of("laptop", f"{name}, accuracy") for name in ("6a", "6b"))
    common = one.index.intersection(other.index)
    correlation = one[common].corr(other[common])
    assert f"correlated ({correlation:.2f} over {len(common)} seeds)" in text
    [level] = [row.level for row in rows_of(paper()) if row.name == "1"]
    gains = values_of("workstation", "1a")
    none = pd.Series([-0.5, 0.5] * 3, index=range(131, 137))  # of 1a's spread, about
    assert pool([gains, none], [0, 0]).interval(level)[0] > 0
    assert "Even if 1b were exactly 0, the mean of both would be `supported`" in text


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

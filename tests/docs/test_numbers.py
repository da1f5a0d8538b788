"""Numbers that the pages give in sentences follow from the reference results."""

from __future__ import annotations

import json

import pandas as pd

from tests.docs.reference import REFERENCE, ends, page, with_interval
from tests.faults.damaged import CASES


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

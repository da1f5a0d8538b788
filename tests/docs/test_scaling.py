"""What docs/scaling.md calculates follows from the models' sizes and the measured times."""

from __future__ import annotations

import json
from typing import Any

import torch

from tests.commands import ROOT
from tests.docs.reference import page
from trainer.data.specs import DATASETS
from trainer.models.registry import build

TEXT = page("docs/scaling.md")
BARE = "dry run of a bare Snakefile"


def megabytes(name: str) -> float:
    with torch.device("meta"):
        model = build(name, DATASETS["imagenet" if name == "resnet50" else "cifar10"], seed=0)
    return sum(p.numel() for p in model.parameters()) * 4 / 1e6


def test_sizes_follow_from_the_models() -> None:
    small, large = megabytes("resnet56"), megabytes("resnet50")
    assert f"{small:.1f} MB for ResNet-56, {megabytes('vgg16'):.0f} MB for VGG-16" in TEXT
    assert f"{large:.0f} MB for ResNet-50" in TEXT
    assert f"| K · S | {4.096 * small:.0f} GB | {4.096 * large:.0f} GB |" in TEXT
    both = [2 * 512 * size / 1000 for size in (small, large)]
    assert f"| {both[0]:.1f} GB at P = 8 | {both[1]:.0f} GB at P = 8 |" in TEXT
    assert f"takes {4.096 * large / 60:.0f} minutes at 1 GB/s" in TEXT
    step, averaging = 4 * 32 / 1500, 2 * large / 10_000 + 0.01
    assert f"a step takes {1000 * step:.0f} ms and an averaging {1000 * averaging:.0f} ms" in TEXT
    assert f"{100 * averaging / step:.0f} % of the computing time for H = 1" in TEXT
    assert f"{100 * averaging / (26 * step):.1f} % for H = 26" in TEXT


def records(benchmark: str) -> list[dict[str, Any]]:
    """Return the latest record of each benchmark whose name begins with ``benchmark``."""
    lines = (ROOT / "results/reference/bench.jsonl").read_text().splitlines()
    latest = {record["benchmark"]: record for record in map(json.loads, lines)}
    return [record for name, record in latest.items() if name.startswith(benchmark)]


def test_times_of_dry_runs_are_those_measured() -> None:
    few, many = (r["variants"] for r in records("workflow: dry run"))
    for row, name in (
        ("`snakemake --dry-run figures`", "dry run"),
        ("the same of a bare Snakefile with as many jobs, one file each", BARE),
        ("`python -m workflow status`", "status"),
    ):
        cells = [few[f"{name}, 2000 runs"]["median"], many[f"{name}, 10000 runs"]["median"]]
        assert f"| {row} | {cells[0]:.1f} s | {cells[1]:.1f} s |" in TEXT
    bare = [few[f"{BARE}, 2000 runs"]["median"], many[f"{BARE}, 10000 runs"]["median"]]
    assert f"takes {bare[0]:.1f} s and {bare[1]:.0f} s for" in page("docs/benchmarks.md")


def test_times_of_averaging_are_those_measured() -> None:
    bare: list[float] = []
    averaging: dict[int, list[float]] = {1: [], 4: []}
    for record in records("averaging: "):
        clients = record["settings"]["clients"]
        times = {name: spread["median"] for name, spread in record["variants"].items()}
        averaging[clients].append(times[f"averaging, {clients} client(s) per process"])
        if clients == 4:
            bare.append(times["bare all-reduce"])
    assert (
        f"({bare[0]:.1f} ms for 0.1 MB, {bare[1]:.1f} ms for 3.4 MB, {bare[2]:.0f} ms for" in TEXT
    )
    more = [four - one for one, four in zip(averaging[1], averaging[4], strict=True)]
    assert f"4 clients take {more[0]:.1f}, {more[1]:.0f} and {more[2]:.0f} ms more" in TEXT

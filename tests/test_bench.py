"""What the benchmarks count and report."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from bench.communication_model import Parts, split_time
from bench.measure import Record, Spread, Target, measure_interleaved, ratios
from bench.report import report
from bench.roofline import Convolutions, step_flops
from tests.commands import ROOT
from trainer.data.specs import DATASETS
from trainer.models.registry import build


def test_the_page_holds_the_reference_measurements() -> None:
    lines = (ROOT / "results/reference/bench.jsonl").read_text("utf-8").splitlines()
    assert report(lines) in (ROOT / "docs/benchmarks.md").read_text("utf-8")


def line(name: str, values: list[float], target: Target | None) -> str:
    figure = Spread.of(values)
    record = Record(
        benchmark=name, unit="s", variants={}, figure_is="a ÷ b", figure=figure, target=target
    )
    met = target.met(figure.median) if target else None
    return json.dumps(asdict(record) | {"met": met})


def test_a_report_has_the_latest_of_each_benchmark() -> None:
    bound = Target(bound=1.5)
    lines = [line("first", [9], bound), line("second", [2], None), line("first", [1, 5, 1], bound)]
    table = report(lines).splitlines()
    assert table[2:] == [
        "| first | a ÷ b | 1 [1, 5] | ≥ 1.5 | **missed** |",
        "| second | a ÷ b | 2 [2, 2] |  |  |",
    ]


def test_variants_take_turns_and_ratios_stay_within_a_turn() -> None:
    calls: list[str] = []

    def measure(name: str) -> float:
        calls.append(name)
        return len(calls)

    values = measure_interleaved({name: lambda name=name: measure(name) for name in "ab"}, 2)
    assert calls == list("ababab")
    assert values == {"a": [3, 5], "b": [4, 6]}  # the first of each does not count
    assert ratios(values, "b", "a") == Spread(pytest.approx(4 / 3 / 2 + 6 / 5 / 2), 1.2, 4 / 3, 2)


def test_time_is_split_into_compute_waiting_and_all_reduces() -> None:
    """Two processes, an averaging that warms up, then phases of two averagings and of one."""
    began = np.array([[0.0, 13, 24, 34], [0, 11, 25, 35]])
    ended = np.array([[9.0, 15, 27, 39], [9, 16, 27, 39]])
    through = np.array([[10.0, 20, 30, 42], [10, 20, 30, 44]])
    first, second = split_time(began, ended, through, [2, 1])
    # Arrivals after 3 and 1 s, then after 4 and 5 s; each time one process waits, for 2 and 1 s
    assert first == Parts(compute=6.5, waiting=1.5, all_reduces=4.5, bare_all_reduces=7.0)
    assert second == Parts(compute=4.5, waiting=0.5, all_reduces=4.0, bare_all_reduces=4.0)
    assert first.wall == 12.5


def test_the_roofline_counts_every_convolution_of_the_network() -> None:
    """ResNet-20: 3 stages of 6 convolutions, of 16, 32, 64 channels on 32², 16², 8² pixels."""
    model, images = build("resnet20", DATASETS["cifar10"], seed=0), torch.randn(2, 3, 32, 32)
    same = [9 * width**2 * side**2 for width, side in ((16, 32), (32, 16), (64, 8))]
    narrower = [9 * width * 2 * width * side**2 for width, side in ((16, 16), (32, 8))]
    first = 9 * 3 * 16 * 32**2
    forward_of_one = 6 * same[0] + 5 * same[1] + 5 * same[2] + sum(narrower)
    expected = 2 * len(images) * (3 * forward_of_one + 2 * first)
    assert Convolutions(model, images).flops == expected
    linear = 2 * len(images) * 3 * 64 * 10
    assert step_flops(model, images, torch.zeros(2, dtype=torch.long)) == expected + linear

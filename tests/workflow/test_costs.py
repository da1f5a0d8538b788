"""Estimated costs against counts by hand and by real runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode

from tests.analysis.test_reference import WORLD
from tests.commands import ROOT, command
from trainer.local_sgd.schedule import Round
from trainer.local_sgd.sharpness import hessian_product, sharpness
from trainer.run import engine
from trainer.run.checkpoint import Checkpoints
from trainer.run.preemption import CheckpointPolicy, PreemptionGuard
from trainer.run.training_run import TrainingRun
from trainer.settings.run import RunSettings
from trainer.tracking.recorder import Recorder
from workflow.commands.costs import costs
from workflow.commands.hours import makespan
from workflow.commands.speed import kind_of, measure
from workflow.commands.work import count_work, data_sizes, model_cost
from workflow.experiments import RunSpec, expand, load_experiments


def test_a_perceptrons_operations_are_those_of_its_matrices() -> None:
    """64-128-128-10: forward, weights' gradients, and those of inputs but for the first."""
    settings = RunSettings(dataset="digits", model="mlp")
    operations, parameters = model_cost("mlp", settings.data, 8)
    first, others = 2 * 64 * 128, 2 * (128 * 128 + 128 * 10)
    assert operations == 2 * first + 3 * others
    assert parameters == 64 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10


def test_resnet50_is_that_of_torchvisions_table() -> None:
    """Compare with torchvision's 4.09·10⁹ multiplications and additions.

    https://docs.pytorch.org/vision/stable/models.html
    """
    settings = RunSettings(dataset="imagenet", model="resnet50")
    operations, parameters = model_cost("resnet50", settings.data, 8)
    assert operations == pytest.approx(3 * 2 * 4.09e9, rel=0.02)
    assert parameters == 25_557_032


def test_the_papers_figure_1a() -> None:
    paper = load_experiments(ROOT / "experiments" / "paper.yaml")
    cost = next(cost for cost in costs(paper) if cost.figure == "fig1a")
    per_sample, parameters = model_cost("resnet56", RunSettings(model="resnet56").data, 8)
    steps = 250 * 12
    assert cost.runs == 5 * (1 + 2)
    assert math.isclose(cost.operations, 15 * steps * 4096 * per_sample)
    assert parameters == 853_018
    assert cost.sent == (steps // 600 * 4 * parameters, steps * 4 * parameters)
    assert cost.hours(3) == pytest.approx(cost.operations / 3e12 / 3600)


def test_the_authors_figure_1a_is_two_curves_of_twelve_million_images() -> None:
    authors = load_experiments(ROOT / "experiments" / "authors.yaml")
    cost = next(cost for cost in costs(authors) if cost.figure == "fig1a")
    per_sample, _ = model_cost("resnet56", RunSettings(model="resnet56").data, 8)
    assert cost.runs == 5 * 2
    assert math.isclose(cost.operations, 10 * 250 * 12 * 4096 * per_sample)


def test_the_table_is_of_every_figure_and_the_docs_have_it() -> None:
    done = command("python", "-m", "workflow", "costs", "--scale", "paper")
    assert done.returncode == 0, done.stderr
    assert done.stdout in (ROOT / "docs" / "cluster.md").read_text()
    authors = command("python", "-m", "workflow", "costs", "--scale", "authors")
    assert authors.stdout.startswith("| figure")
    assert authors.stdout in (ROOT / "docs" / "gpu.md").read_text()
    assert [line.split("`")[1] for line in done.stdout.splitlines()[2:]] == [
        "fig1a", "fig1b", "fig2a", "fig2b", "fig2c", "fig2d", "fig2e", "fig2f", "fig3a", "fig7a",
        "fig7b",
    ]  # fmt: skip


class CountedRun(TrainingRun):
    """Count exports."""

    exports = 0

    def export(self, round: Round) -> None:
        self.exports += 1
        super().export(round)


@pytest.mark.parametrize(
    "phases",
    [
        {"epochs": 5, "step1": 1, "eval_freq1": 4},
        {"epochs": 5, "step1": 4, "eval_freq1": 2, "eval_on_start": True},
        {"epochs": 6, "decay1": 3, "step1": 4, "step2": 1, "eval_freq1": 9, "save_freq1": 1},
    ],
)
def test_counted_work_is_that_of_a_real_run(
    digits: Path, tmp_path: Path, phases: dict[str, Any]
) -> None:
    """Compare with what the run recorded: its steps, its rounds, its evaluations."""
    settings = RunSettings(
        dataset="digits", data_pth=digits, log_pth=tmp_path, model="cnn_bn", bn_batches=1,
        batch_size=4, total_batch_size=8, train_subset=24, **phases,
    )  # fmt: skip
    run = CountedRun(settings, WORLD)
    policy = CheckpointPolicy(WORLD, PreemptionGuard(), 1e9, 0)
    recorder = Recorder(settings, WORLD, execution="", steps=run.schedule.steps)
    engine.train(run, policy, Checkpoints(tmp_path, WORLD, ""), recorder)
    recorder.publish(run.model)
    recorder.close()
    recorded = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    work = count_work(settings)
    assert work.steps_per_epoch == 3
    assert work.single_steps + work.local_steps == recorded[-1]["step"]
    assert work.rounds == recorded[-1]["round"]
    assert work.single_steps == work.rounds - work.long_rounds
    assert work.evaluations == len(recorded)
    assert work.exports == run.exports
    assert data_sizes(settings) == (len(run.training), 1000)


def test_counted_products_are_those_of_a_real_measurement(digits: Path) -> None:
    """Divide the operations of a measurement of sharpness by those of one product.

    ARPACK restarts at an initial model, with ten products each time.
    """
    settings = RunSettings(
        dataset="digits", data_pth=digits, train_subset=60, sharpness=True, sharpness_samples=40,
        sharpness_probes=5, batch_size=8, total_batch_size=32,
    )  # fmt: skip
    run = TrainingRun(settings, WORLD)
    with FlopCounterMode(display=False) as whole:
        sharpness(run.model, run.training, samples=40, probes=5, seed=0)
    with FlopCounterMode(display=False) as before:
        product, size = hessian_product(run.model, run.training, np.arange(40))
    with FlopCounterMode(display=False) as one:
        product(np.ones(size))
    products = (whole.get_total_flops() - before.get_total_flops()) / one.get_total_flops()
    restarts = (products - count_work(settings).products) / 10
    assert restarts == 5


def test_runs_that_figures_share_count_once() -> None:
    found = load_experiments(ROOT / "experiments" / "laptop.yaml").experiments
    a, b = expand(found["fig1a"]), expand(found["fig2e"])
    alone = [makespan(runs, lambda run: 1.0, lambda run: 1, cores=1) for runs in (a, b)]
    seeds, in_both = 12, 4  # of the settings
    assert alone == [seeds * (1 + 4), seeds * (1 + 6)]
    both = makespan(a + b, lambda run: 1.0, lambda run: 1, cores=1)
    assert both == sum(alone) - seeds * (1 + in_both)


def test_a_run_waits_for_its_start_point_and_for_its_cores() -> None:
    runs = expand(load_experiments(ROOT / "experiments" / "laptop.yaml").experiments["fig1a"])

    def seconds(run: RunSpec) -> float:
        return 10.0 if run.start is None else 3.0

    one = [run for run in runs if run.settings.seed == 101]
    assert makespan(one, seconds, lambda run: 1, cores=64) == 13
    assert makespan(one, seconds, lambda run: 1, cores=3) == 16  # 3, then the fourth
    assert makespan(one, seconds, lambda run: 2, cores=2) == 22
    assert makespan(one, seconds, lambda run: 4, cores=2) == 22  # no more than there are


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("cnn_bn", {"single_step", "local_step", "averaging", "export", "evaluation"}),
        ("mlp", {"local_step", "gradient", "product"}),
    ],
)
def test_what_a_run_does_is_measured(name: str, names: set[str]) -> None:
    single = {"decay1": 1, "step2": 1} if "single_step" in names else {}
    settings = RunSettings(
        dataset="digits", model=name, batch_size=4, total_batch_size=16, train_subset=40,
        steps_per_epoch=2, epochs=2, step1=2, sharpness=True, sharpness_samples=8,
        **single,
    )  # fmt: skip
    kind = kind_of(settings, count_work(settings), 2, 1)
    assert kind.settings.num_clients == 2
    assert (kind.trained_on, kind.evaluated_on, kind.batches) == (40, 500, 50)
    assert kind == kind_of(settings.model_copy(update={"seed": 7}), count_work(settings), 2, 1)
    measured = measure(kind, frozenset(names))
    assert measured.keys() == names
    assert all(0 < seconds < 10 for seconds in measured.values())


@pytest.mark.slow
def test_a_scale_on_the_cpu_has_hours_and_a_last_line_for_all() -> None:
    done = command("python", "-m", "workflow", "costs", "--scale", "photos")
    assert done.returncode == 0, done.stderr
    head, _, *rows = [line.split(" | ") for line in done.stdout.split("\n\n")[0].splitlines()]
    assert "hours on this machine" in head[3]
    *each, together = ([float(row[1]), float(row[3].replace(",", ""))] for row in rows)
    assert together[0] == 45 < sum(runs for runs, _ in each)
    assert max(hours for _, hours in each) <= together[1] < sum(hours for _, hours in each)

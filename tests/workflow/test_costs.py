"""Estimated costs against counts by hand."""

from __future__ import annotations

import math

import pytest

from tests.commands import ROOT, command
from trainer.settings.run import RunSettings
from workflow.commands.costs import _model_cost, costs
from workflow.experiments import load_experiments


def test_a_perceptrons_operations_are_those_of_its_matrices() -> None:
    """64-128-128-10: forward, weights' gradients, and those of inputs but for the first."""
    settings = RunSettings(dataset="digits", model="mlp")
    operations, parameters = _model_cost("mlp", settings.data, 8)
    first, others = 2 * 64 * 128, 2 * (128 * 128 + 128 * 10)
    assert operations == 2 * first + 3 * others
    assert parameters == 64 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10


def test_resnet50_is_that_of_torchvisions_table() -> None:
    """Compare with torchvision's 4.09·10⁹ multiplications and additions.

    https://docs.pytorch.org/vision/stable/models.html
    """
    settings = RunSettings(dataset="imagenet", model="resnet50")
    operations, parameters = _model_cost("resnet50", settings.data, 8)
    assert operations == pytest.approx(3 * 2 * 4.09e9, rel=0.02)
    assert parameters == 25_557_032


def test_the_papers_figure_1a() -> None:
    paper = load_experiments(ROOT / "experiments" / "paper.yaml")
    cost = next(cost for cost in costs(paper) if cost.figure == "fig1a")
    per_sample, parameters = _model_cost("resnet56", RunSettings(model="resnet56").data, 8)
    steps = 250 * 12
    assert cost.runs == 5 * (1 + 2)
    assert math.isclose(cost.operations, 15 * steps * 4096 * per_sample)
    assert parameters == 853_018
    assert cost.sent == (steps // 600 * 4 * parameters, steps * 4 * parameters)
    assert cost.hours(3) == pytest.approx(cost.operations / 3e12 / 3600)


def test_the_authors_figure_1a_is_two_curves_of_twelve_million_images() -> None:
    authors = load_experiments(ROOT / "experiments" / "authors.yaml")
    cost = next(cost for cost in costs(authors) if cost.figure == "fig1a")
    per_sample, _ = _model_cost("resnet56", RunSettings(model="resnet56").data, 8)
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

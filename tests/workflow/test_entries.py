"""Entries of an experiment are told apart by the field's symbols, and found by their settings."""

from __future__ import annotations

from typing import Any

import pytest

from tests.commands import ROOT
from workflow.entries import labels, one_h_of, without
from workflow.experiments import Experiment, asked, load_experiments, matching
from workflow.paper import paper

SCALES = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))


def experiment(*runs: dict[str, Any], **values: Any) -> Experiment:
    settings = {"dataset": "digits", "model": "mlp", "batch_size": 8, "total_batch_size": 32,
                "steps_per_epoch": 24}  # fmt: skip
    given = {"title": "t", "seeds": [1, 2], "settings": settings, "runs": list(runs)}
    return Experiment.model_validate(given | values)


def labelled(*runs: dict[str, Any], **values: Any) -> list[str] | None:
    return labels(asked(experiment(*runs, **values)).entries)


@pytest.mark.parametrize("scale", SCALES)
def test_h_eta_and_k_tell_the_papers_runs_apart(scale: str) -> None:
    """Their tables and figures have no further column."""
    shown = {name for figure in paper().figures.values() for name in figure.experiments}
    experiments = load_experiments(ROOT / "experiments" / f"{scale}.yaml").experiments
    for name in shown & experiments.keys():
        assert labels(asked(experiments[name]).entries) is None, name


def test_curves_are_named_by_what_differs() -> None:
    assert labelled({"step1": 1}, {"step1": 4, "start_lr": 0.2}, {"total_batch_size": 8}) is None
    qsr = {"h_rule": "qsr", "alpha": 0.01}
    assert labelled({"step1": 1}, qsr, qsr | {"h_base": 4}) == [
        "H = 1", "H: QSR, α = 0.01", "H: QSR, α = 0.01, H ≥ 4",
    ]  # fmt: skip
    post_local = {"h_rule": "post-local", "switch": 5, "h_base": 8}
    inverse = {"h_rule": "inverse", "alpha": 2}
    assert labelled(post_local, inverse) == ["H: 1, from epoch 5 on 8", "H: 1/η, α = 2"]
    outer = {"step1": 4, "outer_momentum": 0.9}
    assert labelled({"step1": 4}, outer, outer | {"outer_slowmo": True},
                    outer | {"outer_nesterov": True, "outer_lr": 0.7}) == [
        "H = 4", "H = 4; outer momentum 0.9", "H = 4; SlowMo momentum 0.9",
        "H = 4; outer Nesterov momentum 0.9, outer lr 0.7",
    ]  # fmt: skip
    assert labelled({"lr_schedule": "cosine"}, {"start_lr": 0.02}) == [
        "H = 1; η = 0.04; cosine", "H = 1; η = 0.08; step",
    ]  # fmt: skip
    momentum = {"momentum": 0.9, "nesterov": True}
    assert labelled({"step1": 4}, {"step1": 4} | momentum) == [
        "H = 4; momentum 0; no nesterov", "H = 4; momentum 0.9; nesterov",
    ]  # fmt: skip
    assert labelled({"batch_size": 8}, {"batch_size": 4, "total_batch_size": 16}) == [
        "H = 1; B_loc = 8", "H = 1; B_loc = 4",
    ]  # fmt: skip
    phases = {"epochs": 6, "decay1": 2, "step1": 1, "step2": 8}
    assert labelled(phases, {"epochs": 6}) == ["H = 1 → 8; η · 0.1 from epoch 2", "H = 1"]


def test_what_most_entries_share_goes_without_saying() -> None:
    """Half of them are not most: then both say it."""
    small, momentum = {"total_batch_size": 8, "start_lr": 0.04}, {"momentum": 0.9}
    assert labelled({"step1": 1}, {"step1": 4}, momentum, small) == [
        "H = 1", "H = 4", "H = 1; momentum 0.9", "H = 1; K = 1",
    ]  # fmt: skip
    assert labelled({"step1": 4}, small | momentum) == [
        "H = 4; K = 4; momentum 0", "H = 1; K = 1; momentum 0.9",
    ]  # fmt: skip


def test_a_cooldown_that_all_runs_share_is_no_difference() -> None:
    cooldown = {"epochs": 2, "lr_factor": 0.1}
    assert labelled({"step1": 1}, {"step1": 8}, cooldown=cooldown) is None
    several = {"step1": 2, "step2": 4, "decay1": 2, "epochs": 4}
    labels_of = labelled({"step1": 1, "epochs": 4}, several, cooldown=cooldown)
    assert labels_of == ["H = 1", "H = 2 → 4; η · 0.1 from epoch 2"]


def test_means_of_iterates_before_a_cooldown_are_a_difference() -> None:
    """A cool-down makes a list of phases of them, none of whose own options says it."""
    swa, ema = {"weight_averaging1": "swa"}, {"weight_averaging1": "ema", "ema_decay": 0.99}
    made = experiment({"step1": 8}, {}, swa, ema, cooldown={"epochs": 2, "lr_factor": 0.1})
    expected = ["H = 8", "H = 1", "H = 1; SWA", "H = 1; EMA 0.99"]
    assert labels(asked(made).entries) == expected
    plain = {"step1": 1, "weight_averaging1": "none"}
    for wanted, label in ((plain, "H = 1"), (swa, "H = 1; SWA"), (ema, "H = 1; EMA 0.99")):
        one, two = matching(made, wanted)
        assert one.id == matching(made, wanted | made.runs[expected.index(label)])[0].id
        assert [run.settings.phases[-1].weight_averaging for run in (one, two)] == ["none"] * 2
    late = {"epochs": 6, "decay1": 2, "weight_averaging2": "swa"}
    told = labelled({"epochs": 6, "decay1": 2}, late)
    assert told == ["H = 1", "H = 1; last iterate → SWA"]


def test_entries_are_found_by_their_settings() -> None:
    """A rule's run has step1 of 1 by default, and is not that of H = 1."""
    made = experiment({"step1": 1}, {"step1": 4}, {"h_rule": "qsr", "alpha": 0.1},
                      cooldown={"epochs": 2})  # fmt: skip
    for wanted, at in (({"step1": 1}, 0), ({"step1": 4}, 1), ({"h_rule": "qsr"}, 2)):
        found = matching(made, wanted)
        assert [run.settings.seed for run in found] == [1, 2]
        assert found[0].id == matching(experiment(made.runs[at], cooldown={"epochs": 2}), {})[0].id
    assert matching(made, {"step1": 3}) == []


def test_labels_are_read() -> None:
    label = "H: QSR, α = 0.01; K = 4; momentum 0.9"
    assert without(label, "H") == "K = 4; momentum 0.9"
    assert without(label, "K") == "H: QSR, α = 0.01; momentum 0.9"
    assert [one_h_of(each) for each in (label, "H = 16; K = 4", "H = 1 → 8")] == [None, 16, None]

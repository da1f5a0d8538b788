"""What a change repeats and what it leaves alone, through Snakemake itself."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.workflows import edit, planned, snakemake

pytestmark = pytest.mark.slow  # it begins early


def test_a_second_call_finds_nothing_to_do_and_says_so(finished: Path) -> None:
    done = snakemake(finished, "fig1a")
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr


def test_a_changed_h_repeats_exactly_the_runs_that_use_it(edited: Path) -> None:
    edit(edited / "experiments" / "laptop.yaml", "{step1: 6}", "{step1: 4}")
    assert planned(edited, "fig1a") == Counter(train=2, table=1, figure=1)


def test_a_changed_phase_1_repeats_everything_after_it(edited: Path) -> None:
    edit(edited / "experiments" / "laptop.yaml", "phase1: {epochs: 2}", "phase1: {epochs: 3}")
    assert planned(edited, "fig1a") == Counter(start_point=2, train=4, table=1, figure=1)


def test_a_new_seed_trains_only_that_seed(edited: Path) -> None:
    edit(edited / "experiments" / "laptop.yaml", "seeds: [1, 2]", "seeds: [1, 2, 3]")
    assert planned(edited, "fig1a") == Counter(start_point=1, train=2, table=1, figure=1)


def test_a_changed_colour_trains_nothing(edited: Path) -> None:
    edit(edited / "config.yaml", "sgd_color: black", "sgd_color: navy")
    assert planned(edited, "fig1a") == Counter(figure=1)


def test_a_changed_drawing_is_drawn_and_trains_nothing(own: Path) -> None:
    edit(own / "workflow/analysis/figures/drawing.py", "linewidth=0.8", "linewidth=0.7")
    assert planned(own, "fig1a") == Counter(table=1, figure=1)


def test_a_changed_execution_repeats_nothing(edited: Path) -> None:
    edit(edited / "config.yaml", "processes: null", "processes: 2")
    edit(edited / "config.yaml", "threads: null", "threads: 2")
    edit(edited / "config.yaml", "device: null", "device: cpu")
    assert planned(edited, "fig1a") == Counter()


def test_a_newer_copy_of_a_published_checkpoint_repeats_nothing(own: Path) -> None:
    """Its SHA-256 says whether it is another."""
    model = next((own / "results" / "laptop" / "start_points").glob("*/model.pt"))
    start = own / "resources" / "published.pt"
    shutil.copyfile(model, start)
    digest = hashlib.sha256(start.read_bytes()).hexdigest()
    edit(own / "experiments" / "laptop.yaml", "phase1: {epochs: 2}",
         f"checkpoint: {{path: resources/published.pt, sha256: {digest}, epoch: 2}}")  # fmt: skip
    done = snakemake(own, "fig1a")
    assert done.returncode == 0, done.stdout + done.stderr
    start.touch()
    assert planned(own, "fig1a") == Counter()


def test_a_run_may_have_a_model_of_torchvision(edited: Path) -> None:
    edit(edited / "experiments" / "laptop.yaml", "dataset: digits, model: mlp",
         "dataset: cifar10, model: torchvision.vgg16")  # fmt: skip
    assert planned(edited, "fig1a")["train"] == 4


def test_a_copy_on_wandb_repeats_nothing_and_a_target_uploads_it(own: Path) -> None:
    edit(own / "config.yaml", "wandb: null", "wandb: offline")
    assert planned(own, "fig1a") == Counter()
    edit(own / "experiments" / "laptop.yaml", "seeds: [1, 2]", "seeds: [3]")
    done = snakemake(own, "fig1a")
    assert done.returncode == 0, done.stdout + done.stderr
    copies = list((own / "results/laptop/checkpoints").glob("*/wandb/offline-run-*"))
    assert len(copies) == 3
    assert planned(own, "wandb_sync") == Counter(wandb_sync=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETRC", str(own / "none"))
        done = snakemake(own, "wandb_sync")
    assert done.returncode != 0
    [reason] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "was not uploaded" in reason
    assert "offline-run-" in reason
    for copy in copies:
        [file] = copy.glob("*.wandb")
        file.with_suffix(".wandb.synced").touch()
    done = snakemake(own, "wandb_sync")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 uploaded, 3 were uploaded before, 0 not finished" in done.stdout


def test_comments_and_order_repeat_nothing(edited: Path) -> None:
    file = edited / "experiments" / "laptop.yaml"
    edit(file, "{epochs: 4, eval_on_start: true}", "{eval_on_start: true, epochs: 4} # same")
    jobs = planned(edited, "fig1a")
    assert jobs["train"] == jobs["start_point"] == 0

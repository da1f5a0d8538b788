"""`python -m workflow plan`: what an edit repeats, against Snakemake's own plan."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from tests.commands import command
from tests.workflow.test_status import ask, one_line, small_project, small_runs
from tests.workflows import edit, planned
from trainer.distributed.world import World
from trainer.run.session import train
from workflow.commands.plan import Finished, replacements
from workflow.experiments import RunSpec, expand, load_experiments
from workflow.job import Job

WORLD = World(rank=0, size=1, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """Train a start point and two runs in this process, to where Snakemake looks for them."""
    folder = small_project(tmp_path_factory.mktemp("small") / "copy", digits)
    before = ask(folder, "plan")
    assert "3 runs asked for, start points included: 0 finished and kept, 3 to be trained" in before
    assert "none of these repeat a finished run" in before
    assert "time: unknown" in before
    start, runs = small_runs(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for role, run in [("start_points", start), *(("runs", run) for run in runs)]:
            results = Path("results") / "laptop"
            given = {"out": results / role / run.id, "log_pth": results / "checkpoints" / run.id}
            if role == "runs":
                given |= {"resume_pth": f"results/laptop/start_points/{start.id}/model.pt"}
            train(run.settings.model_copy(update=given), WORLD)
    return folder


def agrees_with_snakemake(folder: Path, to_train: int) -> bool:
    jobs = planned(folder, "all")
    return jobs["train"] + jobs["start_point"] == to_train


def test_nothing_is_to_be_done_when_all_is_finished(finished: Path) -> None:
    printed = one_line(ask(finished, "plan"))
    assert "3 finished and kept, 0 to be trained none of these repeat a finished run" in printed
    assert "time: none, nothing is to be trained" in printed
    assert "nothing asks for" not in printed
    assert agrees_with_snakemake(finished, 0)


def test_a_changed_setting_says_which_and_how_many_finished_runs_it_repeats(own: Path) -> None:
    edit(own / "experiments" / "laptop.yaml", "phase2: {epochs: 4,", "phase2: {epochs: 5, wd: 0,")
    printed = one_line(ask(own, "plan"))
    assert "1 finished and kept, 2 to be trained 2 of these repeat a finished run" in printed
    assert "2 with other settings" in printed
    assert "2 epochs 4 → 5, wd 0.0005 → 0.0" in printed
    assert "2 finished runs that nothing asks for stay in results/laptop" in printed
    assert "by the time per sample of 3 finished runs" in printed  # H = 1: the start point as well
    assert agrees_with_snakemake(own, 2)


def test_a_changed_phase_1_repeats_all_that_begins_from_it(own: Path) -> None:
    edit(own / "experiments" / "laptop.yaml", "phase1: {epochs: 2}", "phase1: {epochs: 2, wd: 0}")
    printed = one_line(ask(own, "plan"))
    assert "0 finished and kept, 3 to be trained 3 of these repeat a finished run" in printed
    assert "1 wd 0.0005 → 0.0" in printed
    assert "2 another start point" in printed
    assert agrees_with_snakemake(own, 3)


def test_a_new_h_or_seed_repeats_nothing(own: Path) -> None:
    edit(own / "experiments" / "laptop.yaml", "{step1: 6}", "{step1: 4}")
    printed = one_line(ask(own, "plan"))
    assert "2 finished and kept, 1 to be trained none of these repeat a finished run" in printed
    assert "1 finished runs that nothing asks for" in printed
    assert agrees_with_snakemake(own, 1)
    edit(own / "experiments" / "laptop.yaml", "seeds: [1]", "seeds: [1, 2]")
    printed = one_line(ask(own, "plan"))
    assert "2 finished and kept, 4 to be trained none of these repeat a finished run" in printed
    assert agrees_with_snakemake(own, 4)


def test_what_snakemake_would_repeat_as_it_is_counts(own: Path) -> None:
    """Without metadata of Snakemake's own, newer inputs are what is left to tell by."""
    data = own / "resources" / "digits" / "train.beton"
    metrics = max((own / "results").rglob("metrics.jsonl"), key=lambda path: path.stat().st_mtime)
    later = metrics.stat().st_mtime + 10
    os.utime(data, (later, later))
    printed = one_line(ask(own, "plan"))
    assert "0 finished and kept, 3 to be trained 3 of these repeat a finished run" in printed
    assert "3 as they are" in printed
    assert "1 stale: updated input files" in printed
    assert agrees_with_snakemake(own, 3)


def test_the_time_is_that_of_finished_runs_per_sample(own: Path) -> None:
    """100 samples in batches of 32 are 96 an epoch; phase 2 has 4 epochs, the start point 2."""
    for provenance in (own / "results").rglob("provenance.json"):
        content = json.loads(provenance.read_text())
        epochs = 2 if provenance.parents[1].name == "start_points" else 4
        provenance.write_text(json.dumps(content | {"seconds": epochs * 96 * 0.5}))
    edit(own / "experiments" / "laptop.yaml", "phase2: {epochs: 4", "phase2: {epochs: 400")
    printed = one_line(ask(own, "plan", "--config", "threads=64"))  # one at once
    # 2 · 400 · 96 · 0.5 s = 640 min; beyond 100 in hours
    assert "time: about 11 h, 1 at once; by the time per sample of 3 finished runs" in printed
    edit(own / "experiments" / "laptop.yaml", "model: mlp", "model: cnn")
    assert "time: unknown" in ask(own, "plan")  # of another model
    edit(own / "experiments" / "laptop.yaml", "model: cnn", "model: mlp")
    for provenance in (own / "results").rglob("provenance.json"):
        provenance.write_text("{")
    assert "time: unknown" in ask(own, "plan")


def job(folder: Path, run: RunSpec) -> Job:
    return Job(run, "runs", folder / "results" / "laptop")


def test_runs_that_differ_least_replace_each_other_once(own: Path) -> None:
    """Of several finished runs of a slot, each is taken for one new run, the nearest."""
    _, [run, _] = small_runs(own)
    file = own / "experiments" / "laptop.yaml"
    original = own / "results" / "laptop" / "runs" / run.id
    near, far = (original.with_name(f"{run.id[:-8]}{i}2345678") for i in (1, 2))
    for folder, changes in ((near, {"wd": 0.1}), (far, {"wd": 0.2, "momentum": 0.9, "gamma": 0.5})):
        shutil.copytree(original, folder)
        settings = json.loads((folder / "settings.json").read_text())
        (folder / "settings.json").write_text(json.dumps(settings | changes))
    edit(file, "{step1: 1, eval_freq1: 6}", "{step1: 1, eval_freq1: 6, wd: 0.3}")
    new, other = expand(load_experiments(file).experiments["fig1a"])
    finished = [Finished(folder) for folder in (far, near)]
    found = replacements([job(own, new)], finished)
    assert found == {near: ("wd 0.1 → 0.3",)}
    assert replacements([job(own, other)], finished) == {}
    again = RunSpec(new.settings.model_copy(update={"wd": 0.4}), new.start)
    found = replacements([job(own, new), job(own, again), job(own, new)], finished)
    assert set(found) == {near, far}
    (near / "settings.json").unlink()
    assert "missing or damaged" in replacements([job(own, new)], finished[1:])[near][0]


ODD = ['{"dataset": [], "model": {}, "sharpness": [], "resume_pth": 3}', "[]", "7", "", "\x00"]


@pytest.mark.parametrize("name", ["settings.json", "provenance.json", "metrics.jsonl"])
def test_whatever_finished_runs_hold_there_is_a_plan(own: Path, name: str) -> None:
    edit(own / "experiments" / "laptop.yaml", "phase2: {epochs: 4,", "phase2: {epochs: 5,")
    for content in ODD:
        for path in (own / "results").rglob(name):
            path.write_text(content)
        assert "2 of these repeat a finished run" in one_line(ask(own, "plan"))


def test_a_damaged_sidecar_is_named(own: Path) -> None:
    edit(own / "experiments" / "laptop.yaml", "train_subset: 100", "wd: 0")
    (own / "resources/digits/train.beton.json").write_text("[]")
    done = command(sys.executable, "-m", "workflow", "plan", cwd=own)
    assert done.returncode == 2
    assert done.stderr.startswith("error: resources/digits/train.beton.json: damaged")
    assert len(done.stderr.splitlines()) == 1

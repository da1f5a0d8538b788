"""The workflow through Snakemake itself, in a copy of the tracked files."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.workflows import copy_project, edit, planned, refused, snakemake
from workflow.analysis.tables.read import read_table
from workflow.experiments import expand, load_experiments, start_points

pytestmark = pytest.mark.slow  # it begins early

SCALES = ("laptop", "extensions", "photos", "workstation", "paper", "authors")


ALL = {"figure": 4, "page": 4, "simulation": 1, "judge": 1, "overview": 1, "list_runs": 1}


@pytest.mark.parametrize(
    ("target", "after"),
    [
        ("fig1a", {"figure": 1}),
        ("communication", {"figure": 1}),
        ("slowtime", {"figure": 1}),
        ("figures", {"figure": 4, "simulation": 1}),
        ("claims", {"simulation": 1, "judge": 1}),
        ("compare", {"compare": 1}),
        ("all", ALL),
        ("", ALL),
    ],
)
def test_every_target_plans_the_whole_chain(
    project: Path, tmp_path: Path, target: str, after: dict[str, int]
) -> None:
    made = shutil.ignore_patterns("results", "resources", ".snakemake")
    fresh = shutil.copytree(project, tmp_path / "fresh", ignore=made)
    jobs = planned(fresh, *([target] if target else []))
    assert jobs == Counter(prepare=1, beton=1, start_point=2, train=4, table=1, **after)


def test_theory_needs_no_run(project: Path) -> None:
    assert planned(project, "theory") == Counter(simulation=1, figure=1)


def test_a_figure_that_the_scale_has_no_experiment_for_says_so(edited: Path) -> None:
    assert refused(edited, "fig7") == (
        "error: fig7 needs fig7a, fig7b, which experiments/laptop.yaml lacks; add them there"
    )
    assert planned(edited, "fig1a") == Counter()


def test_runs_that_figures_share_are_trained_once(edited: Path) -> None:
    file = edited / "experiments" / "laptop.yaml"
    whole = file.read_text()
    panel = whole[whole.index("  fig1a:") :].replace("fig1a", "fig2e")
    file.write_text(f"{whole}{panel}      - {{step1: 3, eval_freq1: 2}}\n")
    file.write_text(file.read_text() + "    judged_h: 3\n")
    assert planned(edited, "fig1a", "fig2e") == Counter(train=2, table=2, figure=2)


def test_figures_of_what_is_finished_say_what_is_missing(own: Path) -> None:
    """Without training what is missing, and whole again once it is there."""
    runs = expand(load_experiments(own / "experiments/laptop.yaml").experiments["fig1a"])
    metrics = own / "results/laptop/runs" / runs[-1].id / "metrics.jsonl"
    kept = metrics.rename(own / "kept.jsonl")
    only = ("fig1a", "--config", "only_finished=true")
    assert planned(own, *only) == Counter(table=1, figure=1)
    done = snakemake(own, *only)
    assert done.returncode == 0, done.stdout + done.stderr
    table = read_table(own / "results/laptop/tables/fig1a.csv")
    assert table.loc[table["step"].isna(), "run"].tolist() == [runs[-1].id]
    kept.rename(metrics)
    assert planned(own, "fig1a") == Counter(table=1, figure=1)


def test_figures_of_what_is_finished_repeat_no_run_that_is_stale(own: Path) -> None:
    for beton in (own / "resources/digits").glob("*.beton"):
        beton.touch()
    assert planned(own, "fig1a")["start_point"] == 2
    jobs = planned(own, "fig1a", "--config", "only_finished=true")
    assert jobs == Counter(table=1, figure=1)


def test_a_run_that_is_missing_behind_its_figures_is_trained(own: Path) -> None:
    """Also when `--touch` made all that there was newer."""
    run = next((own / "results/laptop/runs").iterdir())
    shutil.rmtree(run)
    for target in ("fig1a", "communication", "figures", "claims", "runs", "trained", "all"):
        assert planned(own, target)["train"] == 1, target
    assert snakemake(own, "all", "--touch").returncode == 0
    assert planned(own, "fig1a") == Counter(train=1, table=1, figure=1)


def test_figures_are_redrawn_from_tables_alone(own: Path) -> None:
    shutil.copytree(own / "results/laptop/tables", own / "shipped")
    drawn = (own / "results/laptop/figures/fig1a.csv").read_bytes()
    shutil.rmtree(own / "results/laptop")
    shutil.rmtree(own / "resources")
    done = snakemake(own, "fig1a", "communication", "--config", "tables=shipped")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (own / "results/laptop-from-tables/figures/fig1a.csv").read_bytes() == drawn


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_has_a_plan(tmp_path: Path, scale: str) -> None:
    folder = copy_project(tmp_path / "fresh")
    experiments = load_experiments(folder / "experiments" / f"{scale}.yaml").experiments
    runs, missing = [], set()
    for experiment in experiments.values():
        if (start := experiment.checkpoint) is not None:
            path = folder / start.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if start.url is None:
                path.touch()
            else:
                missing.add(path)
        runs += expand(experiment)
    jobs = planned(folder, "all", "--config", f"scale={scale}")
    assert jobs["download"] == len(missing)
    assert jobs["table"] == len(experiments)
    assert jobs["train"] == len({run.id for run in runs})
    assert jobs["start_point"] == len(start_points(runs))


def test_a_missing_published_checkpoint_is_downloaded_or_the_fix_is_named(edited: Path) -> None:
    """Without a network, as here: the proxy leads nowhere."""
    path = "resources/checkpoints/published.pt"
    start = f"path: {path}, url: https://example.org/start.pt, sha256: {'a' * 64}, epoch: 2"
    edit(edited / "experiments/laptop.yaml", "phase1: {epochs: 2}", f"checkpoint: {{{start}}}")
    assert planned(edited, "fig1a")["download"] == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("https_proxy", "http://127.0.0.1:9")
        done = snakemake(edited, path)
    assert done.returncode != 0
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "cannot be downloaded" in line
    assert f"put it at {path}" in line
    assert not (edited / path).exists()


def test_the_results_are_where_the_readme_says(finished: Path) -> None:
    figures = finished / "results" / "laptop" / "figures"
    assert {p.name for p in figures.iterdir()} == {"fig1a.png", "fig1a.pdf", "fig1a.csv"}
    assert (figures / "fig1a.png").read_bytes().startswith(b"\x89PNG")
    assert (figures / "fig1a.pdf").read_bytes().startswith(b"%PDF")
    table = read_table(finished / "results" / "laptop" / "tables" / "fig1a.csv")
    assert table.groupby("role")["run"].nunique().to_dict() == {"phase 1": 2, "phase 2": 4}


def test_runs_of_a_seed_share_their_start_point(finished: Path) -> None:
    table = read_table(finished / "results" / "laptop" / "tables" / "fig1a.csv")
    first = table[(table["role"] == "phase 2") & (table["step"] == 0)]
    assert (first.groupby("seed")["start"].nunique() == 1).all()
    assert (first.groupby("seed")["test_loss"].nunique() == 1).all()
    assert first["start"].nunique() == 2


def test_a_report_of_less_than_all_is_refused_in_one_line(edited: Path, tmp_path: Path) -> None:
    done = snakemake(edited, "all", "--report", tmp_path / "report.html")
    assert done.returncode == 2
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.endswith(".html is not made yet; run `snakemake all` first")
    assert "WorkflowError" not in done.stderr


def test_a_failing_job_shows_its_reason_and_leaves_no_result(edited: Path) -> None:
    edit(edited / "experiments" / "laptop.yaml", "{step1: 6}", "{step1: 6, start_lr: 1.0e+9}")
    done = snakemake(edited, "fig1a", "--config", "retries=1")
    assert done.returncode != 0
    reasons = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(reasons) > 1
    assert all("training diverged" in reason for reason in reasons)
    runs = edited / "results" / "laptop" / "runs"
    failed = {run.id for run in expand(load_experiments(
        edited / "experiments" / "laptop.yaml").experiments["fig1a"])[2:]}  # fmt: skip
    for run in failed:
        log = edited / "results" / "laptop" / "logs" / f"{run}.log"
        tries = log.with_name(f"{run}.earlier.log").read_text()
        assert tries.count("error: the loss is not finite") == 2
        assert tries.endswith(log.read_text())
    assert not failed & {p.parent.name for p in runs.glob("*/metrics.jsonl")}

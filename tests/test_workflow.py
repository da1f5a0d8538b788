"""The workflow through Snakemake itself, in a copy of the tracked files."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import jsonschema
import pandas as pd
import pytest
import yaml

from tests.conftest import BIN, ROOT, command
from workflow.experiments import expand, load_experiments, schemas, start_points

TINY = """
execution: {processes: 1, threads: 1}
experiments:
  fig1a:
    title: tiny
    seeds: [1, 2]
    settings: {dataset: digits, model: mlp, batch_size: 8, total_batch_size: 32, train_subset: 100}
    phase1: {epochs: 2}
    phase2: {epochs: 4, eval_on_start: true}
    runs:
      - {step1: 1, eval_freq1: 6}
      - {step1: 6}
"""
SCALES = ("laptop", "workstation", "paper")
PIECES = ("Snakefile", "config.yaml", "experiments", "workflow", "trainer", "envs", "profiles")


def snakemake(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return command(BIN / "snakemake", *arguments, cwd=folder)


def planned(folder: Path, *arguments: object) -> Counter[str]:
    """Jobs per rule that a dry run lists; targets themselves are left out."""
    done = snakemake(folder, "--dry-run", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = re.findall(r"^(?:local)?rule (\w+):", done.stdout + done.stderr, re.MULTILINE)
    return Counter(job for job in jobs if job not in ("all", "figures", "fig1a"))


def copy_project(folder: Path) -> Path:
    folder.mkdir()
    for piece in PIECES:
        source = ROOT / piece
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, folder / piece)
    return folder


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project (its path with a space and an accent) with a tiny experiment."""
    folder = copy_project(tmp_path_factory.mktemp("a projét") / "copy")
    (folder / "experiments" / "laptop.yaml").write_text(TINY)
    return folder


@pytest.fixture(scope="module")
def finished(project: Path, digits: Path) -> Path:
    """The project after `snakemake fig1a`, with everything made by its own rules."""
    done = snakemake(project, "fig1a")
    assert done.returncode == 0, done.stdout + done.stderr
    return project


@pytest.fixture
def edited(finished: Path):
    """The finished project, whose settings are put back after the test."""
    files = [finished / "config.yaml", finished / "experiments" / "laptop.yaml"]
    before = [file.read_text() for file in files]
    yield finished
    for file, text in zip(files, before, strict=True):
        file.write_text(text)


@pytest.mark.parametrize("target", ["fig1a", "figures", "all", ""])
def test_every_target_plans_the_whole_chain(project: Path, tmp_path: Path, target: str) -> None:
    made = shutil.ignore_patterns("results", "resources", ".snakemake")
    fresh = shutil.copytree(project, tmp_path / "fresh", ignore=made)
    jobs = planned(fresh, *([target] if target else []))
    assert jobs == Counter(prepare=1, beton=1, start_point=2, train=4, table=1, figure=1)


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_has_a_plan(tmp_path: Path, scale: str) -> None:
    folder = copy_project(tmp_path / "fresh")
    experiment = load_experiments(folder / "experiments" / f"{scale}.yaml").experiments["fig1a"]
    if experiment.checkpoint is not None:
        path = folder / experiment.checkpoint.path
        path.parent.mkdir(parents=True)
        path.touch()
    jobs = planned(folder, "fig1a", "--config", f"scale={scale}")
    assert "download" not in jobs
    runs = expand(experiment)
    assert jobs["train"] == len(runs) == len({run.id for run in runs})
    assert jobs["start_point"] == len(start_points(runs))


def test_a_missing_published_checkpoint_is_downloaded_or_the_fix_is_named(tmp_path: Path) -> None:
    """Without a network, as here: the proxy leads nowhere."""
    folder = copy_project(tmp_path / "fresh")
    options = ["--config", "scale=workstation", "--"]
    assert planned(folder, *options, "fig1a")["download"] == 1
    path = "resources/checkpoints/phase1_common.pt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("https_proxy", "http://127.0.0.1:9")
        done = snakemake(folder, *options, path)
    assert done.returncode != 0
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "cannot be downloaded" in line
    assert f"put it at {path}" in line
    assert not (folder / path).exists()


def test_the_results_are_where_the_readme_says(finished: Path) -> None:
    figures = finished / "results" / "laptop" / "figures"
    assert {p.name for p in figures.iterdir()} == {"fig1a.png", "fig1a.pdf", "fig1a.csv"}
    assert (figures / "fig1a.png").read_bytes().startswith(b"\x89PNG")
    assert (figures / "fig1a.pdf").read_bytes().startswith(b"%PDF")
    table = pd.read_parquet(finished / "results" / "laptop" / "tables" / "fig1a.parquet")
    assert table.groupby("role")["run"].nunique().to_dict() == {"phase 1": 2, "phase 2": 4}
    again = pd.read_csv(finished / "results" / "laptop" / "tables" / "fig1a.csv")
    pd.testing.assert_frame_equal(table, again, check_dtype=False, rtol=1e-12)


def test_runs_of_a_seed_share_their_start_point(finished: Path) -> None:
    table = pd.read_parquet(finished / "results" / "laptop" / "tables" / "fig1a.parquet")
    first = table[(table["role"] == "phase 2") & (table["step"] == 0)]
    assert (first.groupby("seed")["start"].nunique() == 1).all()
    assert (first.groupby("seed")["test_loss"].nunique() == 1).all()
    assert first["start"].nunique() == 2


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


def test_a_changed_execution_repeats_nothing(edited: Path) -> None:
    edit(edited / "config.yaml", "processes: null", "processes: 2")
    edit(edited / "config.yaml", "threads: null", "threads: 2")
    edit(edited / "config.yaml", "device: null", "device: cpu")
    assert planned(edited, "fig1a") == Counter()


@pytest.fixture
def own(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project, for tests that make other results."""
    return shutil.copytree(finished, tmp_path / "own")


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


def refused(folder: Path, *arguments: object) -> str:
    done = snakemake(folder, "--dry-run", "fig1a", *arguments)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("config.yaml", "processes:", "procesess:", ["procesess", "did you mean processes"]),
        ("config.yaml", "scale: laptop", "scale: desk", ["'desk'", "laptop, paper, workstation"]),
        ("config.yaml", "processes: null", "processes: 3", ["3 processes", "K = 4"]),
        ("config.yaml", "threads: null", "threads: 0", ["threads", "greater than"]),
        ("config.yaml", "device: null", "device: gpu", ["device", "'cuda'", "'gpu'"]),
        ("config.yaml", "  width: 5.5", "  widht: 5.5", ["plot.widht"]),
        ("config.yaml", "wandb: null", "wandb: ofline", ["wandb", "'offline'", "'ofline'"]),
        ("experiments/laptop.yaml", "step1: 6", "stp1: 6", ["fig1a.runs[1]", "did you mean step1"]),
        ("experiments/laptop.yaml", "model: mlp", "model: mpl", ["fig1a", "'mpl'", "mlp"]),
        ("experiments/laptop.yaml", "dataset: digits", "dataset: mnist", ["'mnist'", "digits"]),
        ("experiments/laptop.yaml", "batch_size: 8", "batch_size: 7", ["not a multiple"]),
        ("experiments/laptop.yaml", "seeds: [1, 2]", "seeds: [1, 1]", ["a seed twice"]),
        ("experiments/laptop.yaml", "epochs: 2", "seed: 2", ["fig1a.phase1", "seed is not for"]),
        ("config.yaml", "viridis_r", "virids", ["plot", "colormap 'virids'"]),
        ("config.yaml", "sgd_color: black", "sgd_color: blak", ["plot", "sgd_color 'blak'"]),
        ("experiments/laptop.yaml", "{step1: 6}", "{step1: 1, eval_freq1: 6}", ["same run"]),
        ("experiments/laptop.yaml", "{step1: 6}", "{step1: 1, wd: 0}", ["the same H"]),
        ("experiments/laptop.yaml", "{step1: 1, eval_freq1: 6}", "{step1: 3}", ["step1 1 (SGD)"]),
        ("experiments/laptop.yaml", "{step1: 6}", "{h_rule: qsr, alpha: 1}", ["one H per run"]),
        ("experiments/laptop.yaml", "fig1a:", "fig9z:", ["fig9z"]),
        ("experiments/laptop.yaml", "title: tiny", "titel: tiny", ["fig1a.titel", "mean title?"]),
    ],
)
def test_bad_settings_are_named_before_any_job(
    edited: Path, file: str, old: str, new: str, expected: list[str]
) -> None:
    edit(edited / file, old, new)
    message = refused(edited)
    assert file in message or "processes: 3" in new
    for part in expected:
        assert part in message


def test_a_failing_job_shows_its_reason_and_leaves_no_result(edited: Path) -> None:
    edit(edited / "experiments" / "laptop.yaml", "{step1: 6}", "{step1: 6, start_lr: 1.0e+9}")
    done = snakemake(edited, "fig1a")
    assert done.returncode != 0
    reasons = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(reasons) == 2
    assert all("training diverged" in reason for reason in reasons)
    runs = edited / "results" / "laptop" / "runs"
    failed = {run.id for run in expand(load_experiments(
        edited / "experiments" / "laptop.yaml").experiments["fig1a"])[2:]}  # fmt: skip
    assert not failed & {p.parent.name for p in runs.glob("*/metrics.jsonl")}


def test_the_schemas_are_those_of_the_models() -> None:
    for name, schema in schemas().items():
        text = (ROOT / "workflow" / "schemas" / name).read_text()
        assert yaml.safe_load(text) == schema, "run `make schemas`"


def test_the_shipped_files_fit_the_schemas_and_the_schemas_are_closed() -> None:
    closed = schemas()
    files = {"config.yaml": "config.schema.yaml"} | {
        f"experiments/{scale}.yaml": "experiments.schema.yaml" for scale in SCALES
    }
    for file, schema in files.items():
        content = yaml.safe_load((ROOT / file).read_text())
        jsonschema.validate(content, closed[schema])
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(content | {"unknown": 1}, closed[schema])
    content = yaml.safe_load((ROOT / "experiments/laptop.yaml").read_text())
    content["experiments"]["fig1a"]["phase2"]["stp1"] = 3
    with pytest.raises(jsonschema.ValidationError, match="stp1"):
        jsonschema.validate(content, closed["experiments.schema.yaml"])


def test_pilot_seeds_are_never_judged(edited: Path) -> None:
    edit(edited / "experiments" / "laptop.yaml", "seeds: [1, 2]",
         "seeds: [1, 2]\n    pilot_seeds: [2]")  # fmt: skip
    assert "seeds and pilot_seeds share [2]" in refused(edited)


@pytest.mark.parametrize("name", ["data", "train", "analysis"])
def test_conda_pins_equal_the_lock(name: str) -> None:
    lock = dict(
        line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines()
        if "==" in line
    )  # fmt: skip
    names = {"pytorch": "torch"}
    content = yaml.safe_load((ROOT / "envs" / f"{name}.yaml").read_text())
    conda = [d for d in content["dependencies"] if isinstance(d, str)]
    pip = [p for d in content["dependencies"] if isinstance(d, dict) for p in d["pip"]]
    flat = conda + [p.replace("==", "=") for p in pip]
    pinned = dict(d.split("=") for d in flat if "=" in d)
    pinned.pop("python")
    assert pinned
    assert pinned == {package: lock[names.get(package, package)] for package in pinned}

"""`python -m workflow status` in a small project that Snakemake itself has trained."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.commands import BIN, command
from tests.workflows import TINY, copy_project, edit, planned, snakemake
from workflow.commands.status import failure
from workflow.experiments import RunSpec, expand, load_experiments, start_points

pytestmark = pytest.mark.slow  # it begins early

SMALL = TINY.replace("tiny", "small").replace("seeds: [1, 2]", "seeds: [1]")
# Shares the start point and the run of H = 1
SECOND = SMALL.partition("experiments:\n")[2].replace("fig1a", "fig2e").replace("6}", "4}")


def small_project(folder: Path, digits: Path) -> Path:
    """Copy the project, with one start point, two runs and prepared data."""
    copy_project(folder)
    (folder / "experiments" / "laptop.yaml").write_text(SMALL)
    shutil.copytree(digits, folder / "resources" / "digits")
    return folder


def small_runs(folder: Path) -> tuple[RunSpec, list[RunSpec]]:
    """Return the start point, and the runs with H = 1 and with H > 1."""
    experiments = load_experiments(folder / "experiments" / "laptop.yaml").experiments
    runs = expand(experiments["fig1a"])
    [start] = start_points(runs)
    return start, runs


def train_all(folder: Path) -> None:
    _, runs = small_runs(folder)
    files = [f"results/laptop/runs/{run.id}/metrics.jsonl" for run in runs]
    done = snakemake(folder, *files)
    assert done.returncode == 0, done.stdout + done.stderr


def ask(folder: Path, *words: str) -> str:
    """Return what ``python -m workflow`` prints; assert that it leaves every file unchanged."""
    before = files(folder)
    done = command(sys.executable, "-B", "-m", "workflow", *words, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert files(folder) == before
    return done.stdout


def files(folder: Path) -> dict[str, int]:
    """Every file and when it was written, but for Snakemake's own and what training writes."""
    ours = (path for path in folder.rglob("*") if path.is_file() and ".snakemake" not in path.parts)
    return {
        str(path): path.stat().st_mtime_ns
        for path in ours
        if not {"__pycache__", "checkpoints", "logs"} & set(path.parts)
    }


def one_line(printed: str) -> str:
    """Lines are folded to the terminal's width."""
    return " ".join(printed.split())


def counts(printed: str) -> dict[str, list[int]]:
    """By figure: runs, done, running, failed, stopped, stale, missing."""
    rows = re.findall(r"^(fig\w+|all) +((?:[\d·]+ *){7})$", printed, re.MULTILINE)
    return {name: [0 if n == "·" else int(n) for n in row.split()] for name, row in rows}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    folder = small_project(tmp_path_factory.mktemp("small") / "copy", digits)
    assert counts(ask(folder, "status")) == {"fig1a": [3, 0, 0, 0, 0, 0, 3]}
    assert not (folder / ".snakemake").exists()
    train_all(folder)
    return folder


def test_all_are_done_after_training(finished: Path) -> None:
    printed = ask(finished, "status")
    assert counts(printed) == {"fig1a": [3, 3, 0, 0, 0, 0, 0]}
    assert printed.splitlines()[-1].startswith("fig1a")


def test_runs_that_figures_share_count_once_in_all(own: Path) -> None:
    file = own / "experiments" / "laptop.yaml"
    file.write_text(SMALL + SECOND)
    assert counts(ask(own, "status")) == {
        "fig1a": [3, 3, 0, 0, 0, 0, 0], "fig2e": [3, 1, 0, 0, 0, 0, 2], "all": [5, 3, 0, 0, 0, 0, 2]
    }  # fmt: skip


def test_what_snakemake_would_repeat_is_stale(own: Path) -> None:
    start, runs = small_runs(own)
    folder = own / "results" / "laptop" / "start_points" / start.id
    (folder / "model.pt").rename(folder / "gone.pt")  # nobody needs it any more
    assert counts(ask(own, "status")) == {"fig1a": [3, 3, 0, 0, 0, 0, 0]}
    assert planned(own, "all")["train"] == 0
    (folder / "metrics.jsonl").unlink()
    printed = ask(own, "status")
    assert counts(printed) == {"fig1a": [3, 0, 0, 0, 0, 2, 1]}
    for run in runs:
        assert f"stale {run.id} what it is made from, or with, is made anew" in one_line(printed)
    jobs = planned(own, "all")
    assert (jobs["start_point"], jobs["train"]) == (1, 2)


def test_newer_data_makes_every_run_stale(own: Path) -> None:
    (own / "resources" / "digits" / "train.beton").touch()
    printed = one_line(ask(own, "status"))
    assert printed.count("stale ") == 4  # the table's head
    assert printed.count("updated input files") == 1
    assert printed.count("is made anew") == 2
    assert snakemake(own, "trained", "--touch").returncode == 0  # as it advises
    assert counts(ask(own, "status")) == {"fig1a": [3, 3, 0, 0, 0, 0, 0]}


def test_a_changed_rule_makes_its_runs_stale(own: Path) -> None:
    rule = own / "workflow" / "rules" / "train.smk"
    edit(rule, "{resources.trainer} train ", "{resources.trainer}  train ")
    printed = ask(own, "status")
    assert counts(printed) == {"fig1a": [3, 0, 0, 0, 0, 3, 0]}
    assert printed.count("code has changed") == 1
    assert printed.count("is made anew") == 2


def test_a_failed_run_shows_its_reason(own: Path) -> None:
    edit(own / "experiments" / "laptop.yaml", "{step1: 6}", "{step1: 6, start_lr: 1.0e+9}")
    _, [_, run] = small_runs(own)
    done = snakemake(own, f"results/laptop/runs/{run.id}/metrics.jsonl")
    assert done.returncode != 0
    printed = ask(own, "status")
    assert counts(printed) == {"fig1a": [3, 2, 0, 1, 0, 0, 0]}
    [reason] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"failed {run.id} {reason}" in one_line(printed)
    assert failure(own / "no.log") == ""
    log = own / "results" / "laptop" / "logs" / f"{run.id}.log"
    log.write_text("Traceback (most recent call last):\n  a bug\n")
    assert failure(log) == f"error: unexpected, see {log}"
    log.write_text("begun\n")  # and going on, or interrupted
    assert failure(log) == ""


def test_a_repeat_that_fails_keeps_what_was_finished(own: Path) -> None:
    start, _ = small_runs(own)
    results = own / "results" / "laptop"
    folder, kept = (
        results / "start_points" / start.id,
        results / "checkpoints" / start.id / "earlier",
    )
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    rule = own / "workflow" / "rules" / "train.smk"
    edit(rule, "{resources.trainer} train ", "{resources.trainer} no-such-command ")
    target = f"results/laptop/start_points/{start.id}/metrics.jsonl"
    for _ in range(2):  # a second failure changes nothing
        assert snakemake(own, target).returncode != 0
        assert not (folder / "metrics.jsonl").exists()
        files = (kept / "start_points").iterdir()
        assert {path.name: path.read_bytes() for path in files} == before
    printed = ask(own, "status")
    assert counts(printed) == {"fig1a": [3, 0, 0, 1, 0, 2, 0]}
    said = "1 unfinished runs repeat a finished one, whose results are kept until then:"
    assert f"{said} results/laptop/checkpoints/<run>/earlier" in one_line(printed)
    assert "3 as they are" in one_line(ask(own, "plan"))
    edit(rule, "{resources.trainer} no-such-command ", "{resources.trainer} train ")
    done = snakemake(own, target)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "metrics.jsonl").read_bytes() == before["metrics.jsonl"]
    assert not kept.exists()


@contextmanager
def training(folder: Path, run: RunSpec) -> Iterator[subprocess.Popen[bytes]]:
    """``run`` in progress by Snakemake, until the end of the block; then all of it is killed."""
    progress = folder / "results" / "laptop" / "checkpoints" / run.id
    file = f"results/laptop/runs/{run.id}/metrics.jsonl"
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    with (folder / "snakemake.log").open("wb") as log:
        process = subprocess.Popen(
            [BIN / "snakemake", file], cwd=folder, env=environment, start_new_session=True,
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not (progress / "metrics.partial.jsonl").exists():
            assert process.poll() is None, (folder / "snakemake.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_run_stopped_by_ctrl_c_goes_on_from_where_it_was(own: Path) -> None:
    edit(own / "experiments" / "laptop.yaml", "{step1: 6}", "{step1: 6, epochs: 4000}")
    _, [_, run] = small_runs(own)
    with training(own, run) as process:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.wait(60) != 0
    said = (own / "snakemake.log").read_text()
    assert "Traceback" not in said
    printed = ask(own, "status")
    assert counts(printed) == {"fig1a": [3, 2, 0, 0, 1, 0, 0]}
    [step] = re.findall(rf"stopped {run.id} saved at step (\d+)", one_line(printed))
    assert "1 to be trained" in one_line(ask(own, "plan"))
    done = snakemake(own, f"results/laptop/runs/{run.id}/metrics.jsonl")
    assert done.returncode == 0, done.stdout + done.stderr
    made = json.loads((own / f"results/laptop/runs/{run.id}/provenance.json").read_text())
    assert made["starts"] == 2 and int(step) > 0


def test_a_run_in_progress_is_running_while_snakemake_locks_the_folder(own: Path) -> None:
    edit(own / "experiments" / "laptop.yaml", "{step1: 6}", "{step1: 6, epochs: 1000000}")
    _, [_, run] = small_runs(own)
    with training(own, run):
        assert "LockException" in snakemake(own, "fig1a").stderr  # unlike status
        printed = ask(own, "status")
        assert counts(printed) == {"fig1a": [3, 2, 1, 0, 0, 0, 0]}
        assert re.search(
            rf"running {run.id} (no evaluation yet|epoch \S+ of 1000002, test accuracy 0\.\d+); "
            r"process \d+ on ", one_line(printed)
        )  # fmt: skip


def test_another_scale_and_values_of_the_command_line(finished: Path) -> None:
    printed = ask(finished, "status", "--scale", "workstation", "--config", "processes=1")
    assert re.match(r"workstation: \d+ runs asked for", printed)
    given = ask(finished, "status", "--config", "tables=some/tables", "only_finished=true")
    assert counts(given) == {"fig1a": [3, 3, 0, 0, 0, 0, 0]}

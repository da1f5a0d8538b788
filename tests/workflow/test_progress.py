"""What a call of Snakemake prints: short on the terminal, all of it in its log."""

from __future__ import annotations

import csv
import logging
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.commands import BIN, ROOT, environment
from tests.workflows import edit, snakemake
from workflow.progress import ProgressHandler
from workflow.time_left import TimeLeft, duration
from workflow.verdicts import verdict_lines

pytestmark = pytest.mark.slow

TIME = r"\[\d\d:\d\d:\d\d\] "
RUN = r"digits-mlp-K4-H\d-s\d-\w{8}"


def timed(said: str) -> list[str]:
    """Return the lines of our own, without the time that they begin with."""
    return [line[11:] for line in said.splitlines() if re.match(TIME, line)]


def newest_log(folder: Path) -> str:
    return max((folder / ".snakemake/log").glob("*.log")).read_text()


def test_a_line_per_run_and_figure_on_the_terminal_and_all_of_it_in_the_log(own: Path) -> None:
    shutil.rmtree(next((own / "results/laptop/start_points").glob("*-s1-*")))
    for run in (own / "results/laptop/runs").glob("*-s1-*"):
        shutil.rmtree(run)
    done = snakemake(own, "fig1a")
    assert done.returncode == 0, done.stderr
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", done.stdout + done.stderr)
    to_make, *runs, figure = timed(done.stderr)
    assert to_make.startswith(
        "To make: 1 start point, 2 runs, 1 figure; `make status SCALE=laptop`"
    )
    assert figure == "figure: results/laptop/figures/fig1a.png"
    took = rf"{RUN}( \(start point\))? took \d+ s"
    for line, (finished, running_and_left) in zip(runs, ((1, 2), (2, 1)), strict=False):
        pattern = rf"{finished} of 3 runs done, (\d) running, (\d) left, about \d+ s: {took}"
        found = re.fullmatch(pattern, line)
        assert found is not None, line
        assert int(found[1]) + int(found[2]) == running_and_left
    assert re.fullmatch(rf"3 of 3 runs done: {took}", runs[2])
    for detail in ("wildcards", "resources", "jobid", "Job stats", "Select jobs"):
        assert detail not in done.stderr
        assert detail in newest_log(own)


@pytest.mark.parametrize("option", ["--verbose", "--printshellcmds"])
def test_who_asks_for_details_gets_them(own: Path, option: str) -> None:
    (own / "results/laptop/figures/fig1a.png").unlink()
    done = snakemake(own, "fig1a", option)
    assert done.returncode == 0, done.stderr
    assert "wildcards: figure=fig1a" in done.stderr
    assert timed(done.stderr) == []


def test_quiet_stays_quiet_and_a_dry_run_shows_every_job(own: Path) -> None:
    (own / "results/laptop/figures/fig1a.png").unlink()
    planned = snakemake(own, "fig1a", "--dry-run")
    assert "wildcards: figure=fig1a" in planned.stdout + planned.stderr
    done = snakemake(own, "fig1a", "--quiet", "all")
    assert done.returncode == 0
    assert "figure" not in done.stderr


def test_a_failed_run_shows_its_reason_and_its_log_and_no_command(own: Path) -> None:
    run = next((own / "results/laptop/runs").iterdir())
    shutil.rmtree(run)
    edit(own / "config.yaml", "device: null", "device: cuda")
    done = snakemake(own, "fig1a")
    assert done.returncode == 1
    if "no CUDA device" not in done.stderr:
        pytest.skip("needs a machine without a GPU")
    lines = done.stderr.splitlines()
    reason = lines.index(
        "error: device cuda: no CUDA device is available; set device to cpu or auto"
    )
    log = f"results/laptop/logs/{run.name}.log"
    assert lines[reason + 1][11:] == f"failed: {run.name}; log: {log}"
    assert "say_why" not in done.stderr
    assert "say_why" in newest_log(own)


def test_an_interrupted_run_is_called_stopped(own: Path) -> None:
    edit(own / "experiments/laptop.yaml", "epochs: 4,", "epochs: 40000,")
    said = own / "said"
    with said.open("w") as file:
        process = subprocess.Popen(
            [BIN / "snakemake", "fig1a"],
            cwd=own, env=environment(), stderr=file, stdout=file, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not list((own / "results/laptop/checkpoints").glob("*/metrics.partial.jsonl")):
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.2)
    finally:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal's Ctrl-C
        status = process.wait(120)
    assert status == 1
    ended = [line.split(";")[0] for line in timed(said.read_text())[1:]]
    assert ended
    assert all(re.fullmatch(f"stopped: {RUN}", line) for line in ended)


def record(event: str | None, level: int = logging.INFO, /, **fields: Any) -> logging.LogRecord:
    name = logging.getLevelName(level)
    return logging.makeLogRecord({"event": event, "levelno": level, "levelname": name, **fields})


class Terminal(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(str(record.msg))


def test_a_job_elsewhere_that_failed_shows_the_reason_in_its_log(tmp_path: Path) -> None:
    """Its shell's own line went to a file of the cluster's scheduler."""
    log = tmp_path / "a.log"
    terminal = Terminal()
    handler = ProgressHandler(terminal, lambda: [("train", "a")], lambda run: 1, "logs", "laptop")
    job = {"jobid": 1, "rule_name": "train", "wildcards": {"run": "a"}, "local": False}
    handler.emit(record("run_info"))
    handler.emit(record("job_info", **job))
    log.write_text("step 1\nerror: the disk is full\n")
    failure = {"jobid": 1, "rule_name": "train", "log": [str(log)], "rule_msg": "NODE_FAIL.\n"}
    handler.emit(record("job_error", logging.ERROR, **failure))
    handler.emit(record(None, msg="Trying to restart job 1."))
    handler.emit(record("job_info", **job))
    handler.emit(record("job_finished", job_id=1))
    handler.emit(record(None, logging.WARNING, msg="a warning"))
    _, failed, again, done, warning = terminal.said
    assert failed[11:] == f"failed: a; error: the disk is full; NODE_FAIL.; log: {log}"
    assert again[11:] == "again: a"
    assert done[11:] == "1 of 1 runs done: a took 0 s"
    assert warning == "a warning"


@pytest.mark.parametrize("earlier", ["", "stopped: SIGTERM", "error: old trouble"])
@pytest.mark.parametrize("log", ["error: the disk is full", "stopped: SIGTERM", "step 1"])
def test_of_a_group_that_failed_only_members_with_a_reason_are_named(
    log: str, earlier: str, tmp_path: Path
) -> None:
    """Snakemake's records are those of a group of Slurm's: all members, whatever became of them.

    A member that waits in vain may have a log of an ``earlier`` attempt.
    """
    runs = ["done", "broken", "waiting"]
    logs = {run: tmp_path / f"{run}.log" for run in runs}
    if earlier:
        logs["waiting"].write_text(f"{earlier}\n")
        os.utime(logs["waiting"], (0, time.time() - 60))
    terminal = Terminal()
    handler = ProgressHandler(
        terminal, lambda: [("train", run) for run in runs], lambda run: 1, "logs", "laptop"
    )
    handler.emit(record("run_info"))
    errors: list[dict[str, Any]] = []
    for number, run in enumerate(runs):
        job = {"jobid": number, "rule_name": "train", "wildcards": {"run": run}}
        handler.emit(record("job_info", **job, local=False))
        errors.append({"jobid": number, "rule_name": "train", "log": [str(logs[run])]})
    logs["done"].write_text("step 9\n")
    logs["broken"].write_text(f"{log}\n")
    group = {"groupid": "g", "aux_logs": ["slurm/8.log"], "job_error_info": errors}
    handler.emit(record("group_error", logging.ERROR, **group))
    for error in errors:
        handler.emit(record("job_error", logging.ERROR, rule_msg=None, indent=True, **error))
    names = {
        "error: the disk is full": f"failed: broken; {log}; log: {logs['broken']}",
        "stopped: SIGTERM": f"stopped: broken; log: {logs['broken']}",
        "step 1": "failed: 3 jobs that share one of the cluster (done, broken, waiting); "
        "log: slurm/8.log",
    }
    assert [line[11:] for line in terminal.said[1:]] == [names[log]]


def test_the_time_left_is_that_of_what_remains_on_as_many_slots_as_were_used() -> None:
    work = {"small": 1.0, "also small": 1.0, "large": 3.0, "late": 2.0}
    left = TimeLeft(work, work.__getitem__)
    left.begin("small", 0)
    left.begin("large", 0)
    left.end("small", 10)
    # large: 20 s more of its 30; 30 s of those to come; on two slots
    assert left.seconds(10) == (20 + 30) / 2
    left.begin("late", 10)
    left.fail("late")
    assert left.seconds(10) == (20 + 10) / 2


def test_durations_have_a_unit_that_fits() -> None:
    assert [duration(s) for s in (0.4, 99, 100, 5000, 36_000)] == [
        *("0 s", "99 s", "2 min", "83 min", "10.0 h"),
    ]


@pytest.mark.parametrize("scale", ["laptop", "photos", "workstation"])
def test_verdicts_are_those_of_claims_csv(scale: str) -> None:
    path = ROOT / "results/reference" / scale / "claims.csv"
    rows = [SimpleNamespace(**row) for row in csv.DictReader(path.open(encoding="utf-8"))]
    counts, *claims, last = verdict_lines(path)
    said = dict(part.split(" ", 1)[::-1] for part in counts.split(": ")[1].split(", "))
    assert {name: int(n) for name, n in said.items()} == Counter(row.verdict for row in rows)
    primary = [row for row in rows if row.family == "primary"]
    assert len(claims) == len(primary)
    for line, row in zip(claims, primary, strict=True):
        assert line.split(row.claim)[0].strip() == row.verdict
        assert row.says in line
        if row.effect:
            shown = [float(n) for n in re.findall(r"-?[\d.]+(?:e[-+]\d+)?", line.split(": ")[-1])]
            expected = [float(row.effect), float(row.low), float(row.high)]
            assert shown[:3] == pytest.approx(expected, rel=0.06)
    assert last.endswith(str(path))

"""The copy that a server gets: one of our own, which dies, hangs and refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import trainer
from tests.conftest import more, one_line
from tests.wandb.copies import (
    KEY,
    TINY,
    assert_has_its_files,
    assert_is_a_copy,
    history,
    records,
    sync,
    train,
    warnings,
)
from tests.wandb.server import Server

pytestmark = pytest.mark.slow  # it begins early

pytest.importorskip("wandb")


def test_an_online_run_reaches_the_server(digits: Path, tmp_path: Path, server: Server) -> None:
    done = train(digits, tmp_path / "run", "--wandb", "None", "--wandb-save", 1)
    assert warnings(done) == []
    [remote] = server.runs.values()
    assert_is_a_copy(remote.history, tmp_path / "run")
    assert remote.first["displayName"] == "run"
    assert "latest.pt" in remote.files and remote.exit_code == 0
    assert remote.first["host"] is None and remote.first["program"] == "trainer"


@pytest.mark.parametrize(
    ("first", "second"),
    [more("online", "online"), more("offline", "offline"), ("online", "offline")],
)
def test_a_killed_run_goes_on_as_the_same_run(
    digits: Path, tmp_path: Path, server: Server, first: str, second: str
) -> None:
    run = tmp_path / "logs" / "run"
    options = ("--epochs", 400, "--eval-freq1", 20, "--wandb")
    words = ("train", "--data-pth", digits, "--log-pth", run, *TINY, *options, first)
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", *map(str, words)],
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # as when it goes on: equal to the last bit
    )
    partial = run / "metrics.partial.jsonl"
    while process.poll() is None and not (partial.exists() and partial.read_text().count("\n") > 5):
        time.sleep(0.02)
    process.send_signal(signal.SIGSTOP)
    assert partial.exists(), "stopped too late"

    def logged() -> int:
        """How many rows have left the process: wandb, a process of its own, is still running."""
        if first == "offline":
            return len(history(records(run)))
        return max((len(run.history) for run in server.runs.values()), default=0)

    # A row goes to metrics.jsonl first: the stop may lie between the two.
    rows = partial.read_text().count("\n") - 1
    late = time.monotonic() + 40  # the server is sent to every 15 s, the file written every 0.1 s
    while logged() < rows and time.monotonic() < late:
        time.sleep(0.1)
    process.kill()
    process.wait()
    name = (run / "wandb_id").read_text().split()[0]
    assert logged() >= rows >= 5
    if first == "offline":
        assert server.runs == {}
        assert "0 uploaded, 0 were uploaded before, 1 not finished" in sync(run.parent)

    assert warnings(train(digits, run, *options, second)) == []
    assert_has_its_files(run)
    starts = list(run.glob("wandb/*run-*/*.wandb"))
    assert [file.stem for file in starts] == [f"run-{name}"] * 2
    if second == "offline":
        assert "1 uploaded, 0 were uploaded before, 0 not finished" in sync(run.parent)
        assert "0 uploaded, 1 were uploaded before, 0 not finished" in sync(run.parent)
    assert list(server.runs) == [name]
    assert_is_a_copy(server.runs[name].history, run)

    train(digits, run, "--wandb", second)
    ids = {file.stem for file in run.glob("wandb/*run-*/*.wandb")}
    assert len(ids) == 2, "a complete run that is repeated is another run"


def test_a_diverged_run_has_failed_on_the_server_too(
    digits: Path, tmp_path: Path, server: Server
) -> None:
    options = ("--data-pth", digits, "--log-pth", tmp_path / "run", *TINY, "--wandb", "online")
    assert "diverged" in one_line(trainer("train", *options, "--start-lr", 1e9))
    [remote] = server.runs.values()
    assert remote.exit_code == 1
    assert (tmp_path / "run" / "wandb_id").exists()


@pytest.mark.slow
def test_a_server_that_does_not_answer_costs_one_line(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    before = time.monotonic()
    [warning] = warnings(train(digits, tmp_path / "run", "--wandb", "online"))
    assert time.monotonic() - before < 90
    assert "connection refused" in warning and warning.endswith("training continues without it")
    assert_has_its_files(tmp_path / "run", "wandb_id")  # kept: the copy is not whole


@pytest.mark.slow
def test_a_server_that_is_gone_at_the_end_costs_one_line(
    digits: Path, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.deaf_after_start = True
    before = time.monotonic()
    [warning] = warnings(train(digits, tmp_path / "run", "--wandb", "online"))
    assert time.monotonic() - before < 120
    assert warning.endswith("training continues without it")
    assert_has_its_files(tmp_path / "run", "wandb_id")

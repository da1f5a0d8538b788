"""Signals, limits, dead and silent processes: real ones, through the real command line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.commands import BIN, FORKED, ROOT, command, torchrun, trainer
from tests.conftest import metrics, more
from tests.option_runs import covers
from trainer.errors import STOPPED_STATUS
from trainer.run.lock import owner
from trainer.tracking.metrics import STATE

pytestmark = pytest.mark.slow  # it begins early

PARTIAL = "metrics.partial.jsonl"
WORDS = (
    "--batch-size", 8, "--total-batch-size", 32, "--train-subset", 160, "--step1", 3,
    "--clients", "serial", "--momentum", 0.9, "--start-lr", 0.002, "--eval-freq1", 50,
)  # fmt: skip
LONG = (*WORDS, "--epochs", 400)  # 2,000 steps, 2 to 4 s
ENDLESS = (*WORDS, "--epochs", 1_000_000)


def torchrun_words(processes: int, *start: object) -> list[object]:
    how = start or ("-m", "trainer")
    return [BIN / "torchrun", "--standalone", "--nproc-per-node", processes, *how]


ONE = [sys.executable, "-m", "trainer"]


@contextmanager
def started(*command: object) -> Iterator[subprocess.Popen[str]]:
    """In a group of its own, all of which is killed at the end."""
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip
    family = psutil.Process(process.pid)
    try:
        yield process
    finally:
        with suppress(psutil.NoSuchProcess):
            for child in family.children(recursive=True):
                child.kill()
        process.kill()
        process.communicate()


def until_training(folder: Path, process: subprocess.Popen[str], lines: int = 2) -> None:
    deadline = time.monotonic() + 60
    partial = folder / PARTIAL
    while not (partial.exists() and len(partial.read_text().splitlines()) >= lines):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ranks(launcher: subprocess.Popen[str]) -> list[psutil.Process]:
    """List the processes that train, by rank."""
    found = psutil.Process(launcher.pid).children(recursive=True)
    by_rank = {p.environ()["RANK"]: p for p in found if "RANK" in p.environ()}
    return [by_rank[rank] for rank in sorted(by_rank)]


@pytest.fixture(scope="module", params=[1, 2], ids="{} process(es)".format)
def undisturbed(
    request: pytest.FixtureRequest, digits: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, list[dict[str, object]]]:
    folder = tmp_path_factory.mktemp("whole")
    done = torchrun(request.param, "train", "--data-pth", digits, "--log-pth", folder, *LONG)
    assert done.returncode == 0, done.stderr
    return request.param, metrics(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, more(signal.SIGINT)])
def test_a_signal_saves_stops_and_the_run_goes_on(
    digits: Path, tmp_path: Path, number: signal.Signals
) -> None:
    words = ["train", "--data-pth", digits, "--log-pth", tmp_path, *LONG]
    with started(*ONE, *words) as process:
        until_training(tmp_path, process)
        process.send_signal(number)
        said = process.communicate(timeout=30)[1]
    assert process.returncode == STOPPED_STATUS, said
    assert re.search(rf"^stopped: {number.name}; saved at step \d+, start it", said, re.MULTILINE)
    assert "Traceback" not in said
    before = (tmp_path / PARTIAL).read_text().splitlines()
    done = trainer(*words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "metrics.jsonl").read_text().splitlines()[: len(before)] == before


def test_whichever_process_is_asked_all_stop_after_the_same_step(
    digits: Path, tmp_path: Path, undisturbed: tuple[int, list[dict[str, object]]]
) -> None:
    processes, expected = undisturbed
    words = ["train", "--data-pth", digits, "--log-pth", tmp_path, *LONG]
    with started(*torchrun_words(processes), *words) as launcher:
        until_training(tmp_path, launcher)
        ranks(launcher)[-1].terminate()
        said = launcher.communicate(timeout=60)[1]
    assert launcher.returncode == 1  # torchrun's, for any failure
    steps = re.findall(r"^stopped: .*; saved at step (\d+),", said, re.MULTILINE)
    assert len(steps) == processes and len(set(steps)) == 1
    done = torchrun(processes, *words)
    assert done.returncode == 0, done.stderr
    assert metrics(tmp_path) == expected


@pytest.mark.parametrize(
    ("start", "number"),
    [
        (("-m", "trainer"), signal.SIGTERM),
        (FORKED, signal.SIGKILL),
        more(("-m", "trainer"), signal.SIGKILL),
        more(("-m", "trainer"), signal.SIGINT),
        more(FORKED, signal.SIGTERM),
        more(FORKED, signal.SIGINT),
    ],
)
def test_processes_save_and_end_with_their_torchrun(
    digits: Path, tmp_path: Path, start: tuple[object, ...], number: signal.Signals
) -> None:
    words = ["train", "--data-pth", digits, "--log-pth", tmp_path, *ENDLESS]
    with started(*torchrun_words(2, *start), *words) as launcher:
        until_training(tmp_path, launcher)
        trainers = ranks(launcher)
        launcher.send_signal(number)
        _, alive = psutil.wait_procs(trainers, timeout=25)  # torchrun's patience is 30 s
        assert not alive
        launcher.wait(10)
    assert len(list((tmp_path / STATE).glob("step=*"))) == 1
    assert owner(tmp_path) is None


def test_a_second_signal_by_hand_ends_at_once(digits: Path, tmp_path: Path) -> None:
    words = ["train", "--data-pth", digits, "--log-pth", tmp_path, *ENDLESS, "--step1", 100_000]
    with started(*ONE, *words) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / PARTIAL).exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)  # both arrive before it can heed the first
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        said = process.communicate(timeout=30)[1]
    assert process.returncode == 130, said
    assert "Traceback" not in said and said.endswith("interrupted\n")


@covers("time_limit")
def test_a_run_stops_at_its_time_limit_and_goes_on_as_often_as_it_takes(
    digits: Path, tmp_path: Path
) -> None:
    """Counted from the start of the process; a start that took all the time does one step."""
    words = ["train", "--data-pth", digits, "--log-pth", tmp_path, *ENDLESS]
    for limit, expected in ((0.001, "1,"), (0.001, "2,"), (0.15, "")):
        begun = time.monotonic()
        done = trainer(*words, "--time-limit", limit)
        seconds = time.monotonic() - begun
        assert done.returncode == STOPPED_STATUS, done.stderr
        said = f"stopped: time_limit of {limit:g} minutes; saved at step {expected}"
        assert said in done.stderr, done.stderr
    assert 0.15 * 60 - 2 < seconds < 60
    assert int(re.findall(r"saved at step (\d+)", done.stderr)[0]) > 2


def test_by_torchrun_the_time_limit_counts_from_its_start() -> None:
    """Stand in for torchrun: begun at least a second before the process that it starts."""
    starter = psutil.Process()
    assert time.time() - starter.create_time() > 1
    ends = starter.create_time() + 60 * 10
    code = """
import sys, time
from trainer.run.preemption import PreemptionGuard
for by_torchrun in (True, False):
    guard = PreemptionGuard(10, by_torchrun=by_torchrun)
    left = float(sys.argv[1]) - time.time()
    print([guard.reason_within(left + more) for more in (-0.5, 0.5)])
"""
    done = command(sys.executable, "-c", code, ends)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[None, 'time_limit of 10 minutes']", "[None, None]"]


def test_a_dead_process_is_noticed_and_a_restart_by_torchrun_goes_on(
    digits: Path, tmp_path: Path, undisturbed: tuple[int, list[dict[str, object]]]
) -> None:
    processes, expected = undisturbed
    words = [
        "train",
        "--data-pth",
        digits,
        "--log-pth",
        tmp_path,
        *LONG,
        "--checkpoint-every",
        0.01,
    ]
    launch = torchrun_words(processes)
    with started(launch[0], "--max-restarts", 1, *launch[1:], *words) as launcher:
        until_training(tmp_path, launcher, 6)
        ranks(launcher)[-1].kill()
        said = launcher.communicate(timeout=90)[1]
    assert launcher.returncode == 0, said
    assert metrics(tmp_path) == expected


@covers("timeout")
def test_a_silent_process_ends_the_run_after_the_timeout(digits: Path, tmp_path: Path) -> None:
    words = ["train", "--data-pth", digits, "--log-pth", tmp_path, *ENDLESS]
    with started(*torchrun_words(2), *words, "--timeout", 0.2) as launcher:
        until_training(tmp_path, launcher)
        ranks(launcher)[1].suspend()
        said = launcher.communicate(timeout=90)[1]
    assert launcher.returncode != 0
    [line] = {line for line in said.splitlines() if line.startswith("error: ")}
    assert "another process does not answer within timeout" in line
    assert "start the run again: it resumes from its last checkpoint" in line

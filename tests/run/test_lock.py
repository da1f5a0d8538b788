"""One process at a time trains into a folder: real processes, killed and refused."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.commands import BIN, FORKED, ROOT, trainer
from tests.conftest import one_line
from trainer.errors import UserError
from trainer.run.lock import LOCK, OWNER, hold_lock, owner

HOLD = """
import sys, time
from pathlib import Path
from trainer.run.lock import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
# Adds to a number in a file, without any care but the lock's
COUNT = """
import sys
from pathlib import Path
from trainer.errors import UserError
from trainer.run.lock import hold_lock
folder, times = Path(sys.argv[1]), int(sys.argv[2])
while times:
    try:
        with hold_lock(folder):
            number = int((folder.parent / "count").read_text())
            (folder.parent / "count").write_text(str(number + 1))
            times -= 1
    except UserError:
        pass
"""


@contextmanager
def started(*command: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold the lock in another process."""
    with started(sys.executable, "-c", HOLD, folder) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_owner_can_be_read_while_it_runs_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    with held(tmp_path) as process:
        found = owner(tmp_path)
        assert found is not None
        assert (found.pid, found.host) == (process.pid, platform.node())
        with pytest.raises(UserError, match=rf"{tmp_path}.*process {process.pid} on "):
            hold_lock(tmp_path).__enter__()
        process.kill()
        process.wait()
        assert owner(tmp_path) is None
        assert (tmp_path / OWNER).exists()  # it had no time to tidy up
        with hold_lock(tmp_path):
            again = owner(tmp_path)
            assert again is not None
            assert again.pid != process.pid


def test_a_run_that_ends_leaves_nothing_of_its_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), hold_lock(tmp_path / "new" / "run"):
        raise ZeroDivisionError
    assert list((tmp_path / "new" / "run").iterdir()) == []


def test_looking_for_an_owner_writes_nothing(tmp_path: Path) -> None:
    assert owner(tmp_path / "none") is None
    assert owner(tmp_path) is None
    (tmp_path / "file").touch()
    assert owner(tmp_path / "file") is None
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_looking_for_an_owner_never_refuses_a_start(tmp_path: Path) -> None:
    done, looks, starts = threading.Event(), [0] * 16, 0

    def look(reader: int) -> None:
        while not done.is_set():
            owner(tmp_path)
            looks[reader] += 1

    readers = [threading.Thread(target=look, args=[reader]) for reader in range(len(looks))]
    for reader in readers:
        reader.start()
    try:
        while starts < 100 or min(looks) < 100:
            with hold_lock(tmp_path):  # would raise
                found = owner(tmp_path)
                assert found is not None and found.pid == os.getpid()
                starts += 1
    finally:
        done.set()
        for reader in readers:
            reader.join()


def test_it_is_never_held_twice(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    command = [sys.executable, "-c", COUNT, str(tmp_path / "run"), "60"]
    counters = [subprocess.Popen(command, cwd=ROOT) for _ in range(4)]
    assert [counter.wait(60) for counter in counters] == [0] * 4
    assert (tmp_path / "count").read_text() == "240"


def test_a_second_start_is_refused_and_the_first_goes_on(digits: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    words = ["train", "--data-pth", digits, "--log-pth", run, "--out", out, "--batch-size", "64"]
    with started(sys.executable, "-m", "trainer", *words, "--epochs", 100_000) as first:
        partial = run / "metrics.partial.jsonl"
        wait_until(lambda: partial.exists() and partial.stat().st_size > 0, first)
        first.send_signal(signal.SIGSTOP)  # leaves the processor to the others
        written = {path.name: path.read_bytes() for path in run.iterdir()}
        message = one_line(trainer(*words))
        assert f"log_pth {run}: this run is in progress already (process {first.pid} on" in message
        # All processes of a second start end, and each says why.
        launch = [BIN / "torchrun", "--standalone", "--nproc-per-node", "2", "-m", "trainer"]
        second = subprocess.run(
            [str(word) for word in [*launch, *words]],
            cwd=ROOT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert second.returncode != 0
        assert {line for line in second.stderr.splitlines() if line.startswith("error: ")} == {
            message
        }
        assert "RuntimeError" not in second.stderr
        assert {path.name: path.read_bytes() for path in run.iterdir()} == written
        assert not (out / "metrics.jsonl").exists()
        first.send_signal(signal.SIGCONT)
        size = partial.stat().st_size
        wait_until(lambda: partial.stat().st_size > size, first)
        first.kill()
        first.wait()
    with hold_lock(run):
        pass
    assert not {LOCK, OWNER} & {path.name for path in run.iterdir()}


def test_a_folder_that_cannot_hold_a_lock_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/run/running\.lock: cannot be written"):
        hold_lock(tmp_path / "file" / "run").__enter__()


def test_a_killed_launcher_leaves_no_trainer_behind(digits: Path, tmp_path: Path) -> None:
    """Run torchrun as the workflow does; with `-m trainer`, the trainer outlives its launcher."""
    run = tmp_path / "run"
    command = [
        *(BIN / "torchrun", "--standalone", "--nproc-per-node", 2, *FORKED, "train"),
        *("--data-pth", digits, "--log-pth", run, "--batch-size", 64, "--epochs", 100_000),
    ]
    with started(*command) as launcher:
        partial = run / "metrics.partial.jsonl"
        wait_until(lambda: partial.exists() and partial.stat().st_size > 0, launcher)
        assert owner(run) is not None
    deadline = time.monotonic() + 60
    while owner(run) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_interrupted_forked_trainer_says_so(digits: Path, tmp_path: Path) -> None:
    """It would end with the traceback of torchrun's own handler, which a fork inherits."""
    run = tmp_path / "run"
    command = [
        *(BIN / "torchrun", "--standalone", "--nproc-per-node", 1, *FORKED, "train"),
        *("--data-pth", digits, "--log-pth", run, "--batch-size", 64, "--epochs", 100_000),
    ]
    with started(*command) as launcher:
        partial = run / "metrics.partial.jsonl"
        wait_until(lambda: partial.exists() and partial.stat().st_size > 0, launcher)
        trains = owner(run)
        assert trains is not None
        os.kill(trains.pid, signal.SIGINT)
        said = launcher.communicate(timeout=60)[1]
    assert "stopped: SIGINT; saved at step" in said
    assert "SignalException" not in said

"""Processes started together: how they meet, what their launcher says, and that they agree."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import BIN, FORKED, ROOT, command, forked, torchrun, trainer
from tests.conftest import more, one_line
from tests.faults.one_fails import REASON
from tests.run.test_preemption import ENDLESS, LONG, WORDS, torchrun_words
from trainer.distributed.process_group import peer_failures_as_user_errors
from trainer.errors import STOPPED_STATUS, UserError

pytestmark = pytest.mark.slow  # it begins early


@pytest.mark.parametrize("processes", [1, 2])
def test_the_launcher_says_by_its_status_what_its_processes_said(
    digits: Path, tmp_path: Path, processes: int
) -> None:
    count = ("--nproc-per-node", processes)
    launch = [sys.executable, "-m", "trainer.launch", *count, *FORKED, "train"]
    words = ["--data-pth", digits, "--log-pth", tmp_path, *ENDLESS]
    stop = command(*launch, *words, "--time-limit", 0.001)
    wrong = command(*launch, *words, "--gamma", "x")
    assert (stop.returncode, wrong.returncode) == (STOPPED_STATUS, 2)
    for done, said in ((stop, "stopped: "), (wrong, "error: ")):
        assert said in done.stderr and "\nTraceback" not in done.stderr


# Forks two processes half a second apart; each says when it would join the store
SIBLINGS = """
import os, time
from trainer.distributed.launcher_variables import read_launcher_variables
from trainer.distributed.process_group import wait_for_forked_siblings
begin = time.monotonic()
for rank in (0, 1):
    if os.fork() == 0:
        wait_for_forked_siblings(read_launcher_variables())
        os.write(1, b"%.3f " % (time.monotonic() - begin))
        os._exit(0)
    time.sleep(0.5)
"""


def test_a_fork_waits_until_its_siblings_are_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is forked while torchrun looks up names for a connection would wait for ever."""
    for local_size, earliest in ((2, 0.5), (1, 0.0)):
        sizes = {"WORLD_SIZE": local_size, "LOCAL_WORLD_SIZE": local_size, "RANK": 0}
        for name, value in (sizes | {"MASTER_ADDR": "localhost", "MASTER_PORT": 29500}).items():
            monkeypatch.setenv(name, str(value))
        joined = [float(line) for line in command(sys.executable, "-c", SIBLINGS).stdout.split()]
        assert len(joined) == 2 and earliest <= joined[0] < earliest + 0.5


def test_concurrent_launches_do_not_meet(digits: Path, tmp_path: Path) -> None:
    words = ["train", "--data-pth", digits, *WORDS, "--epochs", 20]
    launches = [
        subprocess.Popen(
            [str(w) for w in (*torchrun_words(2), *words, "--log-pth", tmp_path / str(i))],
            cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for i in range(3)
    ]  # fmt: skip
    for launch in launches:
        said = launch.communicate(timeout=120)[1]
        assert launch.returncode == 0, said
    assert len({(tmp_path / str(i) / "metrics.jsonl").read_text() for i in range(3)}) == 1


def test_a_port_that_is_taken_is_an_error(digits: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        launch = [BIN / "torchrun", "--nproc-per-node", 2, "--master-port", taken.getsockname()[1]]
        words = ["-m", "trainer", "train", "--data-pth", digits, "--log-pth", tmp_path, *LONG]
        done = subprocess.run(
            [str(w) for w in (*launch, *words)],
            cwd=ROOT, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    assert done.returncode != 0
    assert "EADDRINUSE" in done.stderr or "address already in use" in done.stderr
    assert not (tmp_path / "metrics.jsonl").exists()


# One process's memory changes after averaging, as a broken one would.
CORRUPTED = """
import os, sys
from trainer.local_sgd.averaging import Averaging
average = Averaging.__call__
calls = 0
def corrupted(self, lr):
    global calls
    average(self, lr)
    calls += 1
    if calls == 3 and os.environ["RANK"] == "1":
        self._bank.parameters.memory[1000] += 1e-3
Averaging.__call__ = corrupted
from trainer.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_processes_whose_parameters_differ_stop_the_run(digits: Path, tmp_path: Path) -> None:
    script = tmp_path / "corrupted.py"
    script.write_text(CORRUPTED)
    words = ["train", "--data-pth", digits, "--log-pth", tmp_path / "run", *WORDS]
    launch = (BIN / "torchrun", "--standalone", "--nproc-per-node", 2, script)
    done = command(*launch, *words, "--epochs", 10, "--eval-freq1", 3)
    assert done.returncode != 0
    lines = {line for line in done.stderr.splitlines() if line.startswith("error: ")}
    [line] = lines
    assert "different parameters after averaging at step 9" in line


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        return int(listening.getsockname()[1])


@dataclass
class Process:
    done: subprocess.CompletedProcess[str]
    ended: float


def by_hand(size: int, *words: object) -> list[Process]:
    """All processes of tests/faults/one_fails.py, once they have ended."""
    port = free_port()

    def run(rank: int) -> Process:
        done = forked("tests.faults.one_fails", (rank, size, port, *words))
        return Process(done, time.monotonic())

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))


@pytest.mark.parametrize(
    ("failing", "seconds"),
    [more(1, 0), (0, 0), (1, 8)],
    ids=["other", "main", "still connected"],
)
def test_all_end_with_the_first_that_fails_and_it_says_why_once(
    digits: Path, tmp_path: Path, failing: int, seconds: int
) -> None:
    words = ("train", "--data-pth", digits, "--log-pth", tmp_path, *ENDLESS)
    began = time.monotonic()
    processes = by_hand(3, failing, seconds, *words, "--total-batch-size", 24)
    assert time.monotonic() - began < 200  # timeout is 30 minutes
    said = "".join(process.done.stderr for process in processes)
    assert [process.done.returncode for process in processes] == [2, 2, 2], said
    assert said.count(REASON) == said.count("error: ") == 1, said
    assert f"error: {REASON}\n" in processes[failing].done.stderr
    assert "Traceback" not in said and "frame #" not in said
    for process in processes[:failing] + processes[failing + 1 :]:
        assert f"ended: process {failing} on " in process.done.stderr, said
        if seconds:
            assert process.ended < processes[failing].ended


def test_each_launcher_variable_that_is_wrong_is_named(digits: Path, tmp_path: Path) -> None:
    words = ("train", "--data-pth", digits, "--log-pth", tmp_path, *ENDLESS)
    met = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    for wrong, named in (
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE 'two' is not a whole number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE 0 is no number of processes"),
        ({"RANK": "3"}, "RANK 3 is not below WORLD_SIZE (1, which is missing)"),
        ({"WORLD_SIZE": "1", "RANK": "3"}, "RANK 3 is not below WORLD_SIZE (1)"),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK 1 is not below LOCAL_WORLD_SIZE (1, which is missing)"),
        ({"LOCAL_WORLD_SIZE": "2"}, "LOCAL_WORLD_SIZE 2 is more than WORLD_SIZE 1"),
        (met | {"RANK": "2"}, "RANK 2 is not below WORLD_SIZE (2)"),
        (met | {"RANK": "-1"}, "RANK -1 is not below WORLD_SIZE (2)"),
        (met | {"RANK": ""}, "WORLD_SIZE is 2 and RANK is missing"),
        (met | {"MASTER_ADDR": ""}, "WORLD_SIZE is 2 and MASTER_ADDR is missing"),
        (met | {"MASTER_PORT": ""}, "WORLD_SIZE is 2 and MASTER_PORT is missing"),
        (met | {"MASTER_PORT": "x"}, "MASTER_PORT 'x' is not a whole number"),
        (met | {"MASTER_PORT": "99999"}, "MASTER_PORT 99999 is not from 1 to 65535"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in wrong.items():
                patch.setenv(name, value)
            done = trainer(*words)
        assert one_line(done).startswith(f"error: environment: {named}; let torchrun or"), named


def test_processes_meet_within_the_timeout_or_say_who_waits_where(
    digits: Path, tmp_path: Path
) -> None:
    words = ("train", "--data-pth", digits, "--log-pth", tmp_path, *ENDLESS, "--timeout", 0.02)
    port = free_port()
    met = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with pytest.MonkeyPatch.context() as patch, socket.socket() as other:
        for name, value in met.items():
            patch.setenv(name, value)
        for rank in ("0", "1"):
            patch.setenv("RANK", rank)
            done = trainer(*words)
            said = f"error: process {rank} of 2 waits for the others at 127.0.0.1:{port} "
            assert one_line(done).startswith(said)
            assert "within timeout 0.02 minutes" in done.stderr and "frame #" not in done.stderr
        other.bind(("127.0.0.1", port))
        other.listen()  # and never answers, as a store would
        assert "what answers there is no store" in one_line(trainer(*words))
        patch.setenv("RANK", "0")
        assert f"MASTER_PORT {port} is taken; choose another" in one_line(trainer(*words))
        patch.setenv("MASTER_ADDR", "nowhere.invalid")
        assert "MASTER_ADDR nowhere.invalid is no machine" in one_line(trainer(*words))


def test_a_wrong_interface_is_named_and_no_death(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nosuch0")
    done = torchrun(2, "train", "--data-pth", digits, "--log-pth", tmp_path, *ENDLESS)
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: a network interface is not there") and "nosuch0" in line
    assert "correct or unset GLOO_SOCKET_IFNAME" in line and "has died" not in done.stderr


@pytest.mark.parametrize(
    ("said", "error", "line"),
    [
        ("Connection closed by peer [::1]:4", UserError, "another process has died"),
        ("Read error [::1]:4: Connection reset by peer", UserError, "another process has died"),
        ("Timed out waiting 12000ms for recv operation", UserError, "does not answer within"),
        ("bind: Address already in use", UserError, "a port or address is taken"),
        ("connect: No route to host", UserError, "cannot be reached"),
        ("NCCL Error 5: invalid usage", UserError, "cannot exchange what they must"),
        ("DefaultCPUAllocator: can't allocate memory", RuntimeError, "DefaultCPUAllocator"),
        ("NCCL WARN Cuda failure 2 'out of memory'", RuntimeError, "out of memory"),
        ("shape '[3]' is invalid for input of size 4", RuntimeError, "shape"),
    ],
)
def test_what_fails_between_processes_is_told_apart(
    said: str, error: type[Exception], line: str
) -> None:
    with pytest.raises(error, match=line) as raised, peer_failures_as_user_errors():
        raise RuntimeError(said)
    assert type(raised.value) is error

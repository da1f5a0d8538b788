"""Processes started together: how they meet, what their launcher says, and that they agree."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import BIN, FORKED, ROOT, command
from tests.test_stopping import ENDLESS, LONG, WORDS, torchrun_words
from trainer.stopping import EXIT_STATUS

pytestmark = pytest.mark.slow  # it begins early


def test_the_launcher_says_by_its_status_what_its_processes_said(
    digits: Path, tmp_path: Path
) -> None:
    launch = [sys.executable, "-m", "trainer.launch", "--nproc-per-node", 2, *FORKED, "train"]
    words = ["--data-pth", digits, "--log-pth", tmp_path, *ENDLESS]
    stop = command(*launch, *words, "--time-limit", 0.001)
    wrong = command(*launch, *words, "--gamma", "x")
    assert (stop.returncode, wrong.returncode) == (EXIT_STATUS, 2)
    for done, said in ((stop, "stopped: "), (wrong, "error: ")):
        assert said in done.stderr and "\nTraceback" not in done.stderr


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
from trainer.averaging import Averaging
average = Averaging.__call__
calls = 0
def corrupted(self):
    global calls
    average(self)
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

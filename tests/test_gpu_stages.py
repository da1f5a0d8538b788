"""How `make gpu` begins and ends: on which machines, and with what it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import psutil
import pytest
import torch

from bench.gpu import __main__ as command
from bench.gpu import machine
from bench.gpu.stages import Site
from bench.gpu.table import tables
from tests.commands import ROOT
from trainer.errors import UserError

VERSION = namedtuple("VERSION", "major minor micro releaselevel serial")
# Start a process that outlives this one, tell its id, wait; save when asked to stop
STAGE = """
import pathlib, signal, subprocess, sys, time
def stop(*_):
    pathlib.Path(sys.argv[1], "saved").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1], "left").write_text(str(left.pid))
time.sleep(float(sys.argv[2]))
"""
CALL = """
import sys
from pathlib import Path
from bench.gpu import call
from bench.gpu.stages import Outcome
from trainer.command_line import exit_status
out, script, folder = sys.argv[1:]
def stage(site):
    site.run(["-c", script, folder, 600], "stage.log", 600)
    return Outcome(state="done", summary="")
call.STAGES = {"stage": (stage, 1.0)}
sys.argv[1:] = ["--out", out]
sys.exit(exit_status(call.main))
"""


def wait_for(path: Path) -> Path:
    end = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < end, f"{path} does not appear"
        time.sleep(0.05)
    return path


def has_ended(pid: int) -> bool:
    try:
        psutil.Process(pid).wait(10)
    except psutil.NoSuchProcess:
        pass
    except psutil.TimeoutExpired:
        return False
    return True


@pytest.mark.parametrize(("takes", "status"), [(0, 0), (600, None)])
def test_a_stage_leaves_no_process_behind(tmp_path: Path, takes: int, status: int | None) -> None:
    """One that still held the GPU would slow down the measurements after it."""
    here = {"out": tmp_path, "state": tmp_path, "data": tmp_path, "checkpoints": tmp_path}
    site = Site(**here, dry_run=True, end=0)
    seconds = 60 if status == 0 else 2
    assert site.run(["-c", STAGE, tmp_path, takes], "stage.log", seconds) == status
    assert has_ended(int((tmp_path / "left").read_text()))
    assert (tmp_path / "saved").exists() == (status is None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=str)
def test_an_interrupted_call_saves_and_says_how_to_go_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    words = [sys.executable, "-c", CALL, tmp_path / "out", STAGE, tmp_path]
    started = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    left = int(wait_for(tmp_path / "left").read_text())
    started.send_signal(number)
    said, errors = started.communicate(timeout=60)
    assert (started.returncode, errors) == (130, "interrupted\n")
    assert "Unfinished: the same command resumes." in said
    assert (tmp_path / "saved").exists() and has_ended(left)
    assert "not run yet" in (tmp_path / "out" / "README.md").read_text()


def test_an_older_python_or_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command.unmet() is None
    with monkeypatch.context() as patch:
        patch.setattr("importlib.metadata.version", lambda _: "2.9.2")
        assert command.unmet() == "has pydantic 2.9.2, older than 2.12"
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: name != "psutil" or None)
        assert command.unmet() == "lacks psutil"
    monkeypatch.setattr("sys.version_info", VERSION(3, 10, 12, "final", 0))
    assert command.unmet() == "is Python 3.10, older than 3.11"


def test_what_an_image_says_of_rounding_is_not_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """NVIDIA's images let products of matrices round to TF32, which PyTorch by itself does not."""
    monkeypatch.setenv("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1")
    monkeypatch.setattr("bench.gpu.call.main", lambda: 0)
    assert command.main() == 0
    assert "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE" not in os.environ
    assert "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 is not used" in capsys.readouterr().out


def test_a_gpu_that_pytorch_cannot_use_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run would spend the time of a machine that somebody pays for its GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "find_driver", lambda: Path("/dev/nvidia0"))
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(UserError, match=r"installed \(/dev/nvidia0\).*without CUDA.*set PYTHON"):
        machine.check_driver()
    monkeypatch.setattr(machine, "find_driver", lambda: None)
    machine.check_driver()


def test_a_table_has_a_column_for_each_way_to_train() -> None:
    line = (
        '{{"benchmark": "K = {k}", "unit": "images/s", "variants": {{{variants}}}, '
        '"figure_is": "a ÷ b", "figure": {{"median": 2.0}}}}'
    )
    a, b = ('"{}": {{"median": {}}}'.format(*of) for of in (("a", 1234.5), ("b", 617.25)))
    lines = [line.format(k=1, variants=b), line.format(k=8, variants=f"{a}, {b}")]
    assert tables(lines).splitlines() == [
        "| images/s | b | a | a ÷ b |",
        "| --- | --- | --- | --- |",
        "| K = 1 | 617.2 |  | 2 |",
        "| K = 8 | 617.2 | 1,234 | 2 |",
    ]

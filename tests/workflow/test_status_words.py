"""`python -m workflow status` names mistakes in one line and stays short."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT, command
from workflow.campaign import load_campaign
from workflow.commands.status import STALE_LINES, Status, show


def test_of_many_stale_runs_some_are_named_and_the_others_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    asked = load_campaign([])
    lines = list(show(asked, [Status(job, "stale", "why") for job in asked.jobs]))
    named = [line for line in lines if re.fullmatch(r"stale +\S+-\w{8}  why", line)]
    assert len(named) == STALE_LINES < len(asked.jobs)
    assert f"stale    … and {len(asked.jobs) - STALE_LINES} more: why" in lines


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--scale", "desk"],
            "unknown scale 'desk'; choose one of authors, extensions, laptop, paper, photos, "
            "workstation",
        ),
        (["--config", "sale=laptop"], "unknown setting sale; did you mean scale?"),
        (["--config", "laptop"], "--config laptop: must be KEY=VALUE"),
        (["--config", "processes=3"], "3 processes cannot share K = 4 clients"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(
    finished: Path, words: list[str], expected: str
) -> None:
    done = command(sys.executable, "-m", "workflow", "status", *words, cwd=finished)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert expected in line


def test_whoever_has_read_enough_gets_no_traceback() -> None:
    """As in ``python -m workflow status | head -1``."""
    words = [sys.executable, "-m", "workflow", "status"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asked:
        assert asked.stdout is not None and asked.stderr is not None
        asked.stdout.close()
        assert asked.stderr.read() == b""
    assert asked.returncode == -signal.SIGPIPE

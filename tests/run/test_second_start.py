"""A second start of a run in progress waits for the first, then goes on or finds it complete."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import trainer
from tests.conftest import metrics, one_line
from tests.option_runs import Trained, covers
from tests.run.test_preemption import LONG, ONE, started, torchrun_words, until_training
from trainer.run import session
from trainer.settings.run import RESULTS_VERSION

pytestmark = pytest.mark.slow  # it begins early


def until_waiting(process: subprocess.Popen[str], folder: Path) -> None:
    assert process.stderr is not None
    said = process.stderr.readline()
    assert said.startswith(f"waiting: log_pth {folder}: this run is in progress already"), said


@covers("wait")
def test_a_second_start_that_waits_goes_on_where_the_first_ends(
    digits: Path, tmp_path: Path
) -> None:
    words = ["train", "--data-pth", digits, "--log-pth", tmp_path, *LONG]
    with started(*ONE, *words) as first:
        until_training(tmp_path, first)
        first.send_signal(signal.SIGSTOP)
        refused = one_line(trainer(*words))
        assert "in progress already" in refused and f"process {first.pid}" in refused
        with started(*torchrun_words(2), *words, "--wait", 1) as second:
            until_waiting(second, tmp_path)
            first.send_signal(signal.SIGTERM)
            first.send_signal(signal.SIGCONT)
            said = second.communicate(timeout=90)[1]
    assert second.returncode == 0, said
    assert "waiting: " not in said
    assert metrics(tmp_path)[-1]["step"] == 2000


def test_a_second_start_that_waits_leaves_a_run_that_the_first_completes(
    digits: Path, tmp_path: Path
) -> None:
    """Though the clock of what they write to is years behind this machine's."""
    words = ["train", "--data-pth", digits, "--log-pth", tmp_path, *LONG]
    with started(*ONE, *words) as first:
        until_training(tmp_path, first)
        first.send_signal(signal.SIGSTOP)
        with started(*ONE, *words, "--wait", 1) as second:
            until_waiting(second, tmp_path)
            second.send_signal(signal.SIGSTOP)
            first.send_signal(signal.SIGCONT)
            assert first.wait(60) == 0
            os.utime(tmp_path / "metrics.jsonl", (0, 0))
            second.send_signal(signal.SIGCONT)
            said = second.communicate(timeout=90)[1]
    assert second.returncode == 0 and "executed" not in said
    assert metrics(tmp_path)[-1]["step"] == 2000


def test_a_run_is_complete_only_if_its_own_files_have_appeared(
    trained: Callable[..., Trained],
) -> None:
    """Put other runs' settings, and damaged ones, beside its metrics."""
    run = trained(epochs=1)
    before = session._identify_published(run.settings)
    assert session._has_completed(run.settings, None)
    assert not session._has_completed(run.settings, before)
    file = run.folder / "settings.json"
    made = json.loads(file.read_text())
    for same in ({"debug": True}, {"log_pth": "elsewhere"}):
        file.write_text(json.dumps(made | same))
        assert session._has_completed(run.settings, None), same
    others = ({"seed": 77}, {"results_version": RESULTS_VERSION - 1}, {"epochs": 0}, {"new": 1})
    for other in others:
        file.write_text(json.dumps(made | other))
        assert not session._has_completed(run.settings, None), other
    for damaged in ("", "1", "[1]", json.dumps(made)[:-1]):
        file.write_text(damaged)
        assert not session._has_completed(run.settings, None), damaged
    file.unlink()
    assert not session._has_completed(run.settings, None)

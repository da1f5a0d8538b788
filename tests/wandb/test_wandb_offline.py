"""The copy beside the run, read back from wandb's own files, and its upload."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import BIN, torchrun, trainer
from tests.conftest import one_line
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
from trainer.settings.run import RunSettings

pytestmark = pytest.mark.slow  # it begins early

pytest.importorskip("wandb")


def test_an_offline_run_holds_the_metrics_line_by_line(digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "a-run"
    done = train(digits, run, "--wandb", "offline", "--wandb-group", "laptop/fig1a",
                 "--wandb-entity", "us")  # fmt: skip
    assert warnings(done) == []
    assert_has_its_files(run)
    found = records(run)
    assert_is_a_copy(history(found), run)
    [header] = [r.run for r in found if r.WhichOneof("record_type") == "run"]
    [folder] = run.glob("wandb/offline-run-*")
    assert (header.display_name, header.run_group) == ("a-run", "laptop/fig1a")
    assert (header.entity, header.project) == ("us", "local-sgd-generalization")
    assert header.run_id and folder.name.endswith(header.run_id)
    config = {item.key: json.loads(item.value_json) for item in header.config.update}
    config.pop("_wandb")
    assert config == json.loads((run / "settings.json").read_text())
    assert found[-1].WhichOneof("record_type") == "exit" and found[-1].exit.exit_code == 0
    assert not list(folder.glob("files/*")), "neither code nor requirements nor machine"


def test_entity_project_and_group_by_environment(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_ENTITY", "them")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_RUN_GROUP", "a group")
    train(digits, tmp_path / "run", "--wandb", "offline")
    [header] = [r.run for r in records(tmp_path / "run") if r.WhichOneof("record_type") == "run"]
    assert (header.entity, header.project, header.run_group) == ("them", "theirs", "a group")
    train(digits, tmp_path / "b", "--wandb", "offline", "--wandb-project", "p")
    [header] = [r.run for r in records(tmp_path / "b") if r.WhichOneof("record_type") == "run"]
    assert header.project == "p"


def test_two_processes_are_one_run_with_its_checkpoint(digits: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    done = torchrun(2, "train", "--data-pth", digits, "--log-pth", run, "--out", out, *TINY,
                    "--wandb", "offline", "--wandb-save", 1)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_is_a_copy(history(records(run)), out)
    saved = {path.name: path for path in run.glob("wandb/*/files/*")}
    assert set(saved) == {"init.pt", "latest.pt"}
    for name, path in saved.items():
        assert not path.is_symlink()
        assert path.read_bytes() == (run / name).read_bytes()


def test_disabled_leaves_no_trace_and_wandb_save_needs_a_run(digits: Path, tmp_path: Path) -> None:
    train(digits, tmp_path / "run")
    assert not (tmp_path / "run" / "wandb").exists()
    message = one_line(trainer("train", "--wandb-save", 1))
    assert "wandb_save 1" in message and "set wandb online or offline" in message


def test_the_authors_none_is_online() -> None:
    assert RunSettings(wandb="None").wandb == "online"
    assert RunSettings().wandb == "disabled"


def test_without_a_key_nobody_is_asked_not_even_on_a_terminal(digits: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "trainer", "train", "--data-pth", digits, "--log-pth",
             tmp_path / "run", *TINY, "--wandb", "online"]  # fmt: skip
    ours, theirs = pty.openpty()
    process = subprocess.Popen([str(w) for w in words], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    screen = b""
    try:
        while part := os.read(ours, 4096):
            screen += part
    except OSError:
        pass  # the terminal's end
    assert process.wait(60) == 0
    assert screen.count(b"warning: wandb: no API key; run `wandb login`") == 1
    assert screen.count(b"wandb") == 2
    assert_has_its_files(tmp_path / "run")


def test_a_run_of_other_settings_or_without_a_copy_takes_no_id_over(
    digits: Path, tmp_path: Path
) -> None:
    run = tmp_path / "logs" / "run"
    diverging = ("--start-lr", 1e9, "--wandb", "offline")
    words = ("train", "--data-pth", digits, "--log-pth", run, *TINY)
    assert "diverged" in one_line(trainer(*words, *diverging))
    kept = (run / "wandb_id").read_text()
    train(digits, run)
    assert (run / "wandb_id").read_text() == kept
    assert "0 uploaded, 0 were uploaded before, 1 not finished" in sync(run.parent)
    train(digits, run, "--wandb", "offline")
    assert len({file.stem for file in run.glob("wandb/*run-*/*.wandb")}) == 2
    assert not (run / "wandb_id").exists()


def test_an_upload_without_a_server_is_one_error(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(digits, tmp_path / "logs" / "run", "--wandb", "offline")
    assert "`wandb login`" in one_line(trainer("wandb_sync", "--log-pth", tmp_path / "logs"))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    message = one_line(trainer("wandb_sync", "--log-pth", tmp_path / "logs"))
    assert "logs/run/wandb/offline-run-" in message and "check the network" in message
    assert "there is no folder" in one_line(trainer("wandb_sync", "--log-pth", tmp_path / "none"))


def test_uploads_are_paced_and_only_of_finished_runs(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "bin" / "wandb"
    tool.parent.mkdir()
    tool.write_text(
        f'#!/bin/sh\ndate +%s.%N >> {tmp_path}/times; echo "$@" >> {tmp_path}/calls\n'
        'for file in "$2"/*.wandb; do touch "$file.synced"; done\n'
    )
    tool.chmod(0o755)
    logs = tmp_path / "logs"
    train(digits, logs / "a", "--wandb", "offline")
    for name in ("b", "c", "d"):
        shutil.copytree(logs / "a", logs / name)
    (logs / "c" / "metrics.partial.jsonl").touch()
    trainer_path = f"{tool.parent}:{BIN}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "wandb_sync", "--log-pth", logs, "--pause", "1"],
        env=os.environ | {"PATH": trainer_path}, capture_output=True, text=True,
    )  # fmt: skip
    assert "3 uploaded, 0 were uploaded before, 1 not finished" in done.stdout, done.stderr
    folders = [next(logs.glob(f"{name}/wandb/offline-run-*")) for name in ("a", "b", "d")]
    assert (tmp_path / "calls").read_text().splitlines() == [f"sync {f}" for f in folders]
    first, second, third = map(float, (tmp_path / "times").read_text().split())
    assert second - first >= 1 <= third - second

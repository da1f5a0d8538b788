"""The mirror on W&B, read back from wandb's own files and from a server of our own."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import BIN
from tests.conftest import metrics, one_line, torchrun, trainer
from tests.wandb_server import Server
from trainer.config import RunSettings

pytest.importorskip("wandb")

KEY = "0123456789abcdef" * 2 + "01234567"
NOBODY = "http://127.0.0.1:9"
TINY = ("--train-subset", 100, "--batch-size", 8, "--total-batch-size", 32, "--eval-on-start", 1)
TINY += ("--epochs", 2, "--eval-freq1", 2)


@pytest.fixture(autouse=True)
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without key or settings, and a server that nobody answers for."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WANDB_BASE_URL", NOBODY)
    return home


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield server
        server.shutdown()


def train(digits: Path, folder: Path, *options: object) -> subprocess.CompletedProcess[str]:
    done = trainer("train", "--data-pth", digits, "--log-pth", folder, *TINY, *options)
    assert done.returncode == 0, done.stderr
    return done


def warnings(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The console has these of W&B, and nothing else."""
    lines = [line for line in done.stderr.splitlines() if "wandb" in line.lower()]
    assert all(line.startswith("warning: wandb: ") for line in lines), done.stderr
    return lines


def records(folder: Path) -> list[Any]:
    """The records of the one offline run in ``folder``: LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    [file] = folder.glob("wandb/offline-run-*/*.wandb")
    data = file.read_bytes()
    position, record, found = 7, b"", []
    while position < len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or last
            found.append(Record.FromString(record))
            record = b""
    return found


def history(records: list[Any]) -> list[dict[str, Any]]:
    return [
        {(item.key or ".".join(item.nested_key)): json.loads(item.value_json)
         for item in record.history.item}
        for record in records if record.WhichOneof("record_type") == "history"
    ]  # fmt: skip


def assert_is_a_copy(rows: list[dict[str, Any]], folder: Path) -> None:
    truth = metrics(folder)
    assert len(rows) == len(truth) > 2
    for row, line in zip(rows, truth, strict=True):
        assert row["_step"] == line["step"]
        values = {key: value for key, value in row.items() if not key.startswith("_")}
        assert values == {key: value for key, value in line.items() if value is not None}


def assert_has_its_files(folder: Path, *more: str) -> None:
    names = {path.name for path in folder.iterdir() if path.is_file()}
    final = {"metrics.jsonl", "model.pt", "settings.json", "provenance.json"}
    assert names == final | {"init.pt", "latest.pt", "execution.json"} | set(more)


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


def test_an_online_run_reaches_the_server(digits: Path, tmp_path: Path, server: Server) -> None:
    done = train(digits, tmp_path / "run", "--wandb", "None", "--wandb-save", 1)
    assert warnings(done) == []
    [remote] = server.runs.values()
    assert_is_a_copy(remote.history, tmp_path / "run")
    assert remote.first["displayName"] == "run"
    assert "latest.pt" in remote.files and remote.exit_code == 0
    assert remote.first["host"] is None and remote.first["program"] == "trainer"


@pytest.mark.parametrize(
    ("first", "second"), [("online", "online"), ("offline", "offline"), ("online", "offline")]
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
    assert "connection refused" in warning and warning.endswith("training goes on without it")
    assert_has_its_files(tmp_path / "run", "wandb_id")  # kept: the copy is not whole


@pytest.mark.slow
def test_a_server_that_is_gone_at_the_end_costs_one_line(
    digits: Path, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.deaf_after_start = True
    before = time.monotonic()
    [warning] = warnings(train(digits, tmp_path / "run", "--wandb", "online"))
    assert time.monotonic() - before < 120
    assert warning.endswith("training goes on without it")
    assert_has_its_files(tmp_path / "run", "wandb_id")


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


def test_no_file_holds_the_key(digits: Path, tmp_path: Path, server: Server, account: Path) -> None:
    for mode in ("online", "offline"):
        train(digits, tmp_path / mode, "--wandb", mode)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in written)
    assert [path for path in written if KEY.encode() in path.read_bytes()] == []


def sync(folder: Path, *options: object) -> str:
    done = trainer("wandb_sync", "--log-pth", folder, "--pause", 0, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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

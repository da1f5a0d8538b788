"""The copy on Weights & Biases, read back from what an offline run leaves behind."""

from __future__ import annotations

import json
import os
import pty
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, metrics, one_line, torchrun, trainer
from trainer.metrics import Evaluation
from trainer.wandb_log import WandbLog

TINY = ["--batch-size", 8, "--total-batch-size", 32, "--epochs", 2, "--step1", 10]
KEY = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))


BLOCK, HEADER = 32768, struct.Struct("<IHB")  # checksum, length, kind


def records(copy: Path) -> list[Any]:
    """All records of an offline run: a LevelDB log of protobuf messages, after 7 bytes of magic.

    https://github.com/google/leveldb/blob/main/doc/log_format.md
    """
    from wandb.proto import wandb_internal_pb2

    [path] = copy.glob("run-*.wandb")
    content = path.read_bytes()
    assert content.startswith(b":W&B")
    found, parts, at = [], [], 7
    while at < len(content):
        room = BLOCK - at % BLOCK
        if room < HEADER.size:
            at += room
            continue
        _, length, kind = HEADER.unpack_from(content, at)
        at += HEADER.size
        parts.append(content[at : at + length])
        at += length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(b"".join(parts))
            found.append(record)
            parts = []
    return found


def logged(copy: Path) -> list[dict[str, Any]]:
    """The rows of an offline run, without W&B's own columns."""
    rows = []
    for record in records(copy):
        if record.HasField("history"):
            items = record.history.item
            row = {(i.key or ".".join(i.nested_key)): json.loads(i.value_json) for i in items}
            assert row["_step"] == row["step"]
            rows.append({key: value for key, value in row.items() if not key.startswith("_")})
    return rows


def copies(log_pth: Path) -> list[Path]:
    return sorted((log_pth / "wandb").glob("offline-run-*"))


def run_record(copy: Path) -> Any:
    [record] = [record.run for record in records(copy) if record.HasField("run")]
    return record


@pytest.mark.parametrize("processes", [1, 2])
def test_an_offline_run_holds_the_lines_of_metrics_jsonl(
    digits: Path, tmp_path: Path, processes: int
) -> None:
    words = ["--log-pth", tmp_path / "my-run", "--wandb", "offline", "--eval-on-start", 1]
    identity = ["--wandb-entity", "us", "--wandb-project", "ours", "--wandb-group", "fig1a"]
    done = torchrun(processes, "train", "--data-pth", digits, *TINY, *words, *identity)
    assert done.returncode == 0, done.stderr
    assert "wandb" not in done.stderr
    [copy] = copies(tmp_path / "my-run")
    lines = metrics(tmp_path / "my-run")
    present = [{k: v for k, v in line.items() if v is not None} for line in lines]
    assert logged(copy) == present
    assert len(present) > 3
    run = run_record(copy)
    assert (run.entity, run.project, run.run_group) == ("us", "ours", "fig1a")
    assert run.display_name == "my-run"
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    settings = json.loads((tmp_path / "my-run" / "settings.json").read_text())
    assert {key: config[key] for key in settings} == settings
    assert not (tmp_path / "my-run" / "wandb_id").exists()


def test_models_are_copied_on_request(digits: Path, tmp_path: Path) -> None:
    for save in (0, 1):
        log = tmp_path / str(save)
        words = ["--log-pth", log, "--wandb", "offline", "--wandb-save", save, "--save-freq1", 1]
        assert trainer("train", "--data-pth", digits, *TINY, *words).returncode == 0
        [copy] = copies(log)
        names = {path.name for path in (copy / "files").glob("*.pt")}
        saved = {path.name for path in log.glob("*.pt")} - {"model.pt"}
        assert names == (saved if save else set())
        assert "latest.pt" in saved


def test_entity_project_and_group_come_from_the_environment(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_ENTITY", "them")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_RUN_GROUP", "some")
    monkeypatch.setenv("WANDB_MODE", "disabled")  # the option is what counts
    words = ["--log-pth", tmp_path / "run", "--wandb", "offline"]
    assert trainer("train", "--data-pth", digits, *TINY, *words).returncode == 0
    run = run_record(copies(tmp_path / "run")[0])
    assert (run.entity, run.project, run.run_group) == ("them", "theirs", "some")


def evaluation(step: int) -> Evaluation:
    return Evaluation(
        step=step, round=step, phase=0, epoch=0.0, lr=0.1, local_steps=1, train_loss=None,
        test_loss=1.0, test_accuracy=0.5, bytes_sent=0,
    )  # fmt: skip


def test_a_run_that_is_started_again_goes_on_under_its_id(tmp_path: Path) -> None:
    from trainer.config import RunSettings

    settings = RunSettings(wandb="offline", log_pth=tmp_path)
    for steps, complete in (([1, 2], False), ([1, 2, 3], True), ([1], True)):
        log = WandbLog(settings)
        for step in steps:
            log.evaluated(evaluation(step))
        log.close(complete=complete)
        time.sleep(1.1)  # its folders are named by the second
    ids = [copy.name.split("-")[-1] for copy in copies(tmp_path)]
    assert ids[0] == ids[1] != ids[2]
    assert [[row["step"] for row in logged(copy)] for copy in copies(tmp_path)] == [
        [1, 2], [1, 2, 3], [1],
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["online", "None"])
@pytest.mark.parametrize("account", [False, True])
def test_training_goes_on_without_a_server(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, account: bool
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    if account:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
    program = "import trainer.wandb_log as w, trainer.__main__ as m; w.SECONDS = 3; m.main()"
    words = ["train", "--data-pth", digits, *TINY, "--log-pth", tmp_path / "run", "--wandb", mode]
    master, slave = pty.openpty()  # a person at a terminal: no question must wait for an answer
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        stdin=slave, stdout=slave, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=120,
    )  # fmt: skip
    os.close(master)
    os.close(slave)
    warnings = [line for line in done.stderr.splitlines() if "wandb" in line]
    assert len(warnings) == 1, done.stderr
    assert warnings[0].startswith("warning: wandb: ")
    assert warnings[0].endswith("; training goes on without it")
    assert account or "wandb login" in warnings[0]
    assert len(metrics(tmp_path / "run")) > 3
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_saving_models_to_a_disabled_copy_is_refused(digits: Path, tmp_path: Path) -> None:
    done = trainer("train", "--data-pth", digits, "--log-pth", tmp_path, "--wandb-save", 1)
    assert "set wandb offline or online" in one_line(done)


FAKE = """
import json, os, pathlib, sys, time
log = pathlib.Path(os.environ["FAKE_LOG"])
with log.open("a") as file:
    file.write(json.dumps({"time": time.monotonic(), "words": sys.argv[1:]}) + "\\n")
if "bad" in sys.argv[-1]:
    sys.exit("Error: no such project")
if "slow" in sys.argv[-1]:
    time.sleep(60)
for word in sys.argv[3:]:
    (pathlib.Path(word) / "run-x.wandb.synced").touch()
"""


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for `wandb sync`, which needs a server: notes its arguments, marks as synced."""
    package = tmp_path / "fake" / "wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "calls.jsonl"))
    return tmp_path / "calls.jsonl"


def left_behind(folder: Path, run: str, *names: str) -> list[Path]:
    made = [folder / run / "wandb" / f"offline-run-{name}" for name in names]
    for copy in made:
        copy.mkdir(parents=True)
    return made


def test_finished_copies_are_uploaded_once_in_order_and_with_pauses(
    tmp_path: Path, uploads: Path
) -> None:
    folder = tmp_path / "a checkpoints"
    one = left_behind(folder, "one", "20260102_000000-x", "20260101_000000-x")
    two = left_behind(folder, "two", "20260101_000000-y")
    left_behind(folder, "unfinished", "20260101_000000-z")
    (folder / "unfinished" / "wandb_id").touch()
    (folder / "never-copied").mkdir()
    words = ["wandb_sync", "--log-pth", folder, "--pause", 1]
    done = trainer(*words)
    assert done.stdout == "2 uploaded, 0 already there, 1 not finished\n", done.stderr
    calls = [json.loads(line) for line in uploads.read_text().splitlines()]
    paths = [[str(path) for path in sorted(copies)] for copies in (one, two)]
    assert [call["words"] for call in calls] == [["sync", "--yes", *p] for p in paths]
    assert calls[1]["time"] - calls[0]["time"] >= 1
    assert trainer(*words).stdout == "0 uploaded, 2 already there, 1 not finished\n"
    assert len(uploads.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("run", "reason"), [("bad", "no such project"), ("slow", "not done within 3 s")]
)
def test_an_upload_that_fails_names_the_run(
    tmp_path: Path, uploads: Path, run: str, reason: str
) -> None:
    left_behind(tmp_path, run, "20260101_000000-x")
    message = one_line(trainer("wandb_sync", "--log-pth", tmp_path, "--timeout", 3))
    assert str(tmp_path / run) in message
    assert reason in message
    assert "wandb login" in message


def test_the_sync_command_is_there_and_asks_no_question(tmp_path: Path) -> None:
    """The real `wandb sync`, without an account."""
    left_behind(tmp_path, "run", "20260101_000000-x")
    (tmp_path / "run/wandb/offline-run-20260101_000000-x/run-x.wandb").touch()
    assert "cannot be uploaded" in one_line(trainer("wandb_sync", "--log-pth", tmp_path))

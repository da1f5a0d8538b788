"""Tiny runs with a copy on W&B, and what wandb's own files say of them."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path
from typing import Any

from tests.commands import trainer
from tests.conftest import metrics

KEY = "0123456789abcdef" * 2 + "01234567"
NOBODY = "http://127.0.0.1:9"
TINY = ("--train-subset", 100, "--batch-size", 8, "--total-batch-size", 32, "--eval-on-start", 1)
TINY += ("--epochs", 2, "--eval-freq1", 2)


def train(digits: Path, folder: Path, *options: object) -> subprocess.CompletedProcess[str]:
    done = trainer("train", "--data-pth", digits, "--log-pth", folder, *TINY, *options)
    assert done.returncode == 0, done.stderr
    return done


def warnings(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the console's lines about W&B, which must all be warnings."""
    lines = [line for line in done.stderr.splitlines() if "wandb" in line.lower()]
    assert all(line.startswith("warning: wandb: ") for line in lines), done.stderr
    return lines


def records(folder: Path) -> list[Any]:
    """Read the records of the only offline run in ``folder`` (LevelDB's log format)."""
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
    assert names == final | {"init.pt", "latest.pt"} | set(more)


def sync(folder: Path, *options: object) -> str:
    done = trainer("wandb_sync", "--log-pth", folder, "--pause", 0, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

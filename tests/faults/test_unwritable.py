"""A read-only file system at every kind of write, and a file where a folder is to be.

What permissions forbid is among the damaged inputs (``forbidden.py``).
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.commands import trainer
from tests.conftest import more, one_line
from tests.faults.disk_full import small_disk
from tests.faults.writes import Hindrance, Write, try_out, writes

KINDS = ("arrays", "image files and their list", "raw .beton", "a run", "a table", "a figure",
         "verdicts")  # fmt: skip


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


def kind(name: str, source: Path) -> Write:
    return next(write for write in writes(source) if write.name == name)


@pytest.mark.parametrize("name", [more(name) if name != "a run" else name for name in KINDS])
def test_a_read_only_file_system(name: str, tmp_path: Path, digits: Path) -> None:
    try:
        with small_disk(tmp_path / "disk") as disk:
            hindrance = Hindrance("read-only", partial(read_only, disk), ("Read-only file system",))
            outcome = try_out(kind(name, digits), hindrance, disk / "é", tmp_path / "elsewhere")
    except PermissionError as error:
        pytest.skip(str(error))
    assert not outcome.complaints, outcome
    assert "cannot be written" in outcome.said


@pytest.mark.parametrize("option", ["--log-pth", "--out"])
def test_a_folder_whose_parent_is_a_file(option: str, tmp_path: Path, digits: Path) -> None:
    (tmp_path / "file").touch()
    places = {"--log-pth": tmp_path / "log", "--out": tmp_path / "out"}
    places[option] = tmp_path / "file" / "folder"
    words = [word for place in places.items() for word in place]
    done = trainer("train", "--data-pth", digits, "--epochs", 1, *words)
    line = one_line(done)
    assert str(places[option]) in line
    assert "cannot be written (Not a directory)" in line

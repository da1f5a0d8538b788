"""Damaged files of a run that was stopped and goes on: none may change its result."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.faults import betons
from tests.faults.cases import Command, Kind, trainer
from tests.faults.damage import cut, flip
from trainer.errors import STOPPED_STATUS

LOG = Path("log")
RUN = betons.RUN


def make(folder: Path) -> None:
    """Two checkpoints of a run, stopped at its time limit after one step, and again."""
    betons.make(folder)
    for _ in range(2):
        assert trainer(*RUN.words, "--time-limit", 1e-9)(folder).status == STOPPED_STATUS


INTERRUPTED = Kind("interrupted run", make)


def newest(folder: Path) -> Path:
    return folder / LOG / "state/step=2"


def damaged(name: str, damage: Callable[[Path], None], folder: Path) -> Command:
    """Damage a file of the newest checkpoint; the run resumes from the previous one."""
    damage(newest(folder) / name)
    return RUN


SHARE, NOTES = "0-of-1.pt", "checkpoint.json"
for name in (SHARE, NOTES, "metrics.jsonl"):
    for what, damage in {
        "missing": Path.unlink,
        "empty": partial(cut, keep=0),
        "cut in half": partial(cut, keep=0.5),
        "without its last byte": partial(cut, keep=-1),
        "of a flipped bit": partial(flip, byte=20),
        "of another flipped bit": partial(flip, byte=-20),
    }.items():
        INTERRUPTED.add(f"checkpoint's {name} {what}", partial(damaged, name, damage))
for what, text in {
    "a list": "[]", "null": "null", "of no keys": "{}", "nested without end": "[" * 100_000,
    "of NaN": '{"step": NaN, "sha256": ""}',
}.items():  # fmt: skip
    rewrite = partial(Path.write_text, data=text)
    INTERRUPTED.add(f"checkpoint's {NOTES} {what}", partial(damaged, NOTES, rewrite))


@INTERRUPTED.same
def both_checkpoints_damaged(folder: Path) -> Command:
    for path in (folder / LOG / "state").glob(f"*/{SHARE}"):
        cut(path, 0.5)
    return RUN


@INTERRUPTED.same
def the_only_files_of_a_checkpoint_are_links_to_nowhere(folder: Path) -> Command:
    for path in newest(folder).iterdir():
        path.unlink()
        path.symlink_to("gone")
    return RUN


@INTERRUPTED.same
def a_checkpoint_of_no_number(folder: Path) -> Command:
    shutil.copytree(newest(folder), newest(folder).with_name("step=last"))
    shutil.rmtree(newest(folder))
    return RUN


@INTERRUPTED.same
def a_file_in_place_of_the_newest_checkpoint(folder: Path) -> Command:
    shutil.rmtree(newest(folder))
    newest(folder).write_text("")
    return RUN


@INTERRUPTED.same
def metrics_so_far_and_owner_damaged(folder: Path) -> Command:
    for name in ("metrics.partial.jsonl", "running.json", "running.lock"):
        (folder / LOG / name).write_bytes(b"\x00\xff")
    return RUN

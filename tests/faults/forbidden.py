"""Files and folders that may not be read or written, met by a user who is not root."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import matplotlib.font_manager

from tests.faults import betons, images, prepared, results, settings_files, start_points
from tests.faults.cases import Command, Kind

PERMISSION = "permission denied"
# Imported late by some commands, and perhaps from root's own Python
matplotlib.font_manager.findfont("sans")


def by_nobody(command: Command, forbid: Callable[[Path], None], folder: Path) -> Command:
    """All is open to everybody in ``folder``, but for what ``forbid`` closes."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o777)
    for parent in folder.parents:  # some libraries take absolute paths
        if parent.is_relative_to(tempfile.gettempdir()) and parent != Path(tempfile.gettempdir()):
            parent.chmod(parent.stat().st_mode | 0o011)
    forbid(folder)
    return replace(command, by_nobody=True)


def closed(name: str, folder: Path) -> None:
    [path] = folder.glob(name)
    path.chmod(0)


def not_to_write(name: str, folder: Path) -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name).chmod(0o555)


def of(kind: Kind) -> Kind:
    return Kind(f"forbidden, {kind.name}", kind.make, kind.results, needs_root=True)


OF_BETON, OF_ARRAYS, OF_LIST = of(betons.BETON), of(prepared.PREPARED), of(images.LISTED)
OF_FOLDER, OF_START = of(images.FOLDER), of(start_points.START_POINT)
OF_A_RUN, OF_RESULTS = of(settings_files.OF_A_RUN), of(results.RESULTS)
KINDS = (OF_BETON, OF_ARRAYS, OF_LIST, OF_FOLDER, OF_START, OF_A_RUN, OF_RESULTS)
METRICS = "results/laptop/runs/*H1-s1-*/metrics.jsonl"
for kind, command, name, *says in (
    (OF_BETON, betons.RUN, "data/train.beton", "data/train.beton"),
    (OF_BETON, betons.RUN, "data/train.beton.json", "data/train.beton.json"),
    (OF_BETON, betons.RUN, "data", "data/train.beton"),
    (OF_ARRAYS, prepared.RUN, "out/train.npz", "out/train.npz"),
    (OF_ARRAYS, prepared.RUN, "out", "out"),
    (OF_LIST, images.BETON, "out/train.json", "out/train.json"),
    (OF_LIST, images.BETON, "images/train/cat/1.jpg", "images/train/cat/1.jpg"),
    (OF_LIST, images.BETON, "images/train/cat", "images/train/cat/0.jpg"),
    (OF_FOLDER, images.PREPARE, "images", "images"),
    (OF_FOLDER, images.PREPARE, "images/train", "images/train"),
    (OF_FOLDER, images.PREPARE, "images/train/cat", "images/train/cat"),
    (OF_START, start_points.RUN, "start.pt", "resume_pth start.pt"),
    (OF_A_RUN, settings_files.RUN, "run.yaml", "run.yaml"),
    (OF_RESULTS, results.TABLE, METRICS, "metrics.jsonl"),
    (OF_RESULTS, results.TABLE, "results", "metrics.jsonl"),
    (OF_RESULTS, results.TABLE, "experiments/laptop.yaml", "laptop.yaml"),
    (OF_RESULTS, results.RUNS, "results/laptop/runs/*H1-s1-*/provenance.json", "provenance.json"),
    (OF_RESULTS, results.FIGURE, "tables/fig1a.csv", "tables/fig1a.csv"),
    (OF_RESULTS, results.COMPARE, "reference", "reference"),
):
    damage = partial(by_nobody, command, partial(closed, name))
    kind.add(f"{name} not to be read, for {command.words[0]}", damage, *says, "ermission denied")


@OF_FOLDER.refused("images/train/cat/more", PERMISSION)
def a_folder_within_a_class(folder: Path) -> Command:
    (folder / "images/train/cat/more").mkdir()
    (folder / "images/train/cat/1.jpg").rename(folder / "images/train/cat/more/1.jpg")
    return by_nobody(images.PREPARE, partial(closed, "images/train/cat/more"), folder)


for kind, command, name in (
    (OF_BETON, betons.RUN, "out"),
    (OF_BETON, betons.RUN, "log"),
    (OF_ARRAYS, prepared.RUN, "out"),
    (OF_FOLDER, images.PREPARE, "out"),
    (OF_RESULTS, results.TABLE, "out"),
    (OF_RESULTS, results.FIGURE, "out"),
    (OF_RESULTS, results.CLAIMS, "out"),
    (OF_RESULTS, results.RUNS, "out"),
):
    damage = partial(by_nobody, command, partial(not_to_write, name))
    kind.add(f"{name} not to be written, for {command.words[0]}", damage, name, "Permission denied")
for kind, command in (
    (OF_BETON, betons.RUN), (OF_START, start_points.RUN), (OF_RESULTS, results.TABLE),
    (OF_ARRAYS, prepared.RUN),
):  # fmt: skip
    damage = partial(by_nobody, command, lambda folder: None)
    kind.add(f"nothing, for {command.words[0]}", damage)

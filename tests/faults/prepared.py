"""Damaged arrays, as `beton` reads them."""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.cases import Command, Kind, trainer
from tests.faults.damage import Code, cut, flip
from trainer.__main__ import main

ARRAYS = Path("out/train.npz")
AGAIN = "run `prepare` again"
RUN = trainer("beton", "--data-pth", "out", "--split", "train")


def make_arrays(folder: Path) -> None:
    assert main(["prepare", "--out", str(folder / "out")]) == 0


PREPARED = Kind("prepared arrays", make_arrays, "out/*.beton*")


def truncated(keep: float, folder: Path) -> Command:
    cut(folder / ARRAYS, keep)
    return RUN


for keep in (0, 2, 100, 0.5, -1, -30):
    PREPARED.add(f"truncated to {keep}", partial(truncated, keep), str(ARRAYS), AGAIN)


def flipped(byte: int, folder: Path) -> Command:
    flip(folder / ARRAYS, byte)
    return RUN


for where, byte in {"magic": 0, "array's header": 60, "pixels": 5000, "directory": -62}.items():
    PREPARED.add(f"a bit flipped in its {where}", partial(flipped, byte), str(ARRAYS), AGAIN)


def changed(changes: dict[str, Any], folder: Path) -> Command:
    with np.load(folder / ARRAYS) as content:
        arrays = dict(content) | changes
    np.savez(
        folder / ARRAYS, **{name: array for name, array in arrays.items() if array is not None}
    )
    return RUN


rng = np.random.default_rng(0)
images, labels = rng.integers(0, 256, (20, 8, 8, 1), np.uint8), np.arange(20) % 10
classes = [str(c) for c in range(10)]
for what, changes, said in (
    ("no images", {"images": None}, "images"),
    ("no labels", {"labels": None}, "labels"),
    ("no classes", {"classes": None}, "classes"),
    ("flat images", {"images": images.reshape(20, 64), "labels": labels}, "images"),
    ("images of floats", {"images": images / 255, "labels": labels}, "images"),
    ("images without pixels", {"images": images[:, :0], "labels": labels}, "images"),
    ("no image", {"images": images[:0], "labels": labels[:0]}, "images"),
    ("one image", {"images": images[0], "labels": labels[0]}, "images"),
    ("fewer labels than images", {"images": images, "labels": labels[:5]}, "labels"),
    ("labels of floats", {"images": images, "labels": labels + 0.5}, "labels"),
    ("labels of words", {"images": images, "labels": labels.astype(str)}, "labels"),
    ("labels in columns", {"images": images, "labels": labels[:, None]}, "labels"),
    ("a label beyond the classes", {"images": images, "labels": labels + 1}, "labels"),
    ("a negative label", {"images": images, "labels": labels - 1}, "labels"),
    ("a huge label", {"images": images, "labels": labels + 2**62}, "labels"),
    ("a class twice", {"classes": [*classes[:9], "0"]}, "classes"),
    ("classes of numbers", {"classes": np.arange(10.0)}, "classes"),
    ("classes in rows", {"classes": [classes]}, "classes"),
    ("pickled code", {"images": np.array([Code()], object)}, "Object arrays"),
):
    PREPARED.add(what, partial(changed, changes), str(ARRAYS), said, AGAIN)


@PREPARED.refused(str(ARRAYS), AGAIN)
def another_archive(folder: Path) -> Command:
    with zipfile.ZipFile(folder / ARRAYS, "w") as archive:
        archive.writestr("word/document.xml", "<w:document/>")
    return RUN


@PREPARED.refused(str(ARRAYS), AGAIN)
def a_single_array(folder: Path) -> Command:
    with (folder / ARRAYS).open("wb") as file:
        np.save(file, images)
    return RUN


@PREPARED.refused(str(ARRAYS), AGAIN)
def a_pickle_with_code(folder: Path) -> Command:
    np.array([Code()], object).dump(folder / ARRAYS)
    return RUN


@PREPARED.refused(str(ARRAYS), "directory", AGAIN)
def a_directory(folder: Path) -> Command:
    (folder / ARRAYS).unlink()
    (folder / ARRAYS).mkdir()
    return RUN


@PREPARED.refused(str(ARRAYS), "no such file", AGAIN)
def missing(folder: Path) -> Command:
    (folder / ARRAYS).unlink()
    return RUN


@PREPARED.same
def stored_column_by_column(folder: Path) -> Command:
    with np.load(folder / ARRAYS) as content:
        arrays = dict(content)
    np.savez(folder / ARRAYS, **(arrays | {"images": np.asfortranarray(arrays["images"])}))
    return RUN

"""Damaged .beton files and sidecars, as training reads them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from tests.faults.cases import Command, Kind, trainer
from tests.faults.damage import cut, digest, edit_json, flip, overwrite, swap
from trainer.__main__ import main
from trainer.data.beton.format import FIELD, HEADER
from trainer.data.beton.reader import fingerprint

TRAIN, TEST = Path("data/train.beton"), Path("data/test.beton")
SIDECAR = Path("data/train.beton.json")
RUN = trainer(
    "train", "--data-pth", "data", "--log-pth", "log", "--out", "out", "--clients", "serial",
    "--batch-size", 8, "--total-batch-size", 32, "--train-subset", 160, "--epochs", 1,
)  # fmt: skip
AGAIN = "run `beton`"


def make(folder: Path) -> None:
    assert main(["prepare", "--out", str(folder / "data")]) == 0
    assert main(["beton", "--data-pth", str(folder / "data")]) == 0


BETON = Kind("beton", make)


def truncated(keep: float, folder: Path) -> Command:
    cut(folder / TRAIN, keep)
    return RUN


for keep in (0, 3, 20, 2000, 20_000, 0.6, -1):
    BETON.add(f"truncated to {keep}", partial(truncated, keep), str(TRAIN), "truncated", AGAIN)


def flipped(byte: int, folder: Path) -> Command:
    flip(folder / TRAIN, byte)
    return RUN


INDEX = HEADER.itemsize + 2 * FIELD.itemsize
for where, byte in {
    "version": 0, "number of samples": 8, "table's place": 17, "field": HEADER.itemsize,
    "index": INDEX + 40, "pixels": 2**21 + 5000, "table": -30, "padding": 2**21 - 8,
}.items():  # fmt: skip
    BETON.add(f"a bit flipped in its {where}", partial(flipped, byte), str(TRAIN), AGAIN)


def of_sidecars_that_agree(change: bytes, byte: int, folder: Path) -> Command:
    """As a writer with a bug, or a file of another program, would leave them."""
    overwrite(folder / TRAIN, byte, change)
    size = (folder / TRAIN).stat().st_size
    edit_json(folder / SIDECAR, bytes=size, sha256=digest(folder / TRAIN))
    return RUN


for what, byte, by in (
    ("another version", 0, b"\x07"),
    ("too many samples", 8, b"\xff" * 8),
    ("a table beyond the end", 16, b"\xff" * 7),
    ("an unknown field", HEADER.itemsize, b"\x63"),
    ("an image of another size", HEADER.itemsize + 17, b"\x09"),
    ("a pointer to nowhere", INDEX, b"\xff" * 8),
):
    BETON.add(f"{what}, noted so", partial(of_sidecars_that_agree, by, byte), str(TRAIN), AGAIN)


@BETON.refused(str(TRAIN), "label", AGAIN)
def a_label_beyond_the_classes_noted_so(folder: Path) -> Command:
    overwrite(folder / TRAIN, INDEX + 8, b"\x63")
    edit_json(folder / SIDECAR, **fingerprint(folder / TRAIN))
    return RUN


@BETON.refused(str(TRAIN), "no such file", "`prepare` and `beton`")
def missing(folder: Path) -> Command:
    (folder / TRAIN).unlink()
    return RUN


@BETON.refused(str(TRAIN), "is a directory", "`prepare` and `beton`")
def a_directory(folder: Path) -> Command:
    (folder / TRAIN).unlink()
    (folder / TRAIN).mkdir()
    return RUN


@BETON.refused(str(TRAIN), AGAIN)
def swapped_with_the_test_set(folder: Path) -> Command:
    swap(folder / TRAIN, folder / TEST)
    return RUN


@BETON.refused(str(TRAIN), "test", AGAIN)
def swapped_with_the_test_set_sidecars_too(folder: Path) -> Command:
    swap(folder / TRAIN, folder / TEST)
    swap(folder / SIDECAR, folder / "data/test.beton.json")
    return RUN


@BETON.refused(str(TRAIN), "(8, 8, 1)", "dataset cifar10", "check dataset")
def of_another_data_set(folder: Path) -> Command:
    return trainer(*RUN.words, "--dataset", "cifar10", "--model", "cnn")


@BETON.same
def touched_and_renamed(folder: Path) -> Command:
    (folder / TRAIN).rename(folder / "data/moved")
    (folder / "data/moved").rename(folder / TRAIN)
    return RUN


def sidecar(text: str, folder: Path) -> Command:
    (folder / SIDECAR).write_text(text)
    return RUN


for what, text in {
    "empty": "", "not JSON": "{sha256: 0}", "a list": "[1, 2]", "a word": '"bytes"', "null": "null",
    "binary": "\x00\x01\x02", "nested without end": "[" * 100_000, "of no keys": "{}",
    "a number of 5,000 digits": '{"bytes": ' + "9" * 5000 + "}",
}.items():  # fmt: skip
    BETON.add(f"sidecar {what}", partial(sidecar, text), str(SIDECAR), "damaged", AGAIN)


def edited_sidecar(key: str, value: object, folder: Path) -> Command:
    edit_json(folder / SIDECAR, **{key: value})
    return RUN


for key, value in (
    ("bytes", 10**30), ("bytes", -1), ("bytes", "4213432"), ("bytes", None), ("sha256", "0" * 64),
    ("sha256", 7), ("index_sha256", "0" * 64), ("samples_per_class", 10),
    ("samples_per_class", ["0", "1"]), ("samples_per_class", {}),
    ("samples_per_class", {str(c): 10**30 for c in range(10)}),
    ("samples_per_class", {str(c): 1 for c in range(10)}),
    ("arguments", None),
):  # fmt: skip
    name = f"sidecar's {key} is {json.dumps(value)[:30]}"
    BETON.add(name, partial(edited_sidecar, key, value), "data/train.beton", AGAIN)


@BETON.refused(str(SIDECAR), "no such file", AGAIN)
def sidecar_missing(folder: Path) -> Command:
    (folder / SIDECAR).unlink()
    return RUN


@BETON.refused(str(SIDECAR), "directory", AGAIN)
def sidecar_a_directory(folder: Path) -> Command:
    (folder / SIDECAR).unlink()
    (folder / SIDECAR).mkdir()
    return RUN


@BETON.refused(str(SIDECAR), "damaged", AGAIN)
def sidecar_in_another_encoding(folder: Path) -> Command:
    (folder / SIDECAR).write_bytes((folder / SIDECAR).read_text().encode("utf-16"))
    return RUN

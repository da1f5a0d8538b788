"""Damaged lists and folders of image files."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.faults.cases import Command, Kind, trainer
from tests.faults.damage import cut, edit_json, flip
from trainer.__main__ import main

LIST = Path("out/train.json")
AGAIN = "run `prepare` again"
CAT = Path("images/train/cat")
LIST_IMAGES = ("prepare", "--dataset", "imagefolder", "--source", "images", "--out", "out")
PREPARE = trainer(*LIST_IMAGES)
BETON = trainer("beton", "--data-pth", "out", "--split", "train", "--compress-probability", 0)


def make_folder(folder: Path) -> None:
    """Three small images of each of two classes."""
    draw = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (folder / "images" / split / name).mkdir(parents=True)
            for i in range(3):
                pixels = draw.integers(0, 256, (12, 10, 3), np.uint8)
                Image.fromarray(pixels).save(folder / "images" / split / name / f"{i}.jpg")


def make_list(folder: Path) -> None:
    make_folder(folder)
    where = ("--source", str(folder / "images"), "--out", str(folder / "out"))
    assert main([*LIST_IMAGES[:3], *where]) == 0
    # What the cases get are copies of this folder.
    text = (folder / LIST).read_text().replace(str(folder / "images"), "../images")
    (folder / LIST).write_text(text)


FOLDER, LISTED = (
    Kind("folder of images", make_folder),
    Kind("list of images", make_list, "out/*.beton*"),
)


def truncated(keep: float, folder: Path) -> Command:
    cut(folder / LIST, keep)
    return BETON


for keep in (0, 1, 0.5, -3):
    LISTED.add(f"truncated to {keep}", partial(truncated, keep), str(LIST), AGAIN)


def edited(key: str, value: Any, folder: Path) -> Command:
    edit_json(folder / LIST, **{key: value})
    return BETON


for key, value in (
    ("folder", 3), ("classes", "cat"), ("classes", {"cat": 0}), ("classes", ["cat", 7]),
    ("classes", ["cat", "cat"]), ("files", [1] * 6), ("files", None), ("files", []),
    ("labels", [0, 1]), ("labels", [9] * 6), ("labels", [-1] * 6), ("labels", ["0"] * 6),
    ("labels", [0.5] * 6), ("labels", [10**30] * 6), ("more", 1),
):  # fmt: skip
    what = f"its {key} is {json.dumps(value)[:24]}"
    LISTED.add(what, partial(edited, key, value), str(LIST), AGAIN)


def replaced(text: str, folder: Path) -> Command:
    (folder / LIST).write_text(text)
    return BETON


for what, text in {
    "not JSON": "folder: images", "a list": "[]", "a number": "7", "null": "null", "{}": "{}",
    "nested without end": "[" * 100_000,
}.items():  # fmt: skip
    LISTED.add(what, partial(replaced, text), str(LIST), AGAIN)


@LISTED.refused("images/train/cat/1.jpg", "no longer exists", AGAIN)
def an_image_that_was_removed(folder: Path) -> Command:
    (folder / CAT / "1.jpg").unlink()
    return BETON


@LISTED.refused("moved", "no longer exists", AGAIN)
def a_folder_that_was_moved(folder: Path) -> Command:
    edit_json(folder / LIST, folder="moved")
    return BETON


def broken(content: bytes, folder: Path) -> Command:
    (folder / CAT / "1.jpg").write_bytes(content)
    return BETON


for what, content in {
    "zero bytes": b"", "text named .jpg": b"a photograph of a cat\n", "a JPEG's first bytes":
    b"\xff\xd8\xff\xe0\x00\x10JFIF", "binary": bytes(range(256)) * 9, "a PNG's signature":
    b"\x89PNG\r\n\x1a\n", "a GIF of nothing": b"GIF89a\x00\x00\x00\x00\x00\x00\x00;",
    "a TIFF that points to itself": b"II*\x00\x08\x00\x00\x00" + b"\x01\x00" + b"\xff" * 20,
    "a WebP's header": b"RIFF\x10\x00\x00\x00WEBPVP8 ", "a PPM of text": b"P3 3 3 255 x",
}.items():  # fmt: skip
    name = str(CAT / "1.jpg")
    LISTED.add(f"image of {what}", partial(broken, content), name, "replace or remove it")


@LISTED.refused(r"1\x1b[2J.jpg", "not a readable image", "replace or remove it")
def a_broken_image_whose_name_clears_the_screen(folder: Path) -> Command:
    (folder / CAT / "1.jpg").write_bytes(b"")
    return named("1\x1b[2J.jpg", folder)


@LISTED.refused(str(CAT / "1.jpg"), "replace or remove it")
def an_image_cut_in_half(folder: Path) -> Command:
    cut(folder / CAT / "1.jpg", 0.5)
    return BETON


@LISTED.refused(str(CAT / "1.jpg"), "replace or remove it")
def an_image_that_is_a_directory(folder: Path) -> Command:
    (folder / CAT / "1.jpg").unlink()
    (folder / CAT / "1.jpg").mkdir()
    return BETON


@LISTED.refused(str(CAT / "1.jpg"), "too narrow", "replace or remove it")
def an_image_that_a_damaged_header_makes_narrow(folder: Path) -> Command:
    flip(folder / CAT / "1.jpg", 165, 5)
    return BETON


@LISTED.refused(str(CAT / "1.jpg"), "TIFF mode F", "no known range", "8 bits or remove it")
def an_image_of_floats(folder: Path) -> Command:
    Image.fromarray(np.ones((12, 10), np.float32)).save(folder / CAT / "1.jpg", format="TIFF")
    return BETON


@LISTED.same
def a_png_named_jpg(folder: Path) -> Command:
    with Image.open(folder / CAT / "1.jpg") as image:
        image.load()
    image.save(folder / CAT / "1.jpg", format="PNG")
    return BETON


@FOLDER.same
def notebook_checkpoints_and_hidden_files(folder: Path) -> Command:
    for place in (folder / "images/train", folder / CAT):
        (place / ".ipynb_checkpoints").mkdir()
        shutil.copy(folder / CAT / "1.jpg", place / ".ipynb_checkpoints/1-checkpoint.jpg")
        shutil.copy(folder / CAT / "1.jpg", place / "._1.jpg")
    return PREPARE


@FOLDER.refused("images/val", "cat", "<class>/<image>")
def an_empty_class(folder: Path) -> Command:
    for image in (folder / "images/val/cat").iterdir():
        image.unlink()
    return PREPARE


@FOLDER.refused("images/train", "<class>/<image>")
def no_class(folder: Path) -> Command:
    shutil.rmtree(folder / "images/train")
    (folder / "images/train").mkdir()
    return PREPARE


@FOLDER.refused("images", "no folder val or test")
def a_split_that_is_missing(folder: Path) -> Command:
    shutil.rmtree(folder / "images/val")
    return PREPARE


@FOLDER.refused("source images", "folder")
def a_file_in_place_of_the_folder(folder: Path) -> Command:
    shutil.rmtree(folder / "images")
    (folder / "images").write_text("")
    return PREPARE


@FOLDER.refused("cat", "one split only")
def a_class_of_one_split(folder: Path) -> Command:
    shutil.rmtree(folder / "images/val/cat")
    return PREPARE


@LISTED.refused(str(CAT / "1.jpg"), "a broken link", "remove it")
def an_image_that_links_to_nowhere(folder: Path) -> Command:
    (folder / CAT / "1.jpg").unlink()
    (folder / CAT / "1.jpg").symlink_to("gone.jpg")
    return BETON


@LISTED.refused(str(CAT / "1.jpg"), "symbolic links", "remove it")
def an_image_that_links_to_itself(folder: Path) -> Command:
    (folder / CAT / "1.jpg").unlink()
    (folder / CAT / "1.jpg").symlink_to("1.jpg")
    return BETON


@FOLDER.refused("images/train", "link")
def a_folder_that_links_to_its_parent(folder: Path) -> Command:
    (folder / CAT / "again").symlink_to("..")
    return PREPARE


@FOLDER.refused("images/train/emu", "link")
def a_class_that_links_to_nowhere(folder: Path) -> Command:
    (folder / "images/train/emu").symlink_to("nowhere")
    return PREPARE


def named(name: str, folder: Path) -> Command:
    (folder / CAT / "1.jpg").rename(folder / CAT / name)
    done = PREPARE(folder)
    assert done.status == 0, done.text
    return BETON


# In the same place of the order
for name in ("1 chât 猫.jpg", "1\ntwo lines.jpg", "1'\"$(x)\t.jpg", "1\x1b[2J.JPG"):
    LISTED.add(f"an image named {name!r}", partial(named, name))


@FOLDER.refused("images/train", "cat/ch", "UTF-8", "rename")
def a_name_in_latin_1(folder: Path) -> Command:
    (folder / CAT / "1.jpg").rename(folder / CAT / os.fsdecode(b"ch\xe2t.jpg"))
    return PREPARE


@FOLDER.refused("train", "UTF-8", "rename")
def a_class_in_latin_1(folder: Path) -> Command:
    (folder / CAT).rename(folder / "images/train" / os.fsdecode(b"ch\xe2t"))
    return PREPARE

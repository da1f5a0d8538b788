"""Test image files of every mode against Pillow's and OpenCV's own conversions."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from tests.commands import trainer
from tests.conftest import one_line
from trainer.data.beton.reader import map_file, read_index
from trainer.data.preparation.class_folders import ENDINGS
from trainer.data.preparation.colours import DEEP, FRAMES, ROTATED, TRANSPARENT, read_image
from trainer.data.preparation.prepared import list_images
from trainer.data.specs import DATASETS
from trainer.errors import UserError

DRAW = np.random.default_rng(0)
COLOUR = Image.fromarray(cv2.resize(DRAW.integers(0, 256, (4, 4, 3), np.uint8), (24, 20)))
ALPHA = Image.fromarray(DRAW.integers(0, 256, (20, 24), np.uint8))
DEEP_GREY = DRAW.integers(3000, 60_000, (20, 24)).astype(np.uint16)


def with_alpha(mode: str) -> Image.Image:
    image = COLOUR.convert(mode)
    image.putalpha(ALPHA)
    return image


def oriented(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


# Image, ending, how it is saved, and what is reported
AS_TORCHVISION = {
    "1": (COLOUR.convert("1"), "png", {}, ["black and white"]),
    "1 in TIFF": (COLOUR.convert("1"), "tif", {}, ["black and white"]),
    "L": (COLOUR.convert("L"), "png", {}, ["grey"]),
    "L in JPEG": (COLOUR.convert("L"), "jpg", {}, ["grey"]),
    "L, one grey transparent": (
        COLOUR.convert("L"), "png", {"transparency": 7}, ["grey", TRANSPARENT]
    ),
    "LA": (with_alpha("L"), "png", {}, ["grey", TRANSPARENT]),
    "P": (COLOUR.convert("P"), "png", {}, ["palette"]),
    "P in BMP": (COLOUR.convert("P"), "bmp", {}, ["palette"]),
    "P, colours transparent": (
        COLOUR.convert("P"), "png", {"transparency": bytes(range(200))}, ["palette", TRANSPARENT]
    ),
    "P, one colour transparent": (
        COLOUR.convert("P"), "png", {"transparency": 3}, ["palette", TRANSPARENT]
    ),
    "PA": (with_alpha("RGB").convert("PA"), "tif", {}, ["palette", TRANSPARENT]),
    "RGB": (COLOUR, "png", {}, []),
    "RGB in JPEG": (COLOUR, "jpg", {}, []),
    "RGB, one colour transparent": (COLOUR, "png", {"transparency": (1, 2, 3)}, [TRANSPARENT]),
    "RGBA": (with_alpha("RGB"), "png", {}, [TRANSPARENT]),
    "RGBA in WebP": (with_alpha("RGB"), "webp", {"lossless": True}, [TRANSPARENT]),
    "RGBX": (COLOUR.convert("RGBX"), "tif", {}, []),
    "CMYK": (COLOUR.convert("CMYK"), "jpg", {}, ["CMYK"]),
    "CMYK in TIFF": (COLOUR.convert("CMYK"), "tif", {}, ["CMYK"]),
    "YCbCr": (COLOUR.convert("YCbCr"), "tif", {}, ["YCbCr"]),
    "LAB": (Image.merge("LAB", COLOUR.split()), "tif", {}, ["LAB"]),
    "rotated": (COLOUR, "jpg", {"exif": oriented(6)}, [ROTATED]),
    "upright": (COLOUR, "jpg", {"exif": oriented(1)}, []),
    "rotated PNG": (COLOUR, "png", {"exif": oriented(3)}, [ROTATED]),
    "damaged EXIF": (COLOUR, "jpg", {"exif": b"Exif\0\0MM\0*\0\0\xff\xff\xff"}, []),
    "two frames": (
        COLOUR, "tif", {"save_all": True, "append_images": [COLOUR.rotate(90)]}, [FRAMES]
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("name", AS_TORCHVISION)
def test_a_file_becomes_what_torchvisions_image_folder_makes_of_it(
    name: str, tmp_path: Path
) -> None:
    image, ending, how, reported = AS_TORCHVISION[name]
    path = tmp_path / "class" / f"0.{ending}"
    path.parent.mkdir()
    image.save(path, **how)
    pixels, notes = read_image(path)
    assert np.array_equal(pixels, np.asarray(ImageFolder(str(tmp_path))[0][0]))
    assert notes == reported


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled_not_clipped(ending: str, tmp_path: Path) -> None:
    """Compare with OpenCV, and with the same file in colour, which Pillow itself scales."""
    grey, colour = tmp_path / f"grey.{ending}", tmp_path / f"colour.{ending}"
    cv2.imwrite(str(grey), DEEP_GREY)
    pixels, notes = read_image(grey)
    assert notes == ["grey", DEEP]
    assert np.array_equal(pixels, cv2.imread(str(grey), cv2.IMREAD_COLOR))
    assert len(np.unique(pixels)) > 100
    if ending != "pgm":
        cv2.imwrite(str(colour), cv2.cvtColor(DEEP_GREY, cv2.COLOR_GRAY2BGR))
        of_colour, notes = read_image(colour)
        assert notes == [DEEP]
        assert np.array_equal(of_colour, pixels)


def test_a_pgm_of_12_bits_is_scaled_by_its_own_maximum(tmp_path: Path) -> None:
    path = tmp_path / "12.pgm"
    path.write_bytes(b"P5 24 20 4095\n" + (DEEP_GREY // 16).astype(">u2").tobytes())
    pixels, notes = read_image(path)
    assert notes == ["grey", DEEP]
    np.testing.assert_allclose(pixels[..., 0], DEEP_GREY // 16 / 4095 * 255, atol=1.1)


def test_a_ppm_of_16_bit_colours_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "16.ppm"
    cv2.imwrite(str(path), cv2.cvtColor(DEEP_GREY, cv2.COLOR_GRAY2BGR))
    assert read_image(path)[1] == [DEEP]


WITHOUT_RANGE = {
    "32-bit integers": Image.fromarray(DEEP_GREY.astype(np.int32)),
    "floats": Image.fromarray(DEEP_GREY.astype(np.float32)),
    "white is zero": Image.fromarray(DEEP_GREY),
    "signed": Image.fromarray(DEEP_GREY),
}
TAGS = {"white is zero": {262: 0}, "signed": {339: 2}}


@pytest.mark.parametrize("name", WITHOUT_RANGE)
def test_pixels_without_a_known_range_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "0.tif"
    WITHOUT_RANGE[name].save(path, tiffinfo=TAGS.get(name, {}))
    with pytest.raises(UserError, match=r"0\.tif: pixels of TIFF mode \S+ have no known range"):
        read_image(path)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Write each image of ``AS_TORCHVISION`` and 16-bit grey, in two classes, to both splits."""
    for split in ("train", "val"):
        for number, (image, ending, how, _) in enumerate(AS_TORCHVISION.values()):
            folder = tmp_path / "images" / split / ("cat", "dog")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / f"{number:02}.{ending}", **how)
        cv2.imwrite(str(folder / "deep.png"), DEEP_GREY)
    return tmp_path / "images"


def prepared(source: Path, out: Path, *options: object) -> str:
    words = ("prepare", "--dataset", "imagefolder", "--source", source, "--out", out)
    listed = trainer(*words)
    assert listed.returncode == 0, listed.stderr
    written = trainer("beton", "--data-pth", out, "--num-workers", 2, *options)
    assert written.returncode == 0, written.stderr
    return listed.stdout + written.stdout


def test_raw_and_compressed_agree_and_what_was_converted_is_counted(
    mixed: Path, tmp_path: Path
) -> None:
    """Check that JPEGs are encoded from the converted pixels, never copied from their files."""
    wanted = Counter(note for *_, notes in AS_TORCHVISION.values() for note in notes)
    wanted.update(["grey", DEEP])
    files = list_images(mixed / "train")
    for p in (0, 1):
        out = tmp_path / str(p)
        said = prepared(mixed, out, "--compress-probability", p, "--jpeg-quality", 100)
        lines = [line for line in said.splitlines() if "train.beton: converted" in line]
        assert len(lines) == 1
        for note, count in wanted.items():
            assert f"{count} {note}" in lines[0]
        noted = json.loads((out / "train.beton.json").read_text())["conversions"]
        assert noted == wanted
        index, raw = read_index(out / "train.beton"), map_file(out / "train.beton")
        for i in range(len(files)):
            stored = raw[index.pointers[i] : index.pointers[i] + index.sizes[i]]
            wanted_bytes = files.image(i)[0]
            if p:
                bgr = cv2.cvtColor(wanted_bytes, cv2.COLOR_RGB2BGR)
                _, wanted_bytes = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 100])
            assert np.array_equal(stored, wanted_bytes.ravel()), files.files[i]


def test_plain_images_are_not_reported(tmp_path: Path) -> None:
    for folder in ("train/cat", "val/cat"):
        (tmp_path / "images" / folder).mkdir(parents=True)
        COLOUR.save(tmp_path / "images" / folder / "0.jpg")
    assert "converted" not in prepared(tmp_path / "images", tmp_path / "out")


def test_what_is_no_image_is_counted_and_named(mixed: Path, tmp_path: Path) -> None:
    cat, before = mixed / "train" / "cat", list_images(mixed / "train")
    for name in ("a.jfif", "b.gif", "c.JPE", "d.JPE", "notes", "._0.png"):
        (cat / name).write_bytes((cat / "00.png").read_bytes())
    for folder in (cat / ".ipynb_checkpoints", mixed / "train" / ".ipynb_checkpoints"):
        folder.mkdir()
        (folder / "0.png").write_bytes((cat / "00.png").read_bytes())
    COLOUR.save(mixed / "train" / "flat.png")
    said = prepared(mixed, tmp_path / "out")
    [line] = [line for line in said.splitlines() if "left out" in line]
    for part in (
        "1 of .jfif (cat/a.jfif)", "1 of .gif (cat/b.gif)", "2 of .JPE (cat/c.JPE, …)",
        "1 without an ending (cat/notes)", "1 beside the class folders (flat.png)", "3 hidden (",
    ):  # fmt: skip
        assert part in line
    assert list_images(mixed / "train") == before


def test_the_list_is_torchvisions(mixed: Path) -> None:
    """Expect the same order for nested folders and odd names."""
    assert ENDINGS == IMG_EXTENSIONS
    for name in ("cat/z/1.JPG", "cat/a b/2.Png", "dog/10.jpeg", "dog/9.tiff", "cat.x/3.jpg"):
        (mixed / "train" / name).parent.mkdir(exist_ok=True)
        (mixed / "train" / name).touch()
    theirs, ours = ImageFolder(str(mixed / "train")), list_images(mixed / "train")
    assert ours.classes == theirs.classes
    assert [(str(ours.path(i)), label) for i, label in enumerate(ours.labels)] == theirs.samples


def test_a_set_of_small_images_says_what_was_converted(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in DATASETS["cifar10"].classes:
            (tmp_path / split / name).mkdir(parents=True)
            cv2.imwrite(
                str(tmp_path / split / name / "0.png"), np.full((32, 32), 25_000, np.uint16)
            )
    out = tmp_path / "out"
    done = trainer("prepare", "--dataset", "cifar10", "--source", tmp_path, "--out", out)
    assert f"train: converted to 8-bit RGB: 10 grey, 10 {DEEP}" in done.stdout
    assert set(np.load(out / "train.npz")["images"].ravel()) == {25_000 >> 8}
    Image.fromarray(np.ones((32, 32), np.float32)).save(tmp_path / "test" / "cat" / "1.tif")
    message = one_line(trainer("prepare", "--dataset", "cifar10", "--source", tmp_path,
                               "--out", tmp_path / "other"))  # fmt: skip
    assert "1.tif: pixels of TIFF mode F have no known range" in message

"""Test the way from folders of image files to .beton files, whatever the folders hold."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.commands import trainer
from tests.conftest import one_line
from trainer.data.beton import writer as write_beton
from trainer.data.beton.format import JPEG, RAW
from trainer.data.beton.reader import map_file, read_index
from trainer.data.beton.sidecar import ImageEncoding, sidecar_path
from trainer.data.beton.writer import write_betons
from trainer.data.preparation.photos import PATCHES, PHOTOS, write_photos
from trainer.data.preparation.prepare import prepare
from trainer.data.preparation.prepared import ImageFiles
from trainer.errors import UserError

CLASSES = ("cat", "dog", "Zebra")  # not in sorted order


def image(seed: int, height: int = 40, width: int = 60) -> Image.Image:
    """Make a smooth image, which JPEG preserves."""
    draw = np.random.default_rng(seed)
    small = draw.integers(0, 256, (4, 6, 3), np.uint8)
    return Image.fromarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make two classes with everything that is found in such folders."""
    root = tmp_path / "images"
    for split in ("train", "val"):
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for i in range(4):
                image(10 * label + i).save(root / split / name / f"{i}.JPEG", quality=95)
    odd = root / "train" / "dog"
    image(90).convert("L").save(odd / "grey.jpg")
    image(91).convert("CMYK").save(odd / "cmyk.jpeg")
    image(92).save(odd / "really_a_png.JPEG", format="PNG")
    image(93).convert("P").save(odd / "palette.png")
    (odd / "notes.txt").write_text("not an image")
    (root / "train" / "readme").write_text("not a class")
    return root


def prepared(folder: Path, out: Path) -> ImageFiles:
    prepare("imagefolder", out, folder)
    return ImageFiles.read(out / "train.json")


def refused(folder: Path, out: Path, dataset: str = "imagefolder") -> str:
    words = ["prepare", "--dataset", dataset, "--source", folder, "--out", out]
    message = one_line(trainer(*words))
    assert not list(out.glob("*"))
    return message


def test_the_list_is_sorted_by_class_and_name_and_says_the_classes(
    folder: Path, tmp_path: Path
) -> None:
    files = prepared(folder, tmp_path / "out")
    assert files.classes == ["Zebra", "cat", "dog"]
    assert files.files[:5] == [*(f"Zebra/{i}.JPEG" for i in range(4)), "cat/0.JPEG"]
    assert files.files[-4:] == [
        f"dog/{name}" for name in ("cmyk.jpeg", "grey.jpg", "palette.png", "really_a_png.JPEG")
    ]
    assert files.labels == [0] * 4 + [1] * 4 + [2] * 8
    test = ImageFiles.read(tmp_path / "out" / "test.json")
    assert test.classes == files.classes and len(test) == 12


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_a_beton_holds_every_image_in_colour(folder: Path, tmp_path: Path, p: float) -> None:
    """Compare with Pillow and OpenCV, at most 50 pixels long, for any number of writers."""
    out = tmp_path / "out"
    files = prepared(folder, out)
    contents = []
    for workers in (1, 3):
        encoding = ImageEncoding(max_resolution=50, compress_probability=p)
        write_betons(out, encoding, num_workers=workers)
        index, raw = read_index(out / "train.beton"), map_file(out / "train.beton")
        contents.append(
            [raw[a : a + n].tobytes() for a, n in zip(index.pointers, index.sizes, strict=True)]
        )
        assert index.labels.tolist() == files.labels
        assert set(zip(index.heights.tolist(), index.widths.tolist(), strict=True)) == {(33, 50)}
        assert set(index.modes.tolist()) == {0.0: {RAW}, 0.5: {JPEG, RAW}, 1.0: {JPEG}}[p]
        for i, content in enumerate(contents[-1]):
            colours = np.asarray(Image.open(folder / "train" / files.files[i]).convert("RGB"))
            wanted = cv2.resize(colours, (50, 33), interpolation=cv2.INTER_AREA)
            stored = np.frombuffer(content, np.uint8)
            if index.modes[i] == RAW:
                assert np.array_equal(stored.reshape(33, 50, 3), wanted)
            else:
                decoded = cv2.cvtColor(cv2.imdecode(stored, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
                assert np.abs(decoded.astype(int) - wanted).mean() < 10  # of a palette
    assert contents[0] == contents[1]
    sidecar = json.loads(sidecar_path(out / "train.beton").read_text())
    assert sidecar["arguments"]["max_resolution"] == 50
    assert sidecar["samples_per_class"] == {"Zebra": 4, "cat": 4, "dog": 8}


def test_an_image_too_large_to_be_true_is_named(folder: Path, tmp_path: Path) -> None:
    """Write a PNG header of 100,000 × 100,000 pixels."""
    bomb = folder / "train" / "cat" / "2.JPEG"
    Image.new("1", (1, 1)).save(bomb, format="PNG")
    content = bytearray(bomb.read_bytes())
    content[16:24] = (100_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    bomb.write_bytes(content)
    prepared(folder, tmp_path / "out")
    message = one_line(trainer("beton", "--data-pth", tmp_path / "out"))
    assert str(bomb) in message and "exceeds limit" in message


@pytest.mark.parametrize("keep", [0, 10, 300])
def test_a_broken_image_is_named_and_leaves_no_beton(
    folder: Path, tmp_path: Path, keep: int
) -> None:
    out, broken = tmp_path / "out", folder / "train" / "cat" / "2.JPEG"
    prepared(folder, out)
    broken.write_bytes(broken.read_bytes()[:keep])
    message = one_line(trainer("beton", "--data-pth", out, "--num-workers", 2))
    assert str(broken) in message and "replace or remove it" in message
    assert {path.name for path in out.iterdir()} == {"train.json", "test.json", "source.json"}


def test_a_broken_image_that_a_writer_finds_is_named_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the estimate look at one image only, so that a writer meets the broken one."""
    monkeypatch.setattr(write_beton, "ESTIMATED", 1)
    out, broken = tmp_path / "out", folder / "train" / "dog" / "grey.jpg"
    prepared(folder, out)
    broken.write_bytes(b"\xff\xd8 nothing behind it")
    with pytest.raises(UserError, match=r"grey\.jpg: not a readable image"):
        write_betons(out, num_workers=2)
    assert not (out / "train.beton").exists()


def test_a_disk_that_is_too_small_is_found_before_it_is_full(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(folder, tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        write_beton.shutil, "disk_usage", lambda path: type(usage)(usage.total, usage.used, 50_000)
    )
    wanted = r"train\.beton: needs about 115kB, 50\.0kB are free; make room"
    with pytest.raises(UserError, match=wanted):  # 16 images of 40 × 60 × 3 bytes
        write_betons(tmp_path, ImageEncoding(compress_probability=0))
    assert not (tmp_path / "train.beton").exists()


def test_arrays_take_the_place_of_files_prepared_in_the_same_folder(
    folder: Path, tmp_path: Path
) -> None:
    prepared(folder, tmp_path)
    prepare("digits", tmp_path)
    assert write_betons(tmp_path)["test"].samples == 1000


def test_one_split_can_be_written_by_itself(folder: Path, tmp_path: Path) -> None:
    prepared(folder, tmp_path)
    assert list(write_betons(tmp_path, splits=["test"])) == ["test"]
    assert not (tmp_path / "train.beton").exists()


def test_imagenet_without_a_source_says_where_it_comes_from(tmp_path: Path) -> None:
    message = one_line(trainer("prepare", "--dataset", "imagenet", "--out", tmp_path / "out"))
    for part in ("image-net.org", "licence", "<source>/train/<class>", "<source>/val/<class>"):
        assert part in message


def test_another_folder_is_not_imagenet(folder: Path, tmp_path: Path) -> None:
    message = refused(folder, tmp_path / "out", "imagenet")
    assert "3 classes, imagenet has 1000" in message and "imagefolder" in message


def test_a_missing_split_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "val").rename(folder / "validation")
    assert "no folder val or test" in refused(folder, tmp_path / "out")
    (folder / "validation").rename(folder / "test")
    assert len(prepared(folder, tmp_path / "out")) == 16


def test_a_class_of_one_split_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder / "val" / "cat")
    assert "cat is a class of one split only" in refused(folder, tmp_path / "out")


def test_a_flat_validation_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    """Flatten the validation folder, as ImageNet's archive has it."""
    for path in (folder / "val").glob("*/*"):
        path.rename(folder / "val" / f"{path.parent.name}{path.name}")
    for path in (folder / "val").iterdir():
        if path.is_dir():
            path.rmdir()
    assert "val/<class>/<image>" in refused(folder, tmp_path / "out")


def test_an_empty_class_is_named(folder: Path, tmp_path: Path) -> None:
    for path in (folder / "val" / "cat").iterdir():
        path.unlink()
    assert "cat" in refused(folder, tmp_path / "out")


def test_photographs_are_cut_into_patches_that_do_not_overlap(tmp_path: Path) -> None:
    write_photos(tmp_path / "a")
    write_photos(tmp_path / "b")
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.jpg"))
    assert len(files) == PATCHES * len(PHOTOS) == 960
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()
    sizes = {Image.open(tmp_path / "a" / path).size for path in files}
    assert len(sizes) > 20
    assert {path.parts[0] for path in files} == {"train", "val"}


def test_photos_take_no_source(tmp_path: Path) -> None:
    assert "leave source out" in refused(tmp_path, tmp_path / "out", "photos")

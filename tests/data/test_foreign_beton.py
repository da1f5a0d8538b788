"""Test that files of FFCV's own writer get a sidecar if they can be verified, and only then."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ffcv.fields import FloatField, IntField, RGBImageField
from ffcv.writer import DatasetWriter
from PIL import Image

from tests.commands import trainer
from tests.conftest import one_line
from trainer.data.beton.format import JPEG, RAW, BetonIndex, parse
from trainer.data.beton.reader import read_index
from trainer.data.beton.sidecar import read_sidecar, sidecar_path

LABELS = [0, 2, 1, 2, 0, 1, 1, 2, 0, 0]


class Samples:
    """Serve random images of several sizes."""

    def __init__(self, labels: list[Any]) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[np.ndarray, Any]:
        np.random.seed(i)
        pixels = np.random.default_rng(i).integers(0, 256, (20 + i, 30, 3), np.uint8)
        return pixels, self.labels[i]


def write(path: Path, label: Any, labels: list[Any], **image: Any) -> None:
    image = {"write_mode": "proportion", "compress_probability": 0.5, **image}
    fields = {"image": RGBImageField(**image), "label": label}
    DatasetWriter(str(path), fields, num_workers=1).from_indexed_dataset(Samples(labels))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ffcv")
    for split in ("train", "test"):
        write(folder / f"{split}.beton", IntField(), LABELS)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    for path in written.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def refused(folder: Path, dataset: str = "imagefolder") -> str:
    message = one_line(trainer("sidecar", "--data-pth", folder, "--dataset", dataset))
    assert not list(folder.glob("*.json"))
    return message


def index_of(path: Path) -> BetonIndex:
    return parse(np.fromfile(path, np.uint8))


def put_in_place_of_a_jpeg(path: Path, content: bytes, offset: int = 0) -> int:
    """Overwrite bytes of the last JPEG; return its index."""
    index = index_of(path)
    i = int(np.flatnonzero(index.modes == JPEG)[-1])
    raw = bytearray(path.read_bytes())
    start = int(index.pointers[i]) + offset
    assert offset + len(content) <= index.sizes[i]
    raw[start : start + len(content)] = content
    path.write_bytes(raw)
    return i


def test_training_reads_a_file_that_was_verified(folder: Path) -> None:
    path = folder / "train.beton"
    words = ("train", "--dataset", "imagefolder", "--num-classes", 3, "--model", "resnet18")
    message = one_line(trainer(*words, "--data-pth", folder, "--log-pth", folder / "log"))
    assert "train.beton.json: no such file" in message
    assert "`sidecar` for another program's file" in message
    done = trainer("sidecar", "--data-pth", folder, "--dataset", "imagefolder")
    assert done.returncode == 0, done.stderr
    assert f"{path}: 10 samples, verified" in done.stdout
    index = read_index(path)
    assert set(index.modes.tolist()) == {JPEG, RAW}
    assert index.labels.tolist() == LABELS
    assert index.heights.tolist() == list(range(20, 30))
    assert list(read_sidecar(path).samples_per_class) == ["0", "1", "2"]


def test_classes_are_the_data_sets(folder: Path) -> None:
    done = trainer("sidecar", "--data-pth", folder, "--dataset", "cifar10", "--split", "test")
    assert done.returncode == 0, done.stderr
    classes = list(read_sidecar(folder / "test.beton").samples_per_class)
    assert classes[:2] == ["airplane", "automobile"]
    assert not sidecar_path(folder / "train.beton").exists()


@pytest.mark.parametrize("keep", [0, 100, -1, 0.5])
def test_a_truncated_file_gets_none(folder: Path, keep: float) -> None:
    content = (folder / "test.beton").read_bytes()
    (folder / "test.beton").write_bytes(
        content[: int(keep * len(content)) if keep == 0.5 else keep]
    )
    message = refused(folder)
    assert "test.beton: not a complete .beton" in message


def test_a_damaged_jpeg_is_named(folder: Path) -> None:
    """End it too early, which Pillow and OpenCV let pass or fill with grey."""
    i = put_in_place_of_a_jpeg(folder / "train.beton", b"\xff\xd9", 700)
    assert f"train.beton: image {i} is a damaged JPEG" in refused(folder)


def test_a_jpeg_of_other_colours_or_size_is_named(folder: Path) -> None:
    """Expect a refusal: FFCV would decode garbage, or write beyond its memory."""
    content = io.BytesIO()
    Image.new("L", (30, 29), 7).save(content, "JPEG")
    i = put_in_place_of_a_jpeg(folder / "train.beton", content.getvalue())
    assert f"train.beton: image {i} is JPEG L of 30 × 29, not RGB of 30" in refused(folder)


def test_bytes_that_are_no_jpeg_are_named(folder: Path) -> None:
    i = put_in_place_of_a_jpeg(folder / "test.beton", b"\0" * 8)
    assert f"test.beton: image {i} is no JPEG" in refused(folder)


def test_labels_that_are_no_classes_are_refused(folder: Path) -> None:
    write(folder / "train.beton", IntField(), [0, 1, 12])
    assert "labels from 0 to 12, dataset cifar10 has 10 classes" in refused(folder, "cifar10")
    write(folder / "train.beton", FloatField(), [0.0, 1.0, 2.0])
    assert "labels of field type 0 are not integers" in refused(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "test.beton").unlink()
    assert "test.beton: no such file" in refused(folder)

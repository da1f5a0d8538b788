"""Refuse .betons that are damaged, truncated, of another version or under another's name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.data.test_stream import pixels, streamed
from trainer.data.beton.format import JPEG
from trainer.data.beton.reader import read_index
from trainer.data.beton.sidecar import sidecar_path
from trainer.data.images import Request
from trainer.data.stream import StreamedImages
from trainer.errors import UserError

pytestmark = pytest.mark.slow  # it begins early


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_jpeg_is_named_and_not_taken_for_the_image_before_it(
    photos: Path, tmp_path: Path, workers: int
) -> None:
    """Damage a JPEG as in a file too large to be hashed at each start."""
    path = tmp_path / "train.beton"
    index = read_index(photos / "train.beton")
    damaged = int(np.flatnonzero(index.modes == JPEG)[20])
    content = bytearray((photos / "train.beton").read_bytes())
    start = index.pointers[damaged]
    content[start : start + index.sizes[damaged]] = bytes(index.sizes[damaged])
    path.write_bytes(content)
    images = StreamedImages(path, index, 32, workers)
    whole = Request(indices=np.delete(np.arange(len(index)), damaged), crops=None)
    expected = pixels(streamed(photos / "train.beton"), whole)
    assert np.array_equal(pixels(images, whole), expected)
    with pytest.raises(
        UserError, match=f"train.beton: sample {damaged} is damaged; delete it and run"
    ):
        pixels(images, Request(indices=np.arange(len(index)), crops=None))


@pytest.fixture
def own(photos: Path, tmp_path: Path) -> Path:
    for name in ("train.beton", "train.beton.json", "test.beton.json"):
        shutil.copy(photos / name, tmp_path)
    return tmp_path / "train.beton"


def sidecar_agrees(path: Path) -> None:
    noted = json.loads(sidecar_path(path).read_text())
    sidecar_path(path).write_text(json.dumps(noted | {"bytes": path.stat().st_size}))


@pytest.mark.parametrize("keep", [0.001, 0.5, 0.999])
def test_a_truncated_file_of_jpegs_is_refused(own: Path, keep: float) -> None:
    content = own.read_bytes()
    own.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(UserError, match=r"train\.beton: truncated or changed"):
        read_index(own)
    sidecar_agrees(own)
    with pytest.raises(UserError, match=r"train\.beton: not a complete \.beton"):
        read_index(own)


def test_a_file_of_another_version_is_refused(own: Path) -> None:
    content = bytearray(own.read_bytes())
    content[0] += 1  # FFCV's header begins with the version, little-endian
    own.write_bytes(content)
    with pytest.raises(UserError, match=r"not a complete \.beton \(format version 3"):
        read_index(own)


def test_a_file_under_anothers_name_is_refused(own: Path) -> None:
    renamed = own.rename(own.with_name("test.beton"))
    with pytest.raises(UserError, match=r"test\.beton: content changed"):
        read_index(renamed)

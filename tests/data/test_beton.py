"""Test our .beton reader against FFCV's reader and loader, and on damaged files."""

import json
import mmap
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.commands import command, trainer
from tests.conftest import one_line
from tests.in_memory import in_memory, to_arrays
from trainer.data.beton.reader import read_beton
from trainer.data.beton.sidecar import sidecar_path
from trainer.data.beton.source import Source
from trainer.data.beton.writer import write_betons
from trainer.data.images import ImageSet
from trainer.data.memory import MemoryImages
from trainer.data.preparation.prepared import read_prepared
from trainer.data.specs import DATASETS
from trainer.errors import UserError


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write random RGB images that fill several pages of a .beton, by two workers."""
    folder = tmp_path_factory.mktemp("colour")
    draw = np.random.default_rng(0)
    for split, n in (("train", 1500), ("test", 30)):
        np.savez(
            folder / f"{split}.npz",
            images=draw.integers(0, 256, (n, 32, 32, 3), np.uint8),
            labels=draw.integers(0, 10, n),
            classes=list(DATASETS["cifar10"].classes),
        )
    write_betons(folder, num_workers=2)
    return folder


@pytest.mark.parametrize("split", ["train", "test"])
def test_reading_returns_what_was_prepared_in_order(colour: Path, split: str) -> None:
    prepared, _ = read_prepared(colour / f"{split}.npz")
    read = to_arrays(read_beton(colour / f"{split}.beton"))
    assert np.array_equal(read.images, prepared.images)
    assert np.array_equal(read.labels, prepared.labels)


def test_the_pixels_stay_in_the_file_and_no_write_reaches_it(colour: Path) -> None:
    path = colour / "train.beton"
    before, samples = path.read_bytes(), read_beton(path)
    assert isinstance(samples.content.base, mmap.mmap)
    assert samples.content.nbytes == len(before)
    samples.content[:] = 0
    assert path.read_bytes() == before


def test_images_are_gathered_from_the_pages_as_they_lie(colour: Path) -> None:
    prepared, _ = read_prepared(colour / "train.npz")
    samples, spec = read_beton(colour / "train.beton"), DATASETS["cifar10"]
    assert len(np.unique(np.diff(samples.starts))) > 1  # gaps
    indices = np.array([1499, 0, 700, 3, 3, 682])
    device = torch.device("cpu")
    mapped, copied = (
        ImageSet(images, spec, device, torch.float32)
        for images in (MemoryImages(samples, device), in_memory(prepared))
    )
    [(images, _)], [(of_copies, _)] = mapped.in_batches(indices, 6), copied.in_batches(indices, 6)
    assert torch.equal(images, of_copies)
    mean, std = 255 * np.array(spec.mean), 255 * np.array(spec.std)
    wanted = np.moveaxis((prepared.images[indices] - mean) / std, -1, -3)
    np.testing.assert_allclose(images.numpy(), wanted, rtol=1e-5, atol=1e-5)


def test_ffcvs_reader_finds_the_same_header_and_labels(digits: Path, colour: Path) -> None:
    from ffcv.fields import IntField, NDArrayField, RGBImageField
    from ffcv.reader import Reader

    for folder, field in ((digits, NDArrayField), (colour, RGBImageField)):
        path = folder / "train.beton"
        theirs, ours = Reader(str(path)), read_beton(path)
        assert theirs.num_samples == len(ours.labels)
        assert [type(handler) for handler in theirs.handlers.values()] == [field, IntField]
        assert np.array_equal(theirs.metadata["f1"], ours.labels)


@pytest.mark.slow
def test_ffcvs_loader_decodes_the_same_images(colour: Path) -> None:
    from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption

    path = colour / "train.beton"
    loader = Loader(
        str(path),
        batch_size=100,
        num_workers=1,
        order=OrderOption.SEQUENTIAL,
        pipelines={"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()]},
    )
    batches = [(images.copy(), labels.copy()) for images, labels in loader]
    ours = to_arrays(read_beton(path))
    assert np.array_equal(np.concatenate([images for images, _ in batches]), ours.images)
    assert np.array_equal(np.concatenate([labels for _, labels in batches]).ravel(), ours.labels)


def test_the_sidecar_says_how_the_file_was_made(colour: Path) -> None:
    sidecar = json.loads(sidecar_path(colour / "train.beton").read_text())
    assert sidecar["samples"] == 1500 == sum(sidecar["samples_per_class"].values())
    assert sidecar["arguments"] == {"split": "train", "num_workers": 2}
    assert sidecar["versions"]["ffcv"] == "1.0.2"
    assert sidecar["bytes"] == (colour / "train.beton").stat().st_size


@pytest.fixture
def copy(digits: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits, tmp_path / "copy"))


@pytest.mark.parametrize("keep", [0, 10, 1000, 100_000, -1])
def test_a_truncated_file_is_refused(copy: Path, keep: int) -> None:
    path = copy / "train.beton"
    path.write_bytes(path.read_bytes()[:keep])
    message = one_line(trainer("train", "--data-pth", copy, "--log-pth", copy / "run"))
    assert str(path) in message
    assert "truncated or changed" in message
    assert not (copy / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("keep", [10, 3000, 100_000])
def test_a_truncated_file_is_refused_even_if_its_sidecar_agrees(copy: Path, keep: int) -> None:
    path = copy / "train.beton"
    path.write_bytes(path.read_bytes()[:keep])
    noted = json.loads(sidecar_path(path).read_text())
    sidecar_path(path).write_text(json.dumps(noted | {"bytes": keep}))
    with pytest.raises(UserError, match="not a complete"):
        read_beton(path)


def test_a_flipped_bit_is_refused(copy: Path) -> None:
    path = copy / "train.beton"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="content changed"):
        read_beton(path)


def test_a_missing_sidecar_or_file_is_refused(copy: Path) -> None:
    sidecar_path(copy / "test.beton").unlink()
    with pytest.raises(UserError, match="run `beton` again"):
        read_beton(copy / "test.beton")
    with pytest.raises(UserError, match="no such file"):
        read_beton(copy / "other.beton")


def test_a_writer_that_cannot_write_says_why(copy: Path) -> None:
    """Limit the file size to 60 blocks, in place of a full disk."""
    before = {path.name: path.read_bytes() for path in copy.glob("*.beton*")}
    write = f'"{sys.executable}" -m trainer beton --data-pth "{copy}"'
    done = command("bash", "-c", f"ulimit -f 60; timeout 60 {write}")
    message = one_line(done)
    assert "train.beton: cannot be written (File too large)" in message
    assert {path.name: path.read_bytes() for path in copy.glob("*.beton*")} == before
    assert not list(copy.glob("*.tmp"))


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_a_writer_that_is_killed_is_reported_not_waited_for(
    copy: Path, monkeypatch: pytest.MonkeyPatch, handler: Any
) -> None:
    """Check this also for processes that nohup or a script's ``&`` started, which ignore SIGINT."""

    def killed(source: Source, index: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(Source, "__getitem__", killed)
    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(UserError, match=r"train\.beton: a writer process died"):
            write_betons(copy)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not list(copy.glob("*.tmp"))


def test_a_failed_write_leaves_no_file_under_the_final_name(copy: Path) -> None:
    (copy / "test.npz").write_bytes((copy / "test.npz").read_bytes()[:-100])
    (copy / "test.beton").unlink()
    assert "test.npz" in one_line(trainer("beton", "--data-pth", copy))
    assert not list(copy.glob("*test.beton")) + list(copy.glob("*.tmp"))

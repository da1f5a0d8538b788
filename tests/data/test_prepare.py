"""Test every source of raw data, and the errors about bad ones."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands import trainer
from tests.conftest import one_line, shared_file, unpacked
from trainer.data.preparation.prepare import prepare
from trainer.data.preparation.prepared import read_prepared
from trainer.data.specs import DATASETS, SPLITS
from trainer.errors import UserError

CLASSES = DATASETS["cifar10"].classes


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)


def sizes(dataset: str) -> dict[str, int | None]:
    return {split: DATASETS[dataset].count(split) for split in SPLITS}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write two training images and one test image per class, lossless."""
    for split, count in (("train", 2), ("test", 1)):
        for label, name in enumerate(CLASSES):
            target = tmp_path / "raw" / split / name
            target.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(pixels(100 * label + i)).save(target / f"{i}.png")
    return tmp_path / "raw"


def refused(source: Path, out: Path) -> str:
    """Return `prepare`'s error line about a bad ``source``, which must leave nothing behind."""
    done = trainer("prepare", "--dataset", "cifar10", "--source", source, "--out", out)
    message = one_line(done)
    assert not list(out.glob("*"))
    return message


def test_digits_are_sklearns_split_once(digits: Path) -> None:
    from sklearn.datasets import load_digits

    train, classes = read_prepared(digits / "train.npz")
    test, _ = read_prepared(digits / "test.npz")
    assert (len(train.labels), len(test.labels)) == (797, 1000)
    assert classes == tuple("0123456789")
    both = np.concatenate([train.images, test.images]).reshape(1797, 64)
    wanted = (load_digits().data * 15).astype(np.uint8)
    order = np.lexsort(both.T), np.lexsort(wanted.T)
    assert np.array_equal(both[order[0]], wanted[order[1]])


def test_class_folders_become_arrays_in_label_order(folder: Path, tmp_path: Path) -> None:
    counts = prepare("cifar10", tmp_path / "out", folder)
    assert counts == {"train": 20, "test": 10}
    train, classes = read_prepared(tmp_path / "out" / "train.npz")
    assert classes == CLASSES
    for i, (image, label) in enumerate(zip(train.images, train.labels, strict=True)):
        assert label == i // 2
        assert np.array_equal(image, pixels(100 * (i // 2) + i % 2))


def test_what_comes_with_packages_is_as_large_as_its_specs_say(tmp_path: Path) -> None:
    """Experiments are checked against these numbers before anything is prepared."""
    for dataset in ("digits", "photos"):
        assert prepare(dataset, tmp_path) == sizes(dataset)


def test_a_source_that_lacks_images_is_named(folder: Path, tmp_path: Path) -> None:
    words = ["--dataset", "cifar10", "--source", folder, "--out", tmp_path / "out"]
    done = trainer("prepare", *words)
    assert done.returncode == 0
    assert "warning: cifar10 has 50000 images to train, 20 were found; complete" in done.stderr
    assert "10000 images to test, 10 were found" in done.stderr


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path / "nowhere", tmp_path / "out")
    assert "nowhere" in message
    assert "train/<class>/" in message


def test_a_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw" / "train").mkdir(parents=True)
    message = refused(tmp_path / "raw", tmp_path / "out")
    assert "train/<class>/<image>" in message


def test_a_missing_class_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "train" / "frog").rename(folder / "frog")
    assert "expected the class folders" in refused(folder, tmp_path / "out")


def test_an_empty_class_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "test" / "ship" / "0.png").unlink()
    assert "ship" in refused(folder, tmp_path / "out")


@pytest.mark.parametrize("keep", [0, 20, 1000])
def test_a_truncated_image_is_named(folder: Path, tmp_path: Path, keep: int) -> None:
    image = folder / "test" / "deer" / "0.png"
    image.write_bytes(image.read_bytes()[:keep])
    assert str(image) in refused(folder, tmp_path / "out")


def test_an_image_of_another_size_is_named(folder: Path, tmp_path: Path) -> None:
    image = folder / "train" / "cat" / "1.png"
    Image.fromarray(pixels(0)[:16]).save(image)
    message = refused(folder, tmp_path / "out")
    assert str(image) in message
    assert "(16, 32, 3)" in message


def test_digits_take_no_source(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave source out"):
        prepare("digits", tmp_path / "out", tmp_path)


@pytest.mark.exhaustive
def test_the_real_images_are_read(tmp_path: Path) -> None:
    unpacked(shared_file("cifar10-jpeg.tar.xz"), tmp_path / "raw")
    counts = prepare("cifar10", tmp_path, tmp_path / "raw")
    assert counts == {"train": 50_000, "test": 10_000} == sizes("cifar10")
    train, _ = read_prepared(tmp_path / "train.npz")
    assert np.bincount(train.labels).tolist() == [5000] * 10

"""Raw data, verified, to one layout.

Sets of small images of one size become ``train.npz`` and ``test.npz``: ``images`` (N, H, W, C)
uint8, ``labels`` (N,) int64 and ``classes`` (names in label order). Sets of image files stay where
they are: ``train.json`` and ``test.json`` list them (``folders.ImageFiles``).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from trainer.data.preparation.archives import unpack
from trainer.data.preparation.class_folders import split_folder
from trainer.data.preparation.colours import report
from trainer.data.preparation.folders import list_images
from trainer.data.preparation.photos import write_photos
from trainer.data.preparation.source_state import read_state, record_state, recorded_state
from trainer.data.specs import DATASETS, SPLITS, DatasetSpec
from trainer.errors import UserError
from trainer.files.atomic import atomic, reading, sha256
from trainer.files.download import DownloadSettings, download
from trainer.settings.commands import PrepareSettings

# By https://github.com/keras-team/keras/blob/master/keras/src/datasets/cifar10.py; torchvision has
# an MD5 alone.
CIFAR10_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"


@dataclass(frozen=True)
class Arrays:
    """``images`` (N, H, W, C) uint8 and ``labels`` (N,) int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def prepare(settings: PrepareSettings) -> dict[str, int]:
    """Write both splits of ``settings.dataset``; returns the number of images of each.

    Raises UserError for a source that is missing, damaged or laid out otherwise; then neither
    final file name is touched.
    """
    spec = DATASETS[settings.dataset]
    source = settings.source
    # Before the images are read: a change meanwhile is one that the next start notices.
    state = read_state(source) if source is not None and source.is_dir() else None
    before = recorded_state(settings.out)
    if state and before and (changes := state.changes_since(before)):
        print(f"{source}: {changes}", flush=True)
    counts = _list_files(settings, spec) if spec.of_files else _write_arrays(settings, spec)
    record_state(state, settings.out)
    return counts


def _write_arrays(settings: PrepareSettings, spec: DatasetSpec) -> dict[str, int]:
    splits = SOURCES[settings.dataset](settings, spec)
    for name, split in splits.items():
        _check(split, spec, f"{settings.dataset} {name}")
    for name, split in splits.items():
        with atomic(settings.out / f"{name}.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, images=split.images, labels=split.labels, classes=list(spec.classes))
        (settings.out / f"{name}.json").unlink(missing_ok=True)  # of image files, prepared before
    return {name: len(split.labels) for name, split in splits.items()}


def read_prepared(path: Path) -> tuple[Arrays, tuple[str, ...]]:
    """The arrays and class names that ``prepare`` wrote to ``path``.

    Raises UserError for a file that is missing, damaged or holds anything else.
    """
    with reading(path, "run `prepare` again"):
        file = path.open("rb")
    try:
        with file, np.lib.npyio.NpzFile(file, allow_pickle=False) as content:
            images, labels, classes = (content[name] for name in ("images", "labels", "classes"))
    except Exception as error:  # whatever a stray file provokes in numpy, zipfile and zlib
        reason: str | None = str(error) or type(error).__name__
    else:
        reason = _misfit(images, labels, classes)
    if reason is not None:
        raise UserError(f"{path}: damaged ({reason}); run `prepare` again")
    return Arrays(images, labels), tuple(map(str, classes))


def _misfit(images: NDArray[Any], labels: NDArray[Any], classes: NDArray[Any]) -> str | None:
    """What is wrong with the layout of prepared arrays."""
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        return f"images are {images.dtype} of shape {images.shape}, not uint8 (N, H, W, C)"
    if classes.dtype.kind != "U" or classes.ndim != 1 or len(set(classes)) < len(classes):
        return "classes are no list of different names"
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        return f"labels are {labels.dtype} of shape {labels.shape}, not int64 (N,)"
    if labels.min() < 0 or labels.max() >= len(classes):
        return f"labels from {labels.min()} to {labels.max()}, of {len(classes)} classes"
    return None


def _digits(settings: PrepareSettings, spec: DatasetSpec) -> dict[str, Arrays]:
    """scikit-learn's 8×8 digits, split once for all seeds: 797 images to train, 1,000 to test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    if settings.source is not None:
        raise UserError(
            f"source {settings.source}: digits come with scikit-learn; leave source out"
        )
    bunch = load_digits()
    images = (bunch.images * 15).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=spec.count("test"), stratify=labels, random_state=0
    )
    return {
        "train": Arrays(images[train], labels[train]),
        "test": Arrays(images[test], labels[test]),
    }


def _cifar10(settings: PrepareSettings, spec: DatasetSpec) -> dict[str, Arrays]:
    source = settings.source
    if source is not None and not source.exists():
        raise UserError(
            f"source {source}: no such file or folder; give cifar-10-python.tar.gz "
            "or a folder with train/<class>/ and test/<class>/"
        )
    if source is not None and source.is_dir():
        return {split: read_image_folder(source / split, spec) for split in SPLITS}
    return read_cifar10_archive(source, settings.out)


def read_cifar10_archive(archive: Path | None, folder: Path) -> dict[str, Arrays]:
    """The official CIFAR-10 (python version): ``archive``, or one that is downloaded to ``folder``.

    Its files are pickles: they are read after the SHA-256 says that they are the official ones.
    Source: https://www.cs.toronto.edu/~kriz/cifar.html
    """
    from torchvision.datasets import CIFAR10

    if archive is None:
        out = folder / CIFAR10.filename
        archive = download(DownloadSettings(url=CIFAR10.url, sha256=CIFAR10_SHA256, out=out))
    elif (found := sha256(archive)) != CIFAR10_SHA256:
        raise UserError(
            f"source {archive}: not the official CIFAR-10 archive (its SHA-256 is {found}, not "
            f"{CIFAR10_SHA256}); get it from {CIFAR10.url} or give a folder of class folders"
        )
    with tempfile.TemporaryDirectory() as root:
        unpack(archive, Path(root))
        splits = {s: CIFAR10(root, train=s == "train") for s in SPLITS}
    return {s: Arrays(d.data, np.asarray(d.targets, np.int64)) for s, d in splits.items()}


def read_image_folder(folder: Path, spec: DatasetSpec) -> Arrays:
    """A folder of class folders of images, in sorted order of class and file name.

    Raises UserError for a missing folder, for class folders other than ``spec.classes`` and for the
    first image that is truncated or of another size.
    """
    found = list_images(folder)
    if tuple(found.classes) != tuple(sorted(spec.classes)):
        raise UserError(
            f"source {folder}: expected the class folders {', '.join(sorted(spec.classes))}, "
            f"found {', '.join(found.classes)}"
        )
    shape = (spec.image_size, spec.image_size, spec.channels)
    images = np.empty((len(found), *shape), np.uint8)
    conversions: Counter[str] = Counter()
    for i in tqdm(range(len(found)), desc=str(folder), mininterval=2):
        image, converted = found.image(i)
        conversions.update(converted)
        if image.shape != shape:
            raise UserError(
                f"{found.path(i)}: image of shape {image.shape}, expected {shape}; resize it"
            )
        images[i] = image
    if conversions:
        print(f"{folder}: {report(conversions)}", flush=True)
    own_label = np.array([spec.classes.index(name) for name in found.classes], np.int64)
    return Arrays(images, own_label[found.labels])


def _list_files(settings: PrepareSettings, spec: DatasetSpec) -> dict[str, int]:
    source = settings.source
    if settings.dataset == "photos":
        if source is not None:
            raise UserError(f"source {source}: photos come with scikit-image; leave source out")
        source = settings.out / "images"
        write_photos(source)
    if source is None:
        raise UserError(f"{settings.dataset} needs a source: {WANTED[settings.dataset]}")
    splits = {split: list_images(split_folder(source, split)) for split in SPLITS}
    train, test = (splits[split].classes for split in SPLITS)
    if train != test:
        odd = sorted(set(train) ^ set(test))
        raise UserError(
            f"source {source}: {odd[0]} is a class of one split only ({len(odd)} such classes); "
            "give both the same class folders"
        )
    if spec.num_classes not in (0, len(train)):
        raise UserError(
            f"source {source}: {len(train)} classes, {settings.dataset} has {spec.num_classes}; "
            "complete it, or use dataset imagefolder"
        )
    for split, files in splits.items():
        files.write(settings.out / f"{split}.json")
    return {split: len(files) for split, files in splits.items()}


def _check(split: Arrays, spec: DatasetSpec, name: str) -> None:
    assert split.images.shape[1:] == (spec.image_size, spec.image_size, spec.channels), name
    assert split.images.dtype == np.uint8 and len(split.images) == len(split.labels), name
    missing = set(range(len(spec.classes))) - set(split.labels.tolist())
    if missing:
        classes = ", ".join(spec.classes[i] for i in sorted(missing))
        raise UserError(f"{name}: no images of class {classes}; the data are incomplete")


SOURCES: dict[str, Callable[[PrepareSettings, DatasetSpec], dict[str, Arrays]]] = {
    "digits": _digits,
    "cifar10": _cifar10,
}
WANTED = {
    "imagenet": "its licence forbids redistribution; get ILSVRC2012 from https://image-net.org, "
    "extract it to <source>/train/<class>/*.JPEG and <source>/val/<class>/*.JPEG, and set source "
    "(in config.yaml: imagenet_source)",
    "imagefolder": "a folder with train/<class>/<image> and val/<class>/<image>; set source "
    "(in config.yaml: imagefolder_source)",
}

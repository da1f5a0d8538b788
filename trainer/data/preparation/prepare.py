"""Verify raw data and bring them to one layout.

Sets of small images of one size become arrays. Sets of image files stay where they are, and lists
name them (``prepared``).
"""

import pickle
import tarfile
from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from trainer.data.preparation.class_folders import SPLIT_FOLDERS, split_folder
from trainer.data.preparation.colours import describe_conversions
from trainer.data.preparation.photos import write_photos
from trainer.data.preparation.prepared import Arrays, ImageFiles, list_images, write_prepared
from trainer.data.preparation.source_state import read_state, record_state, recorded_state
from trainer.data.specs import DATASETS, SPLITS, DatasetSpec
from trainer.errors import UserError
from trainer.files.atomic import sha256
from trainer.files.checksum import Checksum
from trainer.files.download import download

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
# From https://github.com/keras-team/keras/blob/master/keras/src/datasets/cifar10.py
CIFAR10_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
CIFAR10_BATCHES = {
    "train": [f"data_batch_{number}" for number in range(1, 6)],
    "test": ["test_batch"],
}
COME_WITH = {"digits": "scikit-learn", "photos": "scikit-image"}
SOURCE_ADVICE = {
    "imagenet": "its licence forbids redistribution; get ILSVRC2012 from https://image-net.org, "
    "extract it to <source>/train/<class>/*.JPEG and <source>/val/<class>/*.JPEG, and set source "
    "(in config.yaml: imagenet_source)",
    "imagefolder": "a folder with train/<class>/<image> and val/<class>/<image>; set source "
    "(in config.yaml: imagefolder_source)",
}


def prepare(dataset: str, out: Path, source: Path | None = None) -> dict[str, int]:
    """Write both splits of ``dataset`` to ``out``; return the number of images of each.

    Raises UserError for a source that is missing, damaged or laid out otherwise; then neither
    final file name is touched.
    """
    if source is not None and dataset in COME_WITH:
        raise UserError(
            f"source {source}: {dataset} come with {COME_WITH[dataset]}; leave source out"
        )
    # Before the images are read, so that the next start notices a change made meanwhile.
    state = read_state(source) if source is not None and source.is_dir() else None
    before = recorded_state(out)
    if state and before and (changes := state.changes_since(before)):
        print(f"{source}: {changes}", flush=True)
    write = _list_files if DATASETS[dataset].of_files else _write_arrays
    counts = write(dataset, out, source)
    record_state(state, out)
    return counts


def _write_arrays(dataset: str, out: Path, source: Path | None) -> dict[str, int]:
    spec = DATASETS[dataset]
    splits = _read_digits(spec) if dataset == "digits" else _read_cifar10(spec, out, source)
    for name, split in splits.items():
        assert split.images.dtype == np.uint8, name
        assert split.images.shape == (len(split.labels), *spec.shape), name
        if missing := [c for label, c in enumerate(spec.classes) if label not in split.labels]:
            raise UserError(
                f"{dataset} {name}: no images of class {', '.join(missing)}; "
                "the data are incomplete"
            )
    for name, split in splits.items():
        write_prepared(out / f"{name}.npz", split, spec.classes)
        (out / f"{name}.json").unlink(missing_ok=True)  # lists image files prepared earlier
    return {name: len(split.labels) for name, split in splits.items()}


def _read_digits(spec: DatasetSpec) -> dict[str, Arrays]:
    """Split scikit-learn's 8×8 digits once for all seeds: 797 images to train, 1,000 to test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = (bunch.images * 15).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    parts = train_test_split(
        np.arange(len(labels)), test_size=spec.count("test"), stratify=labels, random_state=0
    )
    return {
        split: Arrays(images[part], labels[part]) for split, part in zip(SPLITS, parts, strict=True)
    }


def _read_cifar10(spec: DatasetSpec, out: Path, source: Path | None) -> dict[str, Arrays]:
    if source is not None and not source.exists():
        raise UserError(
            f"source {source}: no such file or folder; give cifar-10-python.tar.gz "
            "or a folder with train/<class>/ and test/<class>/"
        )
    if source is not None and source.is_dir():
        return {split: read_image_folder(source / split, spec) for split in SPLITS}
    return read_cifar10_archive(source, out)


def read_cifar10_archive(archive: Path | None, folder: Path) -> dict[str, Arrays]:
    """Read the official CIFAR-10 (python version); None: download it to ``folder``.

    Its members are pickles, so the SHA-256 is checked before any is read; nothing is unpacked.
    Source: https://www.cs.toronto.edu/~kriz/cifar.html
    """
    if archive is None:
        path = folder / CIFAR10_URL.rpartition("/")[-1]
        archive = download(CIFAR10_URL, Checksum("SHA-256", CIFAR10_SHA256), path)
    elif (found := sha256(archive)) != CIFAR10_SHA256:
        raise UserError(
            f"source {archive}: not the official CIFAR-10 archive (its SHA-256 is {found}, not "
            f"{CIFAR10_SHA256}); get it from {CIFAR10_URL} or give a folder of class folders"
        )
    wanted = {name for names in CIFAR10_BATCHES.values() for name in names}
    batches: dict[str, Arrays] = {}
    with tarfile.open(archive) as tar:
        for member in tar:  # in the archive's order: gzip cannot seek backwards
            if (name := PurePosixPath(member.name).name) in wanted:
                batches[name] = _read_cifar10_batch(tar, member)
    return {
        split: Arrays(
            np.concatenate([batches[name].images for name in names]),
            np.concatenate([batches[name].labels for name in names]),
        )
        for split, names in CIFAR10_BATCHES.items()
    }


def _read_cifar10_batch(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Arrays:
    file = tar.extractfile(member)
    assert file is not None, "a plain file"
    batch = pickle.load(file, encoding="latin1")  # noqa: S301 its SHA-256 is the official one
    images = batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Arrays(images, np.asarray(batch["labels"], np.int64))


def read_image_folder(folder: Path, spec: DatasetSpec) -> Arrays:
    """Read a folder of class folders of images, in sorted order of class and file name.

    Raises UserError for a missing folder, for class folders other than ``spec.classes`` and for the
    first image that is truncated or of another size.
    """
    found = list_images(folder)
    if tuple(found.classes) != tuple(sorted(spec.classes)):
        raise UserError(
            f"source {folder}: expected the class folders {', '.join(sorted(spec.classes))}, "
            f"found {', '.join(found.classes)}"
        )
    images = np.empty((len(found), *spec.shape), np.uint8)
    conversions: Counter[str] = Counter()
    for i in tqdm(range(len(found)), desc=str(folder), mininterval=2):
        image, converted = found.image(i)
        conversions.update(converted)
        if image.shape != spec.shape:
            raise UserError(
                f"{found.path(i)}: image of shape {image.shape}, expected {spec.shape}; resize it"
            )
        images[i] = image
    if conversions:
        print(f"{folder}: {describe_conversions(conversions)}", flush=True)
    own_label = np.array([spec.classes.index(name) for name in found.classes], np.int64)
    return Arrays(images, own_label[found.labels])


def _list_files(dataset: str, out: Path, source: Path | None) -> dict[str, int]:
    if dataset == "photos":
        source = out / "images"
        write_photos(source)
    if source is None:
        raise UserError(f"{dataset} needs a source: {SOURCE_ADVICE[dataset]}")
    splits = {split: _list_split(source, split) for split in SPLITS}
    train, test = (splits[split].classes for split in SPLITS)
    if train != test:
        odd = sorted(set(train) ^ set(test))
        raise UserError(
            f"source {source}: {odd[0]} is a class of one split only ({len(odd)} such classes); "
            "give both the same class folders"
        )
    expected = DATASETS[dataset].num_classes
    if expected not in (0, len(train)):
        raise UserError(
            f"source {source}: {len(train)} classes, {dataset} has {expected}; "
            "complete it, or use dataset imagefolder"
        )
    for split, files in splits.items():
        files.write(out / f"{split}.json")
    return {split: len(files) for split, files in splits.items()}


def _list_split(source: Path, split: str) -> ImageFiles:
    if folder := split_folder(source, split):
        return list_images(folder)
    names = SPLIT_FOLDERS[split]
    raise UserError(
        f"source {source}: no folder {' or '.join(names)}; expected "
        f"{source / names[0]}/<class>/<image>"
    )

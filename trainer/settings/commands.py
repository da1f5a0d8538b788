"""The settings of ``prepare`` and ``beton``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import field_validator

from trainer.data.specs import DATASETS
from trainer.settings.base import Settings, known, setting


def known_dataset(name: str) -> str:
    return known("dataset", name, tuple(DATASETS))


class PrepareSettings(Settings):
    """Raw data to the one layout that ``beton`` reads."""

    dataset: str = setting("digits", "data set", "data")
    source: Path | None = setting(
        None,
        "cifar10: the official archive or a folder train/<class>/*, test/<class>/*; None: "
        "download. imagenet, imagefolder: a folder train/<class>/*, val/<class>/*",
        "data",
    )
    out: Path = setting(Path("resources/digits"), "directory to write to", "data")

    _dataset_is_known = field_validator("dataset")(known_dataset)


class ImageFileSettings(Settings):
    """How .beton files hold image files; defaults are the paper's (named 500_0.50_90)."""

    max_resolution: int = setting(
        500,
        "image files: the longer side, in pixels; larger ones are reduced to it",
        "image files",
        ge=1,
        le=20_000,
    )
    compress_probability: float = setting(
        0.5,
        "image files: the share that is stored as JPEG, the others uncompressed",
        "image files",
        ge=0,
        le=1,
    )
    jpeg_quality: int = setting(
        90, "image files: quality of these JPEGs", "image files", ge=1, le=100
    )


class BetonSettings(ImageFileSettings):
    """Prepared images to FFCV's .beton files. Those of one small size are stored as they are."""

    data_pth: Path = setting(Path("resources/digits"), "directory that `prepare` wrote", "data")
    split: Literal["train", "test"] | None = setting(
        None, "which of the two to write; None: both", "data"
    )
    num_workers: int = setting(1, "writer processes", "data", ge=1, le=256)


class SidecarSettings(Settings):
    """.beton files of another program, such as FFCV's own scripts, to be verified."""

    data_pth: Path = setting(
        Path("resources/imagenet"), "directory of train.beton and test.beton", "data"
    )
    dataset: str = setting(
        "imagenet", "data set that they hold: its classes, or as many as there are labels", "data"
    )
    split: Literal["train", "test"] | None = setting(
        None, "which of the two to verify; None: both", "data"
    )
    num_workers: int = setting(1, "threads that decode JPEGs", "data", ge=1, le=256)

    _dataset_is_known = field_validator("dataset")(known_dataset)

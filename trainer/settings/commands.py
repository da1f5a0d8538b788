"""Declare the settings of ``prepare``, ``beton``, ``sidecar`` and ``download``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import field_validator

from trainer.data.beton.sidecar import ImageEncoding
from trainer.data.specs import DATASETS
from trainer.files.download import FOLDER, https
from trainer.settings.base import Settings, require_one_of, setting


def require_dataset(name: str) -> str:
    """Return ``name``. Raises ValueError unless it is a data set."""
    return require_one_of("dataset", name, tuple(DATASETS))


class PrepareSettings(Settings):
    """Configure ``prepare``, which brings raw data to the layout that ``beton`` reads."""

    dataset: str = setting("digits", "data set", "data")
    source: Path | None = setting(
        None,
        "cifar10: the official archive or a folder train/<class>/*, test/<class>/*; None: "
        "download. imagenet, imagefolder: a folder train/<class>/*, val/<class>/*",
        "data",
    )
    out: Path = setting(Path("resources/digits"), "directory to write to", "data")

    _dataset_is_known = field_validator("dataset")(require_dataset)


class ImageFileSettings(Settings):
    """Configure how .beton files hold image files; defaults are the paper's."""

    max_resolution: int = setting(
        ImageEncoding.max_resolution,
        "image files: longer side, in pixels; larger images are reduced to it",
        "image files",
        ge=1,
        le=20_000,
    )
    compress_probability: float = setting(
        ImageEncoding.compress_probability,
        "image files: share stored as JPEG; the others are stored uncompressed",
        "image files",
        ge=0,
        le=1,
    )
    jpeg_quality: int = setting(
        ImageEncoding.jpeg_quality, "image files: JPEG quality", "image files", ge=1, le=100
    )


class BetonSettings(ImageFileSettings):
    """Configure ``beton``, which writes .beton files; images of one size are stored unchanged."""

    data_pth: Path = setting(Path("resources/digits"), "directory that `prepare` wrote", "data")
    split: Literal["train", "test"] | None = setting(None, "split to write; None: both", "data")
    num_workers: int = setting(1, "writer processes", "data", ge=1, le=256)


class SidecarSettings(Settings):
    """Configure ``sidecar``, which verifies another program's .beton files."""

    data_pth: Path = setting(
        Path("resources/imagenet"), "directory of train.beton and test.beton", "data"
    )
    dataset: str = setting(
        "imagenet",
        "data set in the files, which names the classes; imagefolder: as many as there are labels",
        "data",
    )
    split: Literal["train", "test"] | None = setting(None, "split to verify; None: both", "data")
    num_workers: int = setting(1, "threads that decode JPEGs", "data", ge=1, le=256)

    _dataset_is_known = field_validator("dataset")(require_dataset)


class DownloadSettings(Settings):
    """Configure ``download``, which fetches a file such as a published checkpoint."""

    url: str = setting(..., "https URL of the file", "download")
    sha256: str = setting(
        ..., "SHA-256 that the file must have", "download", pattern="^[0-9a-f]{64}$"
    )
    out: Path | None = setting(
        None, f"file to write; None: <SHA-256's beginning>-<name> in {FOLDER}", "download"
    )

    _url_is_https = field_validator("url")(https)

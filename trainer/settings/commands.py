"""Declare the settings of ``prepare``, ``beton``, ``sidecar`` and ``download``."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from trainer.data.beton.sidecar import ImageEncoding
from trainer.data.specs import DATASETS
from trainer.files.download import FOLDER, https
from trainer.settings.base import Settings, setting


def _require_dataset(name: str) -> str:
    if name not in DATASETS:
        raise ValueError(f"unknown dataset {name!r}; choose one of {', '.join(DATASETS)}")
    return name


DatasetName = Annotated[str, AfterValidator(_require_dataset)]


class PrepareSettings(Settings):
    """Configure ``prepare``, which brings raw data to the layout that ``beton`` reads."""

    dataset: DatasetName = setting("digits", "data")
    """data set"""
    source: Path | None = setting(None, "data")
    """cifar10: the official archive or a folder train/<class>/*, test/<class>/*; None: download.
    imagenet, imagefolder: a folder train/<class>/*, val/<class>/*"""
    out: Path = setting(Path("resources/digits"), "data")
    """directory to write to"""


class ImageFileSettings(Settings):
    """Configure how .beton files hold image files; defaults are the paper's."""

    max_resolution: int = setting(ImageEncoding.max_resolution, "image files", ge=1, le=20_000)
    """image files: longer side, in pixels; larger images are reduced to it"""
    compress_probability: float = setting(
        ImageEncoding.compress_probability, "image files", ge=0, le=1
    )
    """image files: share stored as JPEG; the others are stored uncompressed"""
    jpeg_quality: int = setting(ImageEncoding.jpeg_quality, "image files", ge=1, le=100)
    """image files: JPEG quality"""


class BetonSettings(ImageFileSettings):
    """Configure ``beton``, which writes .beton files; images of one size are stored unchanged."""

    data_pth: Path = setting(Path("resources/digits"), "data")
    """directory that `prepare` wrote"""
    split: Literal["train", "test"] | None = setting(None, "data")
    """split to write; None: both"""
    num_workers: int = setting(1, "data", ge=1, le=256)
    """writer processes"""


class SidecarSettings(Settings):
    """Configure ``sidecar``, which verifies another program's .beton files."""

    data_pth: Path = setting(Path("resources/imagenet"), "data")
    """directory of train.beton and test.beton"""
    dataset: DatasetName = setting("imagenet", "data")
    """data set in the files, which names the classes; imagefolder: as many as there are labels"""
    split: Literal["train", "test"] | None = setting(None, "data")
    """split to verify; None: both"""
    num_workers: int = setting(1, "data", ge=1, le=256)
    """threads that decode JPEGs"""


class DownloadSettings(Settings):
    """Configure ``download``, which fetches a file such as a published checkpoint."""

    url: Annotated[str, AfterValidator(https)] = setting(..., "download")
    """https URL of the file"""
    sha256: str = setting(..., "download", pattern="^[0-9a-f]{64}$")
    """SHA-256 that the file must have"""
    out: Path | None = setting(
        None, "download", help=f"file to write; None: <SHA-256's beginning>-<name> in {FOLDER}"
    )

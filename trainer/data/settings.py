"""The settings of ``prepare`` and ``beton``."""

from __future__ import annotations

from pathlib import Path

from pydantic import field_validator

from trainer.data.specs import DATASETS
from trainer.settings import Settings, known, setting


def known_dataset(name: str) -> str:
    return known("dataset", name, tuple(DATASETS))


class PrepareSettings(Settings):
    """Raw data to the one layout that ``beton`` reads."""

    dataset: str = setting("digits", "data set", "data")
    source: Path | None = setting(
        None,
        "cifar10: the official archive or a folder train/<class>/*, test/<class>/*; None: download",
        "data",
    )
    out: Path = setting(Path("resources/digits"), "directory to write to", "data")

    _dataset_is_known = field_validator("dataset")(known_dataset)


class BetonSettings(Settings):
    """Prepared arrays to FFCV's .beton files."""

    data_pth: Path = setting(Path("resources/digits"), "directory that `prepare` wrote", "data")
    num_workers: int = setting(1, "writer processes", "data", ge=1)

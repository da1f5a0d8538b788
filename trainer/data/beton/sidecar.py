"""Say how .beton files hold image files, and what identifies each. No heavy imports."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainer.data.specs import SPLITS
from trainer.files.atomic import read_json, write_json


@dataclass(frozen=True, kw_only=True)
class ImageEncoding:
    """Say how FFCV stores image files; defaults are the paper's (named 500_0.50_90).

    ``max_resolution``: longer side in pixels, larger images are reduced to it.
    ``compress_probability``: share stored as JPEG of ``jpeg_quality``, the others uncompressed.
    """

    max_resolution: int = 500
    compress_probability: float = 0.5
    jpeg_quality: int = 90


class Sidecar(BaseModel):
    """Hold the content of ``<file>.beton.json``.

    ``arguments`` and ``versions``: what the .beton was made with. ``samples_per_class``: by class
    name, in label order. ``conversions``: how many images were not plain 8-bit RGB, by kind
    (``colours.CONVERSIONS``). ``sha256``: of the whole file, ``index_sha256``: of all but its
    pixels.
    """

    model_config = ConfigDict(frozen=True)

    arguments: dict[str, Any]
    versions: dict[str, str]
    samples: int
    samples_per_class: dict[str, int]
    conversions: dict[str, int] = {}
    bytes: int
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    index_sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _is_of_one_split(self) -> Self:
        if self.arguments.get("split") not in SPLITS:
            raise ValueError("arguments name no split")
        if self.samples != sum(self.samples_per_class.values()):
            raise ValueError("samples is not the sum of samples_per_class")
        return self

    @property
    def split(self) -> str:
        return str(self.arguments["split"])

    def write(self, beton: Path) -> None:
        write_json(sidecar_path(beton), self.model_dump())


def sidecar_path(beton: Path) -> Path:
    return beton.with_suffix(".beton.json")


def read_sidecar(beton: Path) -> Sidecar:
    """Read the sidecar of ``beton``. Raises UserError for one that is missing or damaged."""
    fix = "run `beton` again, or `sidecar` for another program's file"
    return read_json(sidecar_path(beton), Sidecar, fix)

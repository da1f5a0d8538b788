"""Define config.yaml: what a user may change without touching an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from trainer.errors import UserError
from trainer.settings.base import Settings
from trainer.settings.cli import validated
from trainer.settings.commands import ImageFileSettings
from trainer.settings.runtime import Device, WandbMode
from workflow.paths import scales


class Plot(Settings):
    """Set how figures look; a change trains nothing."""

    colormap: str = Field(
        "viridis_r", description="matplotlib colormap for H > 1, from small to large H"
    )
    sgd_color: str = Field("black", description="matplotlib colour for H = 1")
    width: float = Field(5.5, description="inches", gt=0)
    height: float = Field(5.0, description="inches", gt=0)

    @model_validator(mode="after")
    def _matplotlib_knows_it(self) -> Self:
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        if self.colormap != defaults["colormap"]:
            import matplotlib

            if self.colormap not in matplotlib.colormaps:
                raise ValueError(
                    f"colormap {self.colormap!r} is unknown to matplotlib; choose one of its"
                )
        if self.sgd_color != defaults["sgd_color"]:
            from matplotlib.colors import is_color_like

            if not is_color_like(self.sgd_color):
                raise ValueError(
                    f"sgd_color {self.sgd_color!r} is no matplotlib colour; correct it"
                )
        return self


class Config(Settings):
    """Hold the settings of config.yaml."""

    scale: str = Field(
        "laptop", description="which experiments/<scale>.yaml to run", pattern=r"^[A-Za-z0-9_-]+$"
    )
    processes: int | None = Field(
        None, description="processes of each training run; null: as the scale suggests", ge=1
    )
    nodes: int | None = Field(
        None,
        description="nodes of a cluster that each training run's processes are spread over; "
        "null: as the scale suggests",
        ge=1,
    )
    gpu_model: str | None = Field(
        None,
        description="Slurm's name for the type of GPU that training jobs ask for; null: any",
        pattern=r"^[A-Za-z0-9_.]+$",
    )
    threads: int | None = Field(
        None, description="cores of each process; null: as the scale suggests", ge=1
    )
    device: Device | None = Field(
        None,
        description="auto (a GPU where there is one), cpu or cuda; null: as the scale suggests",
    )
    cifar10_source: Path | None = Field(
        None,
        description="cifar-10-python.tar.gz, or a folder with train/<class>/ and test/<class>/; "
        "null: download",
    )
    imagenet_source: Path | None = Field(
        None, description="ImageNet: a folder with train/<class>/ and val/<class>/"
    )
    imagefolder_source: Path | None = Field(
        None, description="dataset imagefolder: a folder with train/<class>/ and val/<class>/"
    )
    checkpoints_source: Path | None = Field(
        None,
        description="published start points: a folder with copies, or a clone of the repository "
        "that has them; null: download",
    )
    image_files: ImageFileSettings = Field(
        default_factory=ImageFileSettings, description="how .beton files hold image files"
    )
    wandb: WandbMode | None = Field(
        None,
        description="copy of each run on Weights & Biases: online, offline or disabled; "
        "null: as the scale suggests",
    )
    retries: int | None = Field(
        None,
        description="how often a training job that stopped or failed is started again and resumes "
        "from its last checkpoint; null: as the scale or a cluster's profile suggests",
        ge=0,
    )
    checkpoint_every: float = Field(
        10, description="minutes between the checkpoints of a training job", ge=0
    )
    time_limit: float | None = Field(
        None,
        description="minutes after which a training job saves a checkpoint and fails, so that a "
        "retry resumes it; null: none",
        gt=0,
    )
    only_finished: bool = Field(
        False,
        description="make figures and claims from finished runs alone; train no others",
    )
    tables: Path | None = Field(
        None,
        description="folder of a scale's tables to draw and judge instead of runs; "
        "null: the tables of the runs",
    )
    plot: Plot = Field(default_factory=Plot, description="how figures look")

    @property
    def results(self) -> Path:
        """Name the folder of the results; those of given tables lie beside those of runs."""
        return Path("results", self.scale if self.tables is None else f"{self.scale}-from-tables")

    def source(self, dataset: str) -> Path | None:
        """Return the source of ``dataset``'s images; None where it needs or names none."""
        path: Path | None = getattr(self, f"{dataset}_source", None)
        return path


def load_config(config: dict[str, Any]) -> Config:
    """Check Snakemake's config. Raises UserError for an unknown key, value or scale."""
    loaded = validated(Config, config, where="config.yaml: ")
    if loaded.scale not in scales():
        raise UserError(
            f"config.yaml: unknown scale {loaded.scale!r}; choose one of {', '.join(scales())}"
        )
    return loaded

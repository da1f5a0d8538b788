"""Define ``figures:`` of workflow/paper.yaml and of experiments files. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from trainer.settings.base import Settings

X = Literal[
    "epoch", "step", "slow_time", "megabytes", "local_steps", "num_clients", "communication_share"
]  # fmt: skip
AT_END: tuple[X, ...] = ("local_steps", "num_clients", "communication_share")
OVER_TIME: tuple[X, ...] = tuple(x for x in get_args(X) if x not in AT_END)
Quantity = Literal[
    "accuracy", "top5_accuracy", "train_loss", "test_loss", "trace", "eigenvalue", "local_steps",
    "lr",
]  # fmt: skip
Control = Literal["sgd", "smallest_k"]
RULES = {"qsr": "QSR", "inverse": "1/η", "cubic": "1/η³"}  # of H
# Values that have a name of their own, or none beside the other settings
VALUES = {"h_rule": RULES, "weight_averaging1": {"swa": "SWA", "ema": "EMA"}}
UNNAMED = (("h_rule", "constant"), ("weight_averaging1", "none"), ("outer_momentum", 0))
# Settings whose own names say little
NAMES = {"wd": "weight decay", "aug": "augmentation", "noise_p": "label noise p ="}
SYMBOLS = {
    "step1": "H = {}",
    "h_rule": "H: {}",
    "h_base": "H ≥ {}",
    "alpha": "α = {}",
    "batch_size": "B_loc = {}",
    "total_batch_size": "B = {}",
    "lr_schedule": "{}",
    "weight_averaging1": "{}",
}


class Row(Settings):
    """Describe one axes of a panel: a quantity, or its gain over the control of the same seed.

    The gain of a quantity on a logarithmic axis is ln(control's ÷ its own).
    """

    quantity: Quantity = Field(
        description="accuracy and top5_accuracy of the test images; train_loss; test_loss; trace "
        "and eigenvalue, the largest, of the training loss's Hessian; local_steps, H; lr, η"
    )
    paired_with: Control | dict[str, Any] | None = Field(
        None,
        description="draw the gain over the control with the same seed: sgd, H = 1 and else the "
        "same settings; smallest_k; or the settings that tell the control's run from the others; "
        "null: draw the quantity itself",
    )
    limits: tuple[float, float] | None = Field(
        None,
        description="from where to where the axis goes; null: all that is drawn, without the "
        "first evaluation of a run from random initialisation",
    )

    @model_validator(mode="after")
    def _limits_ascend(self) -> Self:
        if self.limits is not None and not self.limits[0] < self.limits[1]:
            raise ValueError("limits do not ascend; put the lower one first")
        return self


class Panel(Settings):
    """Describe stacked axes that share ``x``: all evaluations over it, or each run's last one."""

    experiment: str = Field(description="whose runs it shows")
    x: X = Field(
        "epoch",
        description="over time: epoch, step, slow_time (η²·steps / B_loc) or megabytes sent by one "
        "client; at the end: local_steps (H), num_clients (K) or communication_share (bytes sent, "
        "divided by those of H = 1 after as many steps)",
    )
    expected: str = Field(
        "", description="what one should see in it if the paper holds, drawn above the panel"
    )
    rows: list[Row] = Field(
        default=[Row(quantity="accuracy")], description="from top to bottom", min_length=1
    )

    @model_validator(mode="after")
    def _controls_fit(self) -> Self:
        for row in self.rows:
            if row.paired_with == "smallest_k" and self.x != "num_clients":
                raise ValueError("paired_with smallest_k needs x num_clients; choose another")
            if row.paired_with is not None and self.x == "megabytes":
                raise ValueError(
                    "x megabytes: the runs have sent as much at different steps, so that none can "
                    "be paired; choose another x or remove paired_with"
                )
        return self


class Figure(Settings):
    """Describe a figure: panels side by side, or on one axis."""

    title: str = Field("", description="above all panels")
    caption: str = Field(description="the report's; how lines and pairs are to be read is added")
    columns: int = Field(1, description="panels side by side", ge=1)
    overlaid: bool = Field(False, description="all panels, of equal x and rows, share one axis")
    panels: list[Panel] = Field(description="from left to right", min_length=1)

    @model_validator(mode="after")
    def _panels_can_share_an_axis(self) -> Self:
        first = self.panels[0]
        alike = all((panel.x, panel.rows) == (first.x, first.rows) for panel in self.panels)
        if self.overlaid and not (alike and first.x in OVER_TIME):
            raise ValueError(
                f"overlaid panels need the same rows and the same x, one of {', '.join(OVER_TIME)}"
            )
        return self

    @property
    def experiments(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(panel.experiment for panel in self.panels))

    @property
    def whole_caption(self) -> str:
        """Return the caption, and how to read what is drawn."""
        if self.overlaid:
            return self.caption
        sentences = [self.caption]
        if any(panel.x in OVER_TIME for panel in self.panels):
            sentences.append("Lines are means over seeds, bands 95 % intervals.")
        if any(panel.x in AT_END for panel in self.panels):
            sentences.append("Points are means over seeds, bars 95 % intervals.")
        pairs = [row.paired_with for panel in self.panels for row in panel.rows if row.paired_with]
        return " ".join([*sentences, *dict.fromkeys(map(_explain, pairs))])


def _explain(paired_with: Control | dict[str, Any]) -> str:
    if paired_with == "sgd":
        return (
            "Gains are differences from SGD (H = 1) of the same seed, which shares its start point."
        )
    if isinstance(paired_with, str):
        return "Gains are differences from the smallest K of the same seed."
    return f"Gains are differences from {name_settings(paired_with)} of the same seed."


def name_settings(settings: Mapping[str, Any]) -> str:
    """Name runs by their settings, with the field's symbols."""
    words = []
    for name, value in settings.items():
        if (name, value) not in UNNAMED:
            symbol = SYMBOLS.get(name, name_of(name) + " {}")
            words.append(symbol.format(VALUES.get(name, {}).get(value, value)))
    return ", ".join(words)


def name_of(setting: str) -> str:
    """Return the words for a setting that has no symbol."""
    return NAMES.get(setting, setting.replace("_", " "))

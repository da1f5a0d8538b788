"""Name the columns of tables that figures show, and the words on their axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from workflow.figures import Panel, Quantity, Row, X, name_settings


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Describe a column of the tables as figures show it."""

    column: str
    label: str
    times: float = 1.0
    log: bool = False


SHOWN: Mapping[Quantity, Shown] = {
    "accuracy": Shown(column="test_accuracy", label="test accuracy (%)", times=100),
    "top5_accuracy": Shown(column="test_top5_accuracy", label="top-5 accuracy (%)", times=100),
    "train_loss": Shown(column="train_loss", label="training loss", log=True),
    "test_loss": Shown(column="test_loss", label="test loss", log=True),
    "trace": Shown(column="hessian_trace", label="trace of the Hessian", log=True),
    "eigenvalue": Shown(
        column="hessian_largest_eigenvalue", label="largest eigenvalue of the Hessian", log=True
    ),
    "local_steps": Shown(column="local_steps", label="H, local steps", log=True),
    "lr": Shown(column="lr", label="η", log=True),
}
assert set(SHOWN) == set(get_args(Quantity))
XLABELS: Mapping[X, str] = {
    "epoch": "epoch",
    "step": "steps",
    "slow_time": "slow time, η²·steps / B_loc",
    "local_steps": "H, local steps",
    "num_clients": "K, clients",
    "megabytes": "MB sent by one client",
    "communication_share": "bytes sent ÷ bytes of H = 1",
}
X_COLUMNS: Mapping[X, str] = {"local_steps": "first_local_steps"}  # where it has another name
LOGARITHMIC: tuple[X, ...] = ("slow_time", "megabytes", "communication_share")


def x_column(panel: Panel) -> str:
    return X_COLUMNS.get(panel.x, panel.x)


def row_label(row: Row) -> str:
    """Return the words beside a row's axis, which name it in the figure's numbers."""
    shown = SHOWN[row.quantity]
    if row.paired_with is None:
        return shown.label
    if row.paired_with == "sgd":
        control = "SGD"
    elif isinstance(row.paired_with, str):
        control = "smallest K"
    else:
        control = name_settings(row.paired_with)
    if shown.log:
        return f"ln({shown.label}:\n{control}'s ÷ its own)"
    return f"gain over {control}\nof the same seed (points)"

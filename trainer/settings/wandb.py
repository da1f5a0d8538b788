"""What goes to Weights & Biases, and where to; no number depends on it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator

from trainer.settings.base import Settings, setting

WandbMode = Literal["online", "offline", "disabled"]


class WandbSettings(Settings):
    """The copy of a run on W&B."""

    wandb: WandbMode = setting(
        "disabled",
        "also log to W&B; None: online, as in the authors' scripts; WANDB_MODE is not read",
        "wandb",
        affects_results=False,
    )
    wandb_save: bool = setting(
        False, "also save checkpoints to wandb", "wandb", affects_results=False
    )
    wandb_entity: str | None = setting(
        None,
        "W&B user or team; None: WANDB_ENTITY, else the account's",
        "wandb",
        affects_results=False,
    )
    wandb_project: str | None = setting(
        None,
        "W&B project; None: WANDB_PROJECT, else local-sgd-generalization",
        "wandb",
        affects_results=False,
    )
    wandb_group: str | None = setting(
        None, "W&B group; None: WANDB_RUN_GROUP, else none", "wandb", affects_results=False
    )

    @field_validator("wandb", mode="before")
    @classmethod
    def _none_is_online(cls, mode: Any) -> Any:
        """``--wandb None``, as in the authors' scripts, is wandb's own default."""
        return "online" if mode is None else mode

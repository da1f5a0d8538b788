"""Define how and where a run is executed, interrupted and logged; no number depends on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from trainer.settings.base import Settings, setting

Device = Literal["auto", "cpu", "cuda"]
WandbMode = Literal["online", "offline", "disabled"]


class RuntimeSettings(Settings):
    """Configure execution, files, checkpoints, early termination, other processes and W&B."""

    # Clients
    clients: Literal["auto", "vectorized", "serial", "fused"] = setting(
        "auto",
        "how a process executes its clients: in one pass, one after the other, or (H = 1) as one "
        "replica; auto: by a rule from model, batch, H and device",
        "clients",
        affects_results=False,
    )
    compile: bool = setting(
        False,
        "compile the model with torch.compile: costs a minute at the start, then steps of large "
        "models are faster",
        "clients",
        affects_results=False,
    )

    # Run
    log_pth: Path = setting(
        Path("results/checkpoints/run"),
        "directory for checkpoints: at initialisation, at every decay, after the latest evaluation",
        "run",
        affects_results=False,
    )
    out: Path | None = setting(
        None,
        "directory for metrics.jsonl and model.pt once the run is complete; None: log_pth",
        "run",
        affects_results=False,
    )
    device: Device = setting(
        "auto",
        "auto: a GPU if there is one; each process needs its own",
        "run",
        affects_results=False,
    )
    processes: int | None = setting(
        None,
        "expected number of processes, on all nodes together; a mismatch is an error; None: as "
        "many as torchrun starts",
        "run",
        affects_results=False,
        ge=1,
    )
    backend: Literal["auto", "gloo", "nccl"] = setting(
        "auto", "communication; auto: nccl on GPU, gloo on CPU", "run", affects_results=False
    )
    debug: bool = setting(
        False, "print every evaluation to the console", "run", affects_results=False
    )

    # Interruptions
    checkpoint_every: float = setting(
        10.0,
        "minutes between the checkpoints that a restarted run resumes from; within a round only if "
        "the round takes longer than that; 0: after every step",
        "interruptions",
        affects_results=False,
        ge=0,
    )
    time_limit: float | None = setting(
        None,
        "minutes after which the run saves a checkpoint and stops, with exit status 75; None: no "
        "limit",
        "interruptions",
        affects_results=False,
        gt=0,
    )
    wait: bool = setting(
        False,
        "if another process trains into log_pth, wait for it to end instead of refusing",
        "interruptions",
        affects_results=False,
    )
    timeout: float = setting(
        30.0,
        "minutes that processes wait to connect, and later for one that does not answer, before "
        "they end the run",
        "interruptions",
        affects_results=False,
        gt=0,
        le=60 * 24 * 7,
    )
    allow_divergence: bool = setting(
        False,
        "if the loss or parameters become infinite or NaN, end the run with a last line in "
        "metrics.jsonl that records it, instead of an error",
        "interruptions",
        affects_results=False,
    )

    # Weights & Biases
    wandb: WandbMode = setting(
        "disabled",
        "also log to W&B; None: online, as in the authors' scripts; WANDB_MODE is not read",
        "wandb",
        affects_results=False,
    )
    wandb_save: bool = setting(
        False, "also save checkpoints to W&B", "wandb", affects_results=False
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
        """Read ``--wandb None``, as in the authors' scripts, as wandb's own default."""
        return "online" if mode is None else mode


def wandb_is_there_to_save_to(s: RuntimeSettings) -> str | None:
    if not s.wandb_save or s.wandb != "disabled":
        return None
    return "wandb_save 1 needs a W&B run; set wandb online or offline, or wandb_save 0"

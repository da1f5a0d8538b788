"""Define how and where a run is executed, interrupted and logged; no number depends on it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from trainer.settings.base import Settings, execution_setting

Device = Literal["auto", "cpu", "cuda"]
WandbMode = Literal["online", "offline", "disabled"]


class RuntimeSettings(Settings):
    """Configure execution, files, checkpoints, early termination, other processes and W&B."""

    # Clients
    clients: Literal["auto", "vectorized", "serial", "fused"] = execution_setting("auto", "clients")
    """how a process executes its clients: in one pass, one after the other, or (H = 1) as one
    replica; auto: by a rule from model, batch, H and device"""
    compile: bool = execution_setting(False, "clients")
    """compile the model with torch.compile: costs a minute at the start, then steps of large models
    are faster"""

    # Run
    log_pth: Path = execution_setting(Path("results/checkpoints/run"), "run")
    """directory for models (at initialisation, at every decay, after the latest evaluation) and for
    the checkpoints that a stopped run resumes from"""
    out: Path | None = execution_setting(None, "run")
    """directory for metrics.jsonl and model.pt once the run is complete; None: log_pth"""
    device: Device = execution_setting("auto", "run")
    """auto: a GPU if there is one; each process needs its own"""
    processes: int | None = execution_setting(None, "run", ge=1)
    """expected number of processes, on all nodes together; a mismatch is an error; None: as many as
    torchrun starts"""
    backend: Literal["auto", "gloo", "nccl"] = execution_setting("auto", "run")
    """communication; auto: nccl on GPU, gloo on CPU"""
    debug: bool = execution_setting(False, "run")
    """print every evaluation to the console"""

    # Interruptions
    checkpoint_every: float = execution_setting(10.0, "interruptions", ge=0)
    """minutes between the checkpoints that a restarted run resumes from; within a round only if the
    round takes longer than that; 0: after every step"""
    time_limit: float | None = execution_setting(None, "interruptions", gt=0)
    """minutes after which the run saves a checkpoint and stops, with exit status 75; None: no
    limit"""
    wait: bool = execution_setting(False, "interruptions")
    """if another process trains into log_pth, wait for it to end instead of refusing"""
    timeout: float = execution_setting(30.0, "interruptions", gt=0, le=60 * 24 * 7)
    """minutes that processes wait to connect, and later for one that does not answer, before they
    end the run"""
    allow_divergence: bool = execution_setting(False, "interruptions")
    """if the loss or parameters become infinite or NaN, end the run with a last line in
    metrics.jsonl that records it, instead of an error"""

    # Weights & Biases
    wandb: WandbMode = execution_setting("disabled", "wandb")
    """also log to W&B; `--wandb None` means online, as in the authors' scripts; WANDB_MODE is not
    read"""
    wandb_save: bool = execution_setting(False, "wandb")
    """also save checkpoints to W&B"""
    wandb_entity: str | None = execution_setting(None, "wandb")
    """W&B user or team; None: WANDB_ENTITY, else the account's"""
    wandb_project: str | None = execution_setting(None, "wandb")
    """W&B project; None: WANDB_PROJECT, else local-sgd-generalization"""
    wandb_group: str | None = execution_setting(None, "wandb")
    """W&B group; None: WANDB_RUN_GROUP, else none"""

    @field_validator("wandb", mode="before")
    @classmethod
    def _none_is_online(cls, mode: Any) -> Any:
        """Read ``--wandb None``, as in the authors' scripts, as wandb's own default."""
        return "online" if mode is None else mode

    @property
    def published_pth(self) -> Path:
        """Return the directory of the complete run's files."""
        return self.out or self.log_pth

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if self.wandb_save and self.wandb == "disabled":
            yield "wandb_save 1 needs a W&B run; set wandb online or offline, or wandb_save 0"

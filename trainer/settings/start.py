"""Define where a run starts from."""

from __future__ import annotations

from pathlib import Path

from pydantic import field_validator

from trainer.errors import UserError
from trainer.files.download import https, is_url
from trainer.settings.base import Settings, changed, local_path, setting


class StartSettings(Settings):
    """Choose the start point: a checkpoint, or random initialisation."""

    resume: int = setting(0, "epoch of the start point", "start", ge=0)
    resume_pth: str | None = setting(
        None,
        "checkpoint (state_dict) to start from, file or https URL; None: random initialisation",
        "start",
        affects_results=False,
    )
    resume_sha256: str | None = setting(
        None,
        "SHA-256 that the checkpoint must have (a URL needs it); None: not checked",
        "start",
        pattern="^[0-9a-f]{64}$",
    )
    eval_on_start: bool = setting(False, "evaluate the initial model", "start")

    @field_validator("resume_pth")
    @classmethod
    def _start_is_a_file_or_https(cls, place: str | None) -> str | None:
        if place is None:
            return None
        if is_url(place):
            return https(place)
        local = local_path(Path(place))
        return str(local) if place.startswith("~") else place


def check_start(settings: StartSettings) -> None:
    """Check that the start point is named and can be trusted; raises UserError otherwise.

    Experiments leave the path to the workflow, so that it is known only when the run begins.
    """
    for name in changed(settings, "resume", "resume_sha256"):
        if settings.resume_pth is None:
            raise UserError(f"{name} describes a start point; set resume_pth or remove {name}")
    if settings.resume_pth and is_url(settings.resume_pth) and settings.resume_sha256 is None:
        raise UserError(f"resume_pth {settings.resume_pth}: a URL needs resume_sha256; set it")

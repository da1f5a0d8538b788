"""Check whether runs can be copied to Weights & Biases from here."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

from trainer.settings.base import local_path
from workflow.campaign import Campaign
from workflow.commands.installation import Check


def wandb_copy(campaign: Campaign) -> Check:
    mode = campaign.execution.wandb
    if mode == "disabled":
        return Check("ok", "wandb", "disabled")
    if _has_wandb_key():
        return Check("ok", "wandb", f"{mode}; a key is configured")
    if mode == "offline":
        return Check("ok", "wandb", "offline; no key is configured: `wandb login` before syncing")
    text = "online, but no key is configured, so runs continue without it; run: wandb login"
    return Check("warning", "wandb", text)


def _has_wandb_key() -> bool:
    """Look for a key where wandb does, without printing it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    try:
        file = os.environ.get("NETRC")
        file = file and str(local_path(Path(file)))  # as wandb does
        return netrc.netrc(file).authenticators(host) is not None
    except (OSError, ValueError, netrc.NetrcParseError):
        return False

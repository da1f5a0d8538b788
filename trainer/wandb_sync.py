"""Uploads what runs left for Weights & Biases while they were offline."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from trainer.errors import UserError
from trainer.settings import Settings, setting
from trainer.wandb_log import ID_FILE


class WandbSyncSettings(Settings):
    """Offline copies of finished runs to the W&B server."""

    log_pth: Path = setting(
        Path("results/laptop/checkpoints"), "directory that holds the runs' log_pth", "sync"
    )
    pause: float = setting(
        5.0, "seconds between two uploads: the server limits their rate", "sync", ge=0
    )
    timeout: float = setting(600.0, "seconds that one upload may take", "sync", gt=0)


def wandb_sync(settings: WandbSyncSettings) -> dict[str, int]:
    """Uploads every finished run that is not on the server; counts those and the others.

    Raises UserError for the first upload that fails; the next call goes on there.
    """
    counts = {"uploaded": 0, "already there": 0, "not finished": 0}
    for log_pth in sorted(path.parent for path in settings.log_pth.glob("*/wandb")):
        copies = sorted((log_pth / "wandb").glob("offline-run-*"))
        missing = [copy for copy in copies if not list(copy.glob("*.synced"))]
        if (log_pth / ID_FILE).exists():
            counts["not finished"] += 1
        elif not missing:
            counts["already there"] += bool(copies)
        else:
            if counts["uploaded"]:
                time.sleep(settings.pause)
            _upload(log_pth, missing, settings.timeout)
            counts["uploaded"] += 1
    return counts


def _upload(log_pth: Path, copies: list[Path], timeout: float) -> None:
    """All that one run left, in the order of time: it has several copies if it was resumed."""
    words = [sys.executable, "-m", "wandb", "sync", "--yes", *map(str, copies)]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,  # no prompt
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"WANDB_DIR": str(log_pth)},  # for its own log
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        reason = f"not done within {timeout:g} s"
    else:
        print(done.stdout, end="", file=sys.stderr, flush=True)
        if done.returncode == 0:
            return
        reason = done.stdout.strip().rpartition("\n")[-1]
    raise UserError(
        f"{log_pth}: cannot be uploaded ({reason}); check the network and `wandb login`, then "
        "start the upload again"
    )

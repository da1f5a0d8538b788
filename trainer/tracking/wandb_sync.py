"""Upload offline W&B runs, one after the other, once their training is finished."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from trainer.errors import UserError
from trainer.settings.base import Settings, setting
from trainer.tracking.metrics import PARTIAL
from trainer.tracking.wandb_log import ID_FILE, NO_REPORTS

# Exist only while training is in progress: the W&B id, and the metrics so far.
IN_PROGRESS = (ID_FILE, PARTIAL)
OFFLINE = "offline-"
# By default `wandb sync` retries for ever, even without a network.
ATTEMPTS = {"WANDB__GRAPHQL_RETRY_MAX": "3"}


class WandbSyncSettings(Settings):
    """Hold what the upload of offline W&B runs needs."""

    log_pth: Path = setting(Path("results/laptop/checkpoints"), "wandb")
    """folder of the runs' log_pth, or that of one run"""
    pause: float = setting(2.0, "wandb", ge=0)
    """seconds between two uploads; W&B refuses too many at once"""


def wandb_sync(settings: WandbSyncSettings) -> None:
    """Upload what is finished and not uploaded yet; print how much that was.

    Raises UserError, which names the run's folder, if an upload fails; earlier uploads remain.
    """
    if not settings.log_pth.is_dir():
        raise UserError(f"log_pth: there is no folder {settings.log_pth}; train first, or fix it")
    uploaded = skipped = unfinished = 0
    for file in _last_starts(settings.log_pth):
        if any((file.parents[2] / name).exists() for name in IN_PROGRESS):
            unfinished += 1
        elif _is_uploaded(file):
            skipped += 1
        else:
            if uploaded:
                time.sleep(settings.pause)
            _upload(file)
            uploaded += 1
    print(f"{uploaded} uploaded, {skipped} were uploaded before, {unfinished} not finished")


def _last_starts(log_pth: Path) -> Iterator[Path]:
    """Yield the last start of every W&B run; it holds all rows, as each start logs them again.

    wandb keeps a start as (offline-)run-<time>-<id>/run-<id>.wandb.
    """
    for folder in sorted([*log_pth.glob("wandb"), *log_pth.glob("*/wandb")]):
        starts = folder.glob("*run-*/run-*.wandb")
        in_time = sorted(starts, key=lambda file: file.parent.name.removeprefix(OFFLINE))
        last = {file.name: file for file in in_time}
        yield from (last[name] for name in sorted(last))


def _is_uploaded(file: Path) -> bool:
    """Check wandb's mark that it synced an offline run; online runs are uploaded already."""
    online = not file.parent.name.startswith(OFFLINE)
    return online or file.with_suffix(".wandb.synced").exists()


def _upload(file: Path) -> None:
    folder = file.parent
    print(f"uploading {folder}", flush=True)
    try:
        done = subprocess.run(
            ["wandb", "sync", str(folder)],
            env=ATTEMPTS | dict([NO_REPORTS]) | os.environ,
            stdin=subprocess.DEVNULL,  # do not prompt
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise UserError(
            f"wandb cannot be started ({error}); install it: pip install wandb"
        ) from None
    # It exits with 0 even if the server does not answer; only the mark is proof.
    if done.returncode or not _is_uploaded(file):
        print(done.stdout, file=sys.stderr)
        raise UserError(
            f"{folder}: was not uploaded; see wandb's output above, check the network and "
            "`wandb login`, then try again"
        )

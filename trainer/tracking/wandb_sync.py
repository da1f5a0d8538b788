"""Upload offline W&B runs, one after the other, once their training is finished."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from trainer.errors import UserError
from trainer.settings.base import Settings, setting
from trainer.tracking.run_folder import PARTIAL
from trainer.tracking.wandb_log import ID_FILE, NO_REPORTS

# Exist only while training is in progress: the W&B id, and the metrics so far.
IN_PROGRESS = (ID_FILE, PARTIAL)
# By default `wandb sync` retries for ever, even without a network.
ATTEMPTS = {"WANDB__GRAPHQL_RETRY_MAX": "3"}


class WandbSyncSettings(Settings):
    """Hold what the upload of offline W&B runs needs."""

    log_pth: Path = setting(Path("results/laptop/checkpoints"), "wandb")
    """folder of the runs' log_pth, or that of one run"""
    pause: float = setting(2.0, "wandb", ge=0)
    """seconds between two uploads; W&B refuses too many at once"""


@dataclass(frozen=True, order=True)
class Start:
    """Name one start of a run as wandb keeps it: (offline-)run-<time>-<id>/run-<id>.wandb."""

    run: str
    time: str
    file: Path

    @classmethod
    def from_file(cls, file: Path) -> Start:
        folder = file.parent.name.removeprefix("offline-")
        return cls(file.stem.removeprefix("run-"), folder.removeprefix("run-"), file)

    @property
    def uploaded(self) -> bool:
        """Check wandb's mark that it synced an offline run; online runs are uploaded already."""
        online = not self.file.parent.name.startswith("offline-")
        return online or self.file.with_suffix(".wandb.synced").exists()


def wandb_sync(settings: WandbSyncSettings) -> None:
    """Upload what is finished and not uploaded yet; print how much that was.

    Raises UserError, which names the run's folder, if an upload fails; earlier uploads remain.
    """
    if not settings.log_pth.is_dir():
        raise UserError(f"log_pth: there is no folder {settings.log_pth}; train first, or fix it")
    uploaded = skipped = unfinished = 0
    for start in _last_starts(settings.log_pth):
        if any((start.file.parents[2] / name).exists() for name in IN_PROGRESS):
            unfinished += 1
        elif start.uploaded:
            skipped += 1
        else:
            if uploaded:
                time.sleep(settings.pause)
            _upload(start)
            uploaded += 1
    print(f"{uploaded} uploaded, {skipped} were uploaded before, {unfinished} not finished")


def _last_starts(log_pth: Path) -> Iterator[Start]:
    """Yield the last start of every W&B run; it holds all rows, as each start logs them again."""
    for folder in sorted([*log_pth.glob("wandb"), *log_pth.glob("*/wandb")]):
        starts = sorted(Start.from_file(file) for file in folder.glob("*run-*/run-*.wandb"))
        for _, of_run in groupby(starts, key=lambda start: start.run):
            yield list(of_run)[-1]


def _upload(start: Start) -> None:
    folder = start.file.parent
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
    if done.returncode or not start.uploaded:
        print(done.stdout, file=sys.stderr)
        raise UserError(
            f"{folder}: was not uploaded; see wandb's output above, check the network and "
            "`wandb login`, then try again"
        )

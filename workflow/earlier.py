"""Keep the results of finished runs that are repeated until the repeat has succeeded.

Snakemake deletes a job's outputs before it starts the job, and again when the job fails. So they
get a second name beside the run's checkpoints first, where no rule has its outputs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from trainer.files.atomic import writing

METRICS = "metrics.jsonl"
RESULTS = (METRICS, "model.pt", "settings.json", "provenance.json")


def earlier(folder: Path) -> Path:
    """Name the place for the results in ``folder``, results/<scale>/<role>/<run>."""
    return folder.parents[1] / "checkpoints" / folder.name / "earlier" / folder.parent.name


def keep(outputs: Iterable[str]) -> None:
    """Keep the results of finished runs whose ``outputs`` are about to be deleted.

    Raises UserError when it cannot be kept.
    """
    folders = {path.parent for path in map(Path, outputs) if path.name == METRICS}
    for folder in sorted(folders):
        if (folder / METRICS).exists():
            _keep(folder)


def _keep(folder: Path) -> None:
    kept = earlier(folder)
    unfinished = kept.with_name(f".{kept.name}.tmp")
    with writing(kept):
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for file in filter(Path.exists, (folder / name for name in RESULTS)):
            _link(file, unfinished / file.name)
        shutil.rmtree(kept, ignore_errors=True)
        unfinished.rename(kept)


def _link(file: Path, name: Path) -> None:
    """Link ``file`` to a second ``name``; copy it on file systems without hard links."""
    try:
        os.link(file, name)
    except OSError:
        shutil.copy2(file, name)


def drop(results: Path) -> None:
    """Remove the kept results of runs below results/<scale> that are finished again."""
    for kept in results.glob("checkpoints/*/earlier/*"):
        if (results / kept.name / kept.parents[1].name / METRICS).exists():
            shutil.rmtree(kept, ignore_errors=True)
            with suppress(OSError):  # it may hold the same run in its other role
                kept.parent.rmdir()

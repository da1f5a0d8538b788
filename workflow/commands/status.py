"""Report the state of every run that the experiments ask for. Trains, writes and locks nothing.

A run is done when its metrics are there and ``snakemake all`` would keep them, running while its
lock is held (``trainer/run/lock.py``), failed when its log holds an error, and
stopped when it holds none and there is a checkpoint to resume from.
"""

from __future__ import annotations

import shutil
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from trainer.files.atomic import parse_json
from trainer.run.lock import Owner, owner
from trainer.tracking.metrics import PARTIAL, STATE, Evaluation
from workflow.campaign import Campaign
from workflow.commands.commits import mixture
from workflow.commands.dry_run import would_run
from workflow.job import Job

State = Literal["done", "running", "failed", "stopped", "stale", "missing"]
STATES: tuple[State, ...] = get_args(State)
# One cause makes many stale; `snakemake --dry-run` lists them all.
STALE_LINES = 20
NEXT = {
    "failed": "The next `snakemake` tries again; logs are {results}/logs/<run>.log",
    "stopped": "The next `snakemake` resumes them",
    "stale": "The next `snakemake` repeats them; `snakemake trained --touch` keeps "
    "those whose inputs are all there",
}


@dataclass(frozen=True)
class Status:
    job: Job
    state: State
    detail: str = ""

    @property
    def repeats(self) -> str:
        """Say why the next ``snakemake`` repeats a finished run unchanged; empty for others."""
        if self.state == "stale":
            return f"stale: {self.detail}"
        begun = self.job.kept and self.state != "running"
        return "begun anew, and not complete yet" if begun else ""


def states(campaign: Campaign) -> list[Status]:
    """Determine every job's state, in order. Raises UserError when Snakemake refuses to plan."""
    campaign.check_clients()  # the dry run is for one process
    repeated = would_run(campaign.overrides) if any(job.finished for job in campaign.jobs) else {}
    return [_status(job, repeated.get(job.folder)) for job in campaign.jobs]


def _status(job: Job, stale: str | None) -> Status:
    if job.finished and stale is None:
        return Status(job, "done")
    if holder := owner(job.progress):
        return Status(job, "running", _progress(job, holder))
    if job.finished:
        return Status(job, "stale", stale or "")
    if reason := failure(job.log):
        return Status(job, "failed", reason)
    names = [path.name.removeprefix("step=") for path in (job.progress / STATE).glob("step=*")]
    if steps := [int(name) for name in names if name.isdecimal()]:
        return Status(job, "stopped", f"saved at step {max(steps)}")
    return Status(job, "missing")


def _progress(job: Job, holder: Owner) -> str:
    try:
        lines = (job.progress / PARTIAL).read_bytes().splitlines()
        last = parse_json(lines[-1], Evaluation)
    except (OSError, ValueError, IndexError):  # none yet, or about to be written
        return f"no evaluation yet; {holder}"
    end = job.run.settings.resume + job.run.settings.total_epochs
    return f"epoch {last.epoch:g} of {end}, test accuracy {last.test_accuracy:.4f}; {holder}"


def failure(log: Path) -> str:
    """Return why a run failed; empty for one that was never begun, or was stopped."""
    try:
        lines = log.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    if reasons := [line for line in lines if line.startswith("error: ")]:
        return reasons[-1]
    if any(line.startswith("stopped: ") for line in lines):  # and a traceback of torchrun's
        return ""
    if any("Traceback (most recent call last)" in line for line in lines):
        return f"error: unexpected, see {log}"
    return ""


def show(campaign: Campaign, found: Iterable[Status]) -> Iterator[str]:
    """Format counts per figure, then the runs that are neither done nor missing."""
    by_folder = {status.job.folder: status for status in found}
    yield f"{campaign.config.scale}: {len(by_folder)} runs asked for, start points included"
    yield ""
    figures = campaign.jobs_by_experiment
    width = max(7, *map(len, figures)) + 1
    yield "figure".ljust(width) + "".join(f"{name:>9}" for name in ("runs", *STATES))
    rows = {**figures, "all": campaign.jobs} if len(figures) > 1 else figures
    for name, jobs in rows.items():
        counts = Counter(by_folder[job.folder].state for job in jobs)
        cells = (f"{counts[state] or '·':>9}" for state in STATES)
        yield f"{name:{width}}{len(jobs):9}" + "".join(cells)
    if sum(map(len, figures.values())) > len(by_folder):
        yield "(A run that figures share counts in each, and once in all.)"
    for state in ("running", "failed", "stopped", "stale"):
        chosen = [status for status in by_folder.values() if status.state == state]
        if chosen:
            yield ""
        most = STALE_LINES if state == "stale" else len(chosen)
        for status in chosen[:most]:
            yield wrapped(f"{state:8} {status.job.run.id}  {status.detail}", indent=9)
        for reason, count in Counter(status.detail for status in chosen[most:]).items():
            yield wrapped(f"{state:8} … and {count} more: {reason}", indent=9)
        if chosen and state in NEXT:
            yield wrapped(NEXT[state].format(results=campaign.run_results), indent=0)
    if kept := sum(job.kept for job in campaign.jobs):
        yield ""
        yield wrapped(
            f"{kept} unfinished runs repeat a finished one, whose results are kept until then: "
            f"{campaign.run_results}/checkpoints/<run>/earlier",
            indent=0,
        )
    notices = (held_back(campaign), mixture(job.folder for job in campaign.jobs if job.finished))
    for notice in filter(None, notices):
        yield ""
        yield wrapped(notice, indent=0)


def held_back(campaign: Campaign) -> str:
    """Name the setting for which the next ``snakemake`` trains nothing; empty without one."""
    config = campaign.config
    for name, is_set in (
        ("tables", config.tables is not None),
        ("only_finished", config.only_finished),
    ):
        if is_set:
            return f"{name} is set: until it is not, `snakemake` trains none of these"
    return ""


def wrapped(line: str, indent: int) -> str:
    """Fold ``line`` to the terminal's width; leave it unfolded in a file or a pipe."""
    width = shutil.get_terminal_size((len(line) + 1, 24)).columns
    return textwrap.fill(
        line,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )

"""Report the state of every run that the experiments ask for. Trains, writes and locks nothing.

A run is done when its metrics are there and ``snakemake all`` would keep them, running while its
lock is held (``trainer/run/lock.py``), failed when its log holds the reason of an end before its
time, and stopped when there is no such reason and a checkpoint to go on from.
"""

from __future__ import annotations

import shutil
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import yaml

from trainer.errors import UserError
from trainer.files.atomic import parse_json
from trainer.run.lock import Owner, owner
from trainer.settings.yaml import read_yaml
from trainer.tracking.metrics import Evaluation
from trainer.tracking.run_folder import PARTIAL, STATE
from workflow.commands.commits import mixture
from workflow.commands.dry_run import would_run
from workflow.config import Config, load_config
from workflow.earlier import METRICS, earlier
from workflow.experiments import Experiments, Run, expand, load_experiments, start_points

State = Literal["done", "running", "failed", "stopped", "stale", "missing"]
STATES: tuple[State, ...] = get_args(State)
# One cause makes many stale; `snakemake --dry-run` lists them all.
STALE_LINES = 20
NEXT = {
    "failed": "The next `snakemake` tries again; logs are {results}/logs/<run>.log",
    "stopped": "The next `snakemake` goes on with them",
    "stale": "The next `snakemake` repeats them; `snakemake trained --touch` keeps "
    "those whose inputs are all there",
}


@dataclass(frozen=True)
class Job:
    """A run in its place: a start point or a figure's run, below results/<scale>."""

    run: Run
    role: Literal["start_points", "runs"]
    results: Path

    @property
    def folder(self) -> Path:
        """Of its files once it is finished."""
        return self.results / self.role / self.run.id

    @property
    def progress(self) -> Path:
        return self.results / "checkpoints" / self.run.id

    @property
    def log(self) -> Path:
        return self.results / "logs" / f"{self.run.id}.log"

    @property
    def finished(self) -> bool:
        return (self.folder / METRICS).exists()

    @property
    def kept(self) -> bool:
        """Whether it was finished, and its results are kept while it is repeated."""
        return not self.finished and earlier(self.folder).exists()


@dataclass(frozen=True)
class Asked:
    """What config.yaml, the command line's KEY=VALUE and experiments/<scale>.yaml ask for."""

    config: Config
    experiments: Experiments
    overrides: Sequence[str] = ()

    @property
    def results(self) -> Path:
        return Path("results") / self.config.scale

    @cached_property
    def figures(self) -> dict[str, list[Job]]:
        """The jobs of each figure, start points first; figures may share some."""
        found: dict[str, list[Job]] = {}
        for name, experiment in self.experiments.experiments.items():
            runs = expand(experiment)
            starts = [Job(run, "start_points", self.results) for run in start_points(runs)]
            found[name] = starts + [Job(run, "runs", self.results) for run in runs]
        return found

    @cached_property
    def jobs(self) -> list[Job]:
        """Each once, in the order of the figures."""
        return list({job.folder: job for jobs in self.figures.values() for job in jobs}.values())


@dataclass(frozen=True)
class Status:
    job: Job
    state: State
    detail: str = ""

    @property
    def repeats(self) -> str:
        """Say why the next ``snakemake`` repeats a finished run as it is; empty for others."""
        if self.state == "stale":
            return f"stale: {self.detail}"
        begun = self.job.kept and self.state != "running"
        return "begun anew, and not complete yet" if begun else ""


def load(overrides: Sequence[str]) -> Asked:
    """What is asked for here. Raises UserError for what is wrong with it."""
    values = read_yaml(Path("config.yaml"))
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals:
            raise UserError(f"--config {override}: must be KEY=VALUE, such as scale=paper")
        try:
            # As Snakemake does; this loader knows strings, lists and mappings alone.
            values[name] = yaml.load(value, yaml.BaseLoader)
        except (yaml.YAMLError, RecursionError):
            raise UserError(f"--config {override}: is not valid YAML; mend it") from None
    config = load_config(values)
    return Asked(config, load_experiments(Path("experiments") / f"{config.scale}.yaml"), overrides)


def states(asked: Asked) -> list[Status]:
    """Of every job, in order. Raises UserError when Snakemake refuses to plan."""
    repeated = would_run(asked.overrides) if any(job.finished for job in asked.jobs) else {}
    return [_status(job, repeated.get(job.folder)) for job in asked.jobs]


def _status(job: Job, stale: str | None) -> Status:
    if job.finished and stale is None:
        return Status(job, "done")
    if holder := owner(job.progress):
        return Status(job, "running", _progress(job, holder))
    if job.finished:
        return Status(job, "stale", stale or "")
    if reason := _failure(job.log):
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


def _failure(log: Path) -> str:
    """Why the run ended before its time; empty for one that was never begun, or was stopped."""
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


def show(asked: Asked, found: Iterable[Status]) -> Iterator[str]:
    """Lines for a terminal: counts per figure, then the runs that are neither done nor missing."""
    by_folder = {status.job.folder: status for status in found}
    yield f"{asked.config.scale}: {len(by_folder)} runs asked for, start points included"
    yield ""
    yield "figure".ljust(8) + "".join(f"{name:>9}" for name in ("runs", *STATES))
    rows = {**asked.figures, "all": asked.jobs} if len(asked.figures) > 1 else asked.figures
    for name, jobs in rows.items():
        counts = Counter(by_folder[job.folder].state for job in jobs)
        cells = (f"{counts[state] or '·':>9}" for state in STATES)
        yield f"{name:8}{len(jobs):9}" + "".join(cells)
    if sum(map(len, asked.figures.values())) > len(by_folder):
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
            yield wrapped(NEXT[state].format(results=asked.results), indent=0)
    if kept := sum(job.kept for job in asked.jobs):
        yield ""
        yield wrapped(
            f"{kept} unfinished runs repeat a finished one, whose results are kept until then: "
            f"{asked.results}/checkpoints/<run>/earlier",
            indent=0,
        )
    notices = (held_back(asked), mixture(job.folder for job in asked.jobs if job.finished))
    for notice in filter(None, notices):
        yield ""
        yield wrapped(notice, indent=0)


def held_back(asked: Asked) -> str:
    """Name the setting for which the next ``snakemake`` trains nothing; empty without one."""
    config = asked.config
    for name, is_set in (
        ("tables", config.tables is not None),
        ("only_finished", config.only_finished),
    ):
        if is_set:
            return f"{name} is set: until it is not, `snakemake` trains none of these"
    return ""


def wrapped(line: str, indent: int) -> str:
    """``line``, folded to the terminal's width; into a file or a pipe it goes as it is."""
    width = shutil.get_terminal_size((len(line) + 1, 24)).columns
    return textwrap.fill(
        line,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )

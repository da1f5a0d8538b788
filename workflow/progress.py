"""Show on the terminal what a call of Snakemake does: a line per finished run, figure and data set.

Snakemake's logger is one of Python's. Its records tell of jobs by an ``event``, with the fields
that logger plugins get (https://github.com/snakemake/snakemake-interface-logger-plugins). A plugin
would have to be installed beside Snakemake and named in every profile; so the terminal's handler
is wrapped instead. Snakemake's own log, in .snakemake/log, keeps all that it says of every job.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from workflow.campaign import Campaign
from workflow.commands.plan import samples
from workflow.commands.status import failure
from workflow.time_left import TimeLeft, duration
from workflow.verdicts import verdict_lines

RUNS = ("start_point", "train")
# Jobs that may take minutes; those that are neither these, nor runs or figures, take seconds
LONG = ("prepare", "list_files", "beton", "beton_of_files", "download", "simulation")
CLOCKS_DIFFER_SECONDS = 1.0  # of a file's times and of this machine
NOT_SHOWN = {
    *("progress", "shellcmd", "resources_info", "job_started"),
    *("group_info", "rulegraph"),
}
# How messages without an event begin that say nothing of what was asked for
CHATTER = (
    "Building DAG of jobs",
    "Using shell: ",
    "Conda environments: ignored",
    "Group jobs: inactive",
    "Select jobs to execute",
    "Trying to restart job",
    "Exiting because a job execution failed",
)


class ProgressHandler(logging.Handler):
    """Write lines in place of records of jobs, and pass what remains on to ``terminal``.

    ``planned`` returns the jobs to be done as pairs of rule and run, empty for other jobs.
    """

    def __init__(
        self,
        terminal: logging.Handler,
        planned: Callable[[], Iterable[tuple[str, str]]],
        work: Callable[[str], float],
        logs: str,
        scale: str,
    ) -> None:
        super().__init__()
        self._scale = scale
        self._terminal, self._planned, self._work, self._logs = terminal, planned, work, logs
        self._time = TimeLeft((), work)
        # Each job with when it began, by a clock that nobody sets and by that of files
        self._jobs: dict[int, tuple[Any, float, float]] = {}
        self._failed: set[int] = set()
        self._total = self._done = 0
        self._lines: dict[str, Callable[[Any], str]] = {
            "run_info": self._plan,
            "job_info": self._begun,
            "job_finished": self._finished,
            "job_error": self._failure,
            "group_error": self._group_failure,
        }

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        if event in self._lines:
            if line := self._lines[event](record):
                level = record.levelname if record.levelno > logging.INFO else "none"  # no colour
                line = f"[{time.strftime('%H:%M:%S')}] {line}"
                record = logging.makeLogRecord({"msg": line, "levelname": level})
                self._terminal.handle(record)
        elif event not in NOT_SHOWN and not _is_chatter(record):
            self._terminal.handle(record)

    def _plan(self, record: Any) -> str:
        jobs = list(self._planned())
        self._time = TimeLeft((run for rule, run in jobs if rule in RUNS), self._work)
        self._total = len(self._time.waiting)
        count = Counter(rule for rule, _ in jobs)
        names = {"start_point": "start point", "train": "run", "figure": "figure"}
        found = [
            f"{count[rule]} {name}{'s' * (count[rule] > 1)}"
            for rule, name in names.items()
            if count[rule]
        ]
        status = f"`make status SCALE={self._scale}`"
        follow = f"; {status} and {self._logs}/<run>.log follow the runs" * bool(self._total)
        return f"To make: {', '.join(found)}{follow}" if found else ""

    def _begun(self, record: Any) -> str:
        self._jobs[record.jobid] = record, time.monotonic(), time.time()
        if record.rule_name in RUNS:
            self._time.begin(record.wildcards["run"], time.monotonic())
        again = record.jobid in self._failed
        self._failed.discard(record.jobid)
        return f"again: {_name(record)}" if again else ""

    def _finished(self, record: Any) -> str:
        job, begun, _ = self._jobs.pop(record.job_id)
        now = time.monotonic()
        took = duration(now - begun)
        if job.rule_name in RUNS:
            self._time.end(job.wildcards["run"], now)
            self._done += 1
            return f"{self._counts(now)}: {_name(job)} took {took}"
        if job.rule_name == "figure":
            return f"figure: {job.output[0]}"
        return f"{_name(job)} took {took}" if job.rule_name in LONG else ""

    def _counts(self, now: float) -> str:
        running, left = len(self._time.running), len(self._time.waiting)
        failed = self._total - self._done - running - left
        counts = f"{self._done} of {self._total} runs done"
        if not running and not left:
            return counts + f", {failed} failed" * bool(failed)
        ahead = f"{running} running, {left} left, about {duration(self._time.seconds(now))}"
        return f"{counts}, {ahead}" + f", {failed} failed" * bool(failed)

    def _failure(self, record: Any) -> str:
        self._failed.add(record.jobid)
        job, *_ = self._jobs.get(record.jobid, (record,))
        if job.rule_name in RUNS:
            self._time.fail(job.wildcards["run"])
        log = record.log[0] if record.log else self._logs
        written = self._has_written(record.jobid, Path(log))
        # The shell of a job on this machine has written the reason to this terminal. A scheduler
        # knows one, too, such as a node that went down.
        elsewhere = not getattr(job, "local", False)
        told = failure(Path(log)) if written else ""
        reasons = (told, getattr(record, "rule_msg", "") or "") if elsewhere else ()
        said = [" ".join(reason.split()) for reason in reasons if reason]
        ended = _ended(Path(log)) if written else "failed"
        # Snakemake reports every member of a group, finished and never begun ones included.
        if getattr(record, "indent", False) and not said and ended == "failed":
            return ""
        return "; ".join([f"{ended}: {_name(job)}", *said, f"log: {log}"])

    def _group_failure(self, record: Any) -> str:
        """Report the group where no member's log gives a reason, as when a node went down."""
        members = record.job_error_info
        logs = [
            Path(log)
            for member in members
            for log in member["log"][:1]
            if self._has_written(member["jobid"], Path(log))
        ]
        if any(failure(log) or _ended(log) == "stopped" for log in logs):
            return ""
        begun = [self._jobs[each["jobid"]] for each in members if each["jobid"] in self._jobs]
        names = [_name(job) for job, *_ in begun]
        found = f"failed: {len(members)} jobs that share one of the cluster ({', '.join(names)})"
        return "; ".join([found, *(f"log: {log}" for log in record.aux_logs)])

    def _has_written(self, jobid: int, log: Path) -> bool:
        """Tell a log of this attempt from one that an earlier attempt has left."""
        *_, begun = self._jobs.get(jobid, (0.0,))
        return log.exists() and log.stat().st_mtime >= begun - CLOCKS_DIFFER_SECONDS


def show_progress(workflow: Any, campaign: Campaign) -> None:
    """Replace the terminal's handler, unless an option asks for more, or for less, than the lines.

    ``workflow`` is Snakemake's. Another handler than its own, a logger plugin's, stays.
    """
    settings, logger = workflow.output_settings, workflow.logger_manager.logger
    asked = ("dryrun", "verbose", "printshellcmds", "debug_dag", "show_failed_logs")
    quiet = {choice.name.lower() for choice in settings.quiet or ()}
    if any(getattr(settings, name) for name in asked) or quiet - {"host", "reason"}:
        return
    if not workflow.is_main_process:  # but a cluster's job
        return

    def planned() -> Iterator[tuple[str, str]]:
        for job in workflow.dag.needrun_jobs():
            yield job.rule.name, job.wildcards.get("run", "")

    def work(run: str) -> float:
        return samples(campaign.all_runs[run].settings) or 1

    for handler in list(logger.handlers):
        if handler.name == "DefaultStreamHandler":
            logger.removeHandler(handler)
            logs = f"{campaign.config.results}/logs"
            scale = campaign.config.scale
            logger.addHandler(ProgressHandler(handler, planned, work, logs, scale))


def show_verdicts(workflow: Any, campaign: Campaign) -> None:
    """Print what claims.csv found, where the targets ask for it."""
    claims = campaign.config.results / "claims.csv"
    if claims.exists() and any(job.rule.name == "judge" for job in workflow.dag.jobs):
        print(*verdict_lines(claims), sep="\n", flush=True)


def _is_chatter(record: logging.LogRecord) -> bool:
    message = str(record.msg)
    command = (
        getattr(record, "exception", "") == "RuleException" and "CalledProcessError" in message
    )
    return command or message.startswith(CHATTER)


def _ended(log: Path) -> str:
    """Tell a run that Ctrl-C or its time limit stopped from one that failed."""
    lines = log.read_text("utf-8", "replace").splitlines() if log.is_file() else []
    return "stopped" if any(line.startswith("stopped: ") for line in lines) else "failed"


def _name(job: Any) -> str:
    """Name a job by its run, or by the first of its files."""
    if job.rule_name in RUNS:
        return f"{job.wildcards['run']}{' (start point)' * (job.rule_name == 'start_point')}"
    return f"{job.rule_name} {', '.join(job.output[:1])}".strip()

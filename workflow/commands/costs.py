"""Estimate what a scale's figures cost, before any run.

Operations are PyTorch's count (``torch.utils.flop_counter``) of a forward and a backward pass on
meta tensors, times the samples that a run trains on; evaluations are left out. Hours on a CPU are
measured (``workflow/commands/hours.py``), those on GPUs follow from the operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trainer.settings.run import RunSettings
from workflow.allocation import allocate_here
from workflow.campaign import Campaign
from workflow.commands.hours import Durations
from workflow.commands.status import wrapped
from workflow.commands.work import count_samples, count_work, model_cost
from workflow.experiments import Experiments, expand, start_points

BYTES = 4  # per parameter sent
# Sustained in training by a GPU: small networks on small images; large ones in mixed precision
TERA_PER_SECOND = (3, 30)


@dataclass(frozen=True)
class Cost:
    """Hold the cost of one figure: ``runs`` runs, start points included.

    ``operations``: floating-point operations of all runs. ``sent``: the smallest and largest number
    of bytes that a client sends in a run.
    """

    figure: str
    runs: int
    operations: float
    sent: tuple[int, int]

    def hours(self, tera_per_second: float) -> float:
        return self.operations / (tera_per_second * 1e12) / 3600


def costs(experiments: Experiments) -> Iterator[Cost]:
    """Estimate the cost per figure; shared runs count for each. Raises UserError without data."""
    for name, experiment in experiments.experiments.items():
        runs = expand(experiment)
        settings = [run.settings for run in [*start_points(runs), *runs]]
        sent = [_bytes_sent(each) for each in settings]
        operations = sum(map(_operations, settings))
        yield Cost(name, len(settings), operations, (min(sent), max(sent)))


def show(campaign: Campaign) -> Iterator[str]:
    """Format the costs as a table in Markdown: hours of a scale for the CPU, else GPU-hours."""
    found = list(costs(campaign.experiments))
    if campaign.execution.device == "cpu":
        yield from _show_hours(campaign, found)
        return
    speeds = " | ".join(f"GPU-hours at {speed}·10¹² a second" for speed in TERA_PER_SECOND)
    yield f"| figure | runs | operations | {speeds} | sent by each client of a run |"
    yield "| --- | --- | --- |" + " --- |" * len(TERA_PER_SECOND) + " --- |"
    for cost in found:
        hours = " | ".join(f"{cost.hours(speed):,.1f}" for speed in TERA_PER_SECOND)
        yield _line(f"`{cost.figure}`", cost.runs, cost.operations, hours, _sent([cost]))


def _show_hours(campaign: Campaign, found: list[Cost]) -> Iterator[str]:
    durations = Durations(allocate_here(campaign))
    cores = durations.cores
    on = f"this machine's {cores} cores" if cores > 1 else "this machine's one core"
    yield f"| figure | runs | operations | hours on {on} | sent by each client of a run |"
    yield "| --- | --- | --- | --- | --- |"
    for cost in found:
        hours = durations.hours(campaign.runs_by_experiment[cost.figure])
        yield _line(f"`{cost.figure}`", cost.runs, cost.operations, _hours(hours), _sent([cost]))
    runs = campaign.all_runs.values()
    operations = sum(_operations(run.settings) for run in runs)
    hours = durations.hours(list(campaign.runs.values()))
    yield _line("all", len(runs), operations, _hours(hours), _sent(found))
    yield ""
    yield wrapped(
        "all: runs that figures share count once. Hours: training with its input, averaging, "
        "evaluations and sharpness, at speeds just measured here, with up to "
        f"{durations.at_once} runs at once. Not in them: the start of each run, decoding of image "
        "files, communication between processes, checkpoints, drawing. Other work on the machine "
        "makes it longer; a run that diverges ends earlier.",
        indent=0,
    )


def _line(figure: str, runs: int, operations: float, hours: str, sent: str) -> str:
    return f"| {figure} | {runs} | {operations:.1e} | {hours} | {sent} |"


def _hours(hours: float) -> str:
    return f"{hours:,.{1 if hours >= 10 else 2}f}"


def _sent(found: list[Cost]) -> str:
    """Format the smallest and the largest number of bytes that a client sends in a run."""
    ends = min(cost.sent[0] for cost in found), max(cost.sent[1] for cost in found)
    least, most = (f"{sent / 1e9:,.{0 if sent > 1e10 else 2}f}" for sent in ends)
    return f"{least} to {most} GB"


def _operations(settings: RunSettings) -> float:
    return count_samples(settings) * model_cost(settings.model, settings.data, settings.n_groups)[0]


def _bytes_sent(settings: RunSettings) -> int:
    """Count the bytes that a client sends: its parameters once a round."""
    parameters = model_cost(settings.model, settings.data, settings.n_groups)[1]
    return count_work(settings).rounds * BYTES * parameters

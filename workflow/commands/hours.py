"""Estimate how long experiments take on this machine's CPU, from measured speeds."""

from __future__ import annotations

import multiprocessing
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from heapq import heappop, heappush

from workflow.allocation import Allocation
from workflow.commands.speed import Kind, kind_of, measure
from workflow.commands.work import count_work
from workflow.experiments import RunSpec, start_points


class Durations:
    """Estimate how long the runs of a campaign take.

    Each kind of run is measured once, as many kinds at once as the campaign trains runs: these
    share caches and memory, which makes each slower.
    """

    def __init__(self, allocation: Allocation) -> None:
        allocation.campaign.check_clients()
        self._allocation = allocation
        self.cores = allocation.all_cores
        runs = allocation.campaign.all_runs.values()
        self._kinds = {run.id: self._kind(run) for run in runs}
        needed: dict[Kind, set[str]] = defaultdict(set)
        for run in runs:
            needed[self._kinds[run.id]] |= _counts(run).keys()
        self.at_once = allocation.at_once(len(allocation.campaign.runs))
        # Forks would inherit locks of this process's threads.
        spawned = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(self.at_once, len(needed)), spawned) as pool:
            names = map(frozenset, needed.values())
            self._speeds = dict(zip(needed, pool.map(measure, needed, names), strict=True))

    def seconds(self, run: RunSpec) -> float:
        """Estimate the seconds from a run's first step to its last evaluation."""
        speed = self._speeds[self._kinds[run.id]]
        return sum(count * speed[name] for name, count in _counts(run).items())

    def hours(self, runs: list[RunSpec]) -> float:
        """Estimate the hours of ``runs`` and their start points on all cores."""
        return makespan(runs, self.seconds, self._threads, self.cores) / 3600

    def _kind(self, run: RunSpec) -> Kind:
        threads, _ = self._allocation.divide_threads(run, self._threads(run))
        processes = self._allocation.campaign.processes(run)
        return kind_of(run.settings, count_work(run.settings), processes, threads)

    def _threads(self, run: RunSpec) -> int:
        """Return the threads of a run's job, which all of its like may be executed beside."""
        campaign = self._allocation.campaign
        like = campaign.runs if run.id in campaign.runs else campaign.start_points
        return self._allocation.threads(like, run.id)


def makespan(
    runs: list[RunSpec],
    seconds: Callable[[RunSpec], float],
    threads: Callable[[RunSpec], int],
    cores: int,
) -> float:
    """Return when the last of ``runs`` ends if each takes ``seconds`` on ``threads`` of the cores.

    Start points first, each once; a run begins once its start point has ended.
    """
    free = [0.0] * cores
    ends: dict[str, float] = {}
    for run in [*start_points(runs), *{run.id: run for run in runs}.values()]:
        taken = [heappop(free) for _ in range(min(threads(run), cores))]
        start = ends[run.start.id] if isinstance(run.start, RunSpec) else 0.0
        ends[run.id] = max(*taken, start) + seconds(run)
        for _ in taken:
            heappush(free, ends[run.id])
    return max(ends.values())


def _counts(run: RunSpec) -> dict[str, int]:
    """Count what a run does of what ``Speed`` measures, by name; without what it does not do."""
    work = count_work(run.settings)
    counts = {
        "single_step": work.single_steps,
        "local_step": work.local_steps,
        "averaging": work.long_rounds,
        "export": work.exports,
        "evaluation": work.evaluations,
        "gradient": work.evaluations * (work.products > 0),
        "product": work.evaluations * work.products,
    }
    return {name: count for name, count in counts.items() if count}

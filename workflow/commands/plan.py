"""Plan what the next call of Snakemake would train, and which finished runs it repeats.

A run is identified by its content, so a changed setting names another run. It repeats a finished
one of the same data set, model, K, H and seed that no experiment asks for any more.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from trainer.data.beton.sidecar import read_sidecar, sidecar_path
from trainer.settings.run import RESULT_SETTINGS, RESULTS_VERSION, RunSettings
from workflow.allocation import allocate_here
from workflow.campaign import Campaign
from workflow.commands.status import Status, held_back, states, wrapped
from workflow.experiments import DEFAULT, RunSpec
from workflow.job import Job

Kind = tuple[str, str]


@dataclass(frozen=True)
class Finished:
    """Read a finished run on the disk, whether or not an experiment asks for it."""

    folder: Path

    @property
    def slot(self) -> tuple[str, str]:
        """Return the role, and the id without its hash."""
        return self.folder.parent.name, _slot(self.folder.name)

    def read(self, name: str) -> dict[str, Any]:
        """Read the JSON file ``name`` of the run; empty when it is missing or damaged."""
        try:
            content = json.loads((self.folder / name).read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def pace(self) -> float | None:
        """Return the seconds per sample; None where a file is missing or damaged."""
        try:
            lines = (self.folder / "metrics.jsonl").read_text("utf-8").splitlines()
            samples = json.loads(lines[-1])["step"] * self.read("settings.json")["total_batch_size"]
            return float(self.read("provenance.json")["seconds"] / samples)
        except (OSError, ValueError, LookupError, TypeError, ZeroDivisionError):
            return None


@dataclass(frozen=True)
class Estimate:
    """Estimate the time of ``runs`` runs, one after the other, from ``basis`` finished ones."""

    seconds: float
    runs: int
    basis: int


@dataclass(frozen=True)
class WorkPlan:
    campaign: Campaign
    statuses: list[Status]
    # Maps each finished run that another replaces to the settings in which they differ
    replaced: dict[Path, tuple[str, ...]]
    left_over: list[Path]
    estimate: Estimate
    at_once: int

    def jobs_in(self, *wanted: str) -> list[Job]:
        return [status.job for status in self.statuses if status.state in wanted]


def make_plan(campaign: Campaign) -> WorkPlan:
    statuses = states(campaign)
    to_train = [s.job for s in statuses if s.state not in ("done", "running")]
    here = [
        Finished(path.parent) for path in sorted(campaign.run_results.glob("*/*/metrics.jsonl"))
    ]
    wanted = {job.folder for job in campaign.jobs}
    unrequested = [finished for finished in here if finished.folder not in wanted]
    new = [job for job in to_train if not job.finished]
    replaced = replacements(new, unrequested)
    return WorkPlan(
        campaign=campaign,
        statuses=statuses,
        replaced=replaced,
        left_over=[f.folder for f in unrequested if f.folder not in replaced],
        estimate=estimate(to_train, here, campaign.start_seconds),
        at_once=allocate_here(campaign).at_once(len(to_train)),
    )


def replacements(new: list[Job], unrequested: list[Finished]) -> dict[Path, tuple[str, ...]]:
    """Map finished runs that a new run of the same slot replaces to how the two differ.

    Where several share a slot, those that differ least are paired, each once.
    """
    by_slot = defaultdict(list)
    for finished in unrequested:
        by_slot[finished.slot].append(finished)
    pairs = []
    for job in new:
        for finished in by_slot[job.role, _slot(job.run.id)]:
            pairs.append((differences(finished, job.run), finished.folder, job.folder))
    found: dict[Path, tuple[str, ...]] = {}
    served = set()
    for differing, old, folder in sorted(pairs, key=lambda pair: len(pair[0])):
        if old not in found and folder not in served:
            found[old] = differing
            served.add(folder)
    return found


def differences(finished: Finished, run: RunSpec) -> tuple[str, ...]:
    """List the result settings that differ, as ``name old → new``."""
    before = finished.read("settings.json")
    if not before:
        return ("unknown settings: settings.json is missing or damaged",)
    # A setting that did not exist then had the effect of its present default.
    old = DEFAULT.result_settings() | {
        name: before[name] for name in RESULT_SETTINGS if name in before
    }
    new = run.settings.result_settings()
    found = [f"{name} {_word(old[name])} → {_word(new[name])}" for name in new
             if old[name] != new[name]]  # fmt: skip
    version = before.get("results_version")
    if version != RESULTS_VERSION:
        found.append(f"results_version {_word(version)} → {RESULTS_VERSION}")
    start = Path(str(before.get("resume_pth"))).parent.name
    if isinstance(run.start, RunSpec) and start != run.start.id:
        found.append("another start point")
    return tuple(found) or ("settings that were added or removed since",)


def _slot(run: str) -> str:
    """Return dataset-model-K-H-seed of a run's id."""
    return run.rpartition("-")[0]


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def estimate(to_train: list[Job], finished: list[Finished], start: float) -> Estimate:
    """Estimate from the median time per sample of finished runs of the same model and data set.

    Runs of the same K, H and measurements, which decide a step's cost, are preferred.
    """
    paces: dict[Kind, dict[Path, float]] = defaultdict(dict)
    for run in finished:
        if (pace := run.pace()) is not None:
            for kind in _kinds(run.slot[1], run.read("settings.json")):
                paces[kind][run.folder] = pace
    total, known = 0.0, 0
    basis: set[Path] = set()
    for job in to_train:
        seen = samples(job.run.settings)
        kinds = _kinds(_slot(job.run.id), job.run.settings.model_dump())
        found = next((paces[kind] for kind in kinds if kind in paces), None)
        if found is not None and seen is not None:
            total += start + median(found.values()) * seen
            known += 1
            basis |= found.keys()
    return Estimate(total, known, len(basis))


def _kinds(slot: str, settings: dict[str, Any]) -> tuple[Kind, Kind]:
    """Key runs by what a step's cost depends on: by all of it, and by data set and model."""
    without_seed = slot.rpartition("-")[0]
    return (
        (without_seed, str(settings.get("sharpness"))),
        (str(settings.get("dataset")), str(settings.get("model"))),
    )


def samples(settings: RunSettings) -> int | None:
    """Count the samples that a run trains on, repeats included; None without prepared data."""
    batch, epochs = settings.total_batch_size, settings.total_epochs
    if settings.steps_per_epoch is not None:
        return epochs * settings.steps_per_epoch * batch
    available = settings.train_subset
    if available is None:
        beton = settings.betons[0]
        if not sidecar_path(beton).exists():
            return None
        available = read_sidecar(beton).samples
    return epochs * (available // batch) * batch


def show(plan: WorkPlan) -> Iterator[str]:
    """Format the plan for a terminal."""
    done = plan.jobs_in("done")
    again = Counter(status.repeats for status in plan.statuses if status.repeats)
    to_train = plan.jobs_in("stale", "failed", "stopped", "missing")
    running = len(plan.jobs_in("running"))
    results = plan.campaign.run_results
    yield (
        f"{results.name}: {len(plan.statuses)} runs asked for, start points included: "
        f"{len(done)} finished and kept, {f'{running} running, ' if running else ''}"
        f"{len(to_train)} to be trained"
    )
    ways = {"with other settings": len(plan.replaced), "as they are": again.total()}
    how = ", ".join(f"{count} {way}" for way, count in ways.items() if count)
    yield f"{sum(ways.values()) or 'none'} of these repeat a finished run{': ' if how else ''}{how}"
    for differing, count in Counter(plan.replaced.values()).most_common():
        yield wrapped(f"{count:5}  {', '.join(differing)}", indent=7)
    for reason, count in again.most_common():
        yield wrapped(f"{count:5}  {reason}", indent=7)
    if unrequested := len(plan.replaced) + len(plan.left_over):
        yield wrapped(
            f"{unrequested} finished runs that nothing asks for stay in {results} until you delete "
            "them; undo the edit, and they are found again",
            indent=0,
        )
    yield wrapped(_time(plan, len(to_train)), indent=0)


def _time(plan: WorkPlan, to_train: int) -> str:
    known = plan.estimate
    if held := held_back(plan.campaign):
        return f"time: none, {held}"
    if not to_train:
        return "time: none, nothing is to be trained"
    if not known.runs:
        return "time: unknown, no run of these models and data sets is finished here"
    some = "" if known.runs == to_train else f" for {known.runs} of the {to_train} runs"
    return (
        f"time: about {_duration(known.seconds / plan.at_once)}{some}, {plan.at_once} at once; by "
        f"the time per sample of {known.basis} finished runs of the same models and data sets, "
        f"plus {plan.campaign.start_seconds:g} s each to start"
    )


def _duration(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.0f} h"

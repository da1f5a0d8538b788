"""Train as much of Figure 1(a) of scale `authors`, seed 1, as fits; the next call resumes.

H = 1 gets half of the time that is left, and what it leaves of it goes to H = 600. A dry run
trains a small network on the digits instead, by the same commands.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from bench.digits import prepare_digits
from bench.gpu.machine import installed
from bench.gpu.stages import Outcome, Site, State
from trainer.errors import STOPPED_STATUS
from trainer.settings.run import RunSettings
from workflow.experiments import RunSpec, expand, load_experiments
from workflow.paths import ROOT
from workflow.published import PublishedCheckpoint, fetch

RESULTS = ("metrics.jsonl", "settings.json", "provenance.json")
PARTIAL = "metrics.partial.jsonl"
LEAVE_SECONDS = 30.0  # to save a checkpoint, and for the report
FEWEST_SECONDS = 60.0


def run_figure(site: Site) -> Outcome:
    """Train the two runs one after the other."""
    if reason := _missing(site):
        return Outcome(state="left out", summary="not trained", left_out=[reason])
    specs = _stand_in() if site.dry_run else _figure()
    states, lines, failed = [], [], []
    for remaining, (name, run) in zip(range(len(specs), 0, -1), specs.items(), strict=True):
        seconds = (site.seconds_left() - LEAVE_SECONDS) / remaining
        status = _train(site, name, run, seconds)
        states.append(status)
        lines.append(f"{name}: {_describe(site.out / name, run.settings)}")
        if status not in (0, None, STOPPED_STATUS):
            said = (site.out / f"{name}.log").read_text("utf-8", "replace").splitlines()
            failed.append(f"{name}: {said[-1] if said else f'exit status {status}'}")
    state: State = "failed" if failed else "stopped" if any(s != 0 for s in states) else "done"
    return Outcome(state=state, summary="; ".join(lines), failed=failed)


def _missing(site: Site) -> str | None:
    """Say what the runs lack on this machine; get their start point if a folder has it."""
    if site.dry_run:
        lacking = [name for name in ("ffcv", "sklearn") if not installed(name)]
        needs = f"needs {' and '.join(lacking)}, to prepare the digits"
        return f"the stand-in of Figure 1(a): {needs}" if lacking else None
    if not all((site.data / f"{split}.beton").exists() for split in ("train", "test")):
        return (
            f"Figure 1(a): needs CIFAR-10 prepared in {site.data}; run `snakemake --config "
            "scale=authors -- resources/cifar10/train.beton` where there is a network, and copy it"
        )
    start = next(iter(_figure().values())).start
    assert isinstance(start, PublishedCheckpoint)
    path = site.checkpoints / start.path.name
    if not path.exists() or not start.checksum.fits(path):
        return f"Figure 1(a): needs the authors' {path.name} in {site.checkpoints}"
    return None


def _figure() -> dict[str, RunSpec]:
    experiments = load_experiments(ROOT / "experiments" / "authors.yaml").experiments
    runs = [run for run in expand(experiments["fig1a"]) if run.settings.seed == 1]
    return {f"fig1a-H{run.settings.phases[0].local_steps}": run for run in runs}


def _stand_in() -> dict[str, RunSpec]:
    common = {"dataset": "digits", "model": "mlp", "batch_size": 8, "total_batch_size": 32,
              "epochs": 4, "steps_per_epoch": 20}  # fmt: skip
    hs = {1: 40, 20: 2}
    settings = {h: RunSettings(**common, step1=h, eval_freq1=freq) for h, freq in hs.items()}
    return {f"stand-in-H{h}": RunSpec(s) for h, s in settings.items()}


def _train(site: Site, name: str, run: RunSpec, seconds: float) -> int | None:
    """Train for so long; copy what can be committed. Return the status of the trainer."""
    out, progress, published = site.out / name, site.state / name, site.state / f"{name}-whole"
    if (out / RESULTS[0]).exists():
        return 0
    if seconds < FEWEST_SECONDS:
        return STOPPED_STATUS
    data = site.data
    if site.dry_run:
        data = site.state / "digits"
        if not (data / "test.beton.json").exists():
            prepare_digits(data)
    options = {
        "data-pth": data,
        "log-pth": progress,
        "out": published,
        "device": "cpu" if site.dry_run else "cuda",
        "time-limit": seconds / 60,
        "checkpoint-every": 2,
    }
    words = [*shlex.split(run.options()), *_start(site, run)]
    words += [word for key, value in options.items() for word in (f"--{key}", str(value))]
    try:
        return site.run(
            ["-m", "trainer", "train", *words], f"{name}.log", seconds + LEAVE_SECONDS / 2
        )
    finally:  # also what Ctrl-C has stopped
        _copy_results(published, progress, out)


def _copy_results(published: Path, progress: Path, out: Path) -> None:
    """Copy what can be committed: the results or, of a run that is not complete, its metrics."""
    out.mkdir(exist_ok=True)
    for source in (published / file for file in RESULTS):
        if source.exists():
            shutil.copyfile(source, out / source.name)
    if (progress / PARTIAL).exists():
        shutil.copyfile(progress / PARTIAL, out / PARTIAL)
    elif (out / RESULTS[0]).exists():
        (out / PARTIAL).unlink(missing_ok=True)


def _start(site: Site, run: RunSpec) -> Iterator[str]:
    if isinstance(run.start, PublishedCheckpoint):
        path = site.checkpoints / run.start.path.name
        fetch(run.start.model_copy(update={"path": path, "url": None}), None)  # verified
        yield from ("--resume-pth", str(path))


def _describe(out: Path, settings: RunSettings) -> str:
    """Say how far a curve has come, with the number of its steps."""
    whole = out / RESULTS[0]
    file = whole if whole.exists() else out / PARTIAL
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    assert settings.steps_per_epoch is not None
    total = settings.total_epochs * settings.steps_per_epoch
    if not lines:
        return f"nothing evaluated yet, of {total} steps"
    last = json.loads(lines[-1])
    accuracy = f"test accuracy {last['test_accuracy']:.4f}"
    return f"{last['step']} of {total} steps evaluated, {len(lines)} times, {accuracy} at the last"

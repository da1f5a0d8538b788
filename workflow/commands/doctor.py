"""Check whether this machine has what the scale needs, without writing or network."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from trainer.errors import UserError
from workflow.allocation import allocate_here
from workflow.campaign import Campaign, load_campaign
from workflow.commands.installation import SET_UP, Check, Level, check_installation, run_python
from workflow.commands.starting import check_start, existing, writable
from workflow.commands.wandb_copy import wandb_copy
from workflow.machine import visible_gpus
from workflow.published import copies

# Prepared arrays and .beton files; CIFAR-10's archive on top. ImageNet's 1.33 million images are
# guessed at 500 × 375 pixels, half of them as JPEG of a sixth of that; `beton` measures some.
DATA_BYTES = {
    "digits": 10e6,
    "cifar10": 0.17e9 + 2 * 60_000 * 3_073,
    "photos": 15e6,
    "imagenet": 1.33e6 * 500 * 375 * 3 * (1 + 1 / 6) / 2,
}
INSTALLED = {"digits": "scikit-learn", "photos": "scikit-image and scikit-learn"}
# Memory of a process with ResNet-56, torch and the activations of one pass included (`make bench`)
PROCESS_BYTES = 1.2e9
# Copies of a client's model in memory: parameters, gradients, momentum
CLIENT_COPIES = 3
# Checkpoints on the disk: the two that a run keeps to resume from, and the one being written
CHECKPOINTS = 3
# Metrics, logs, settings, share of tables and figures
RUN_BYTES = 1e6
MODEL_SETTINGS = ("model", "dataset", "image_size", "num_classes", "n_groups")
PROBE = """
import json, sys, torch
from trainer.settings.run import RunSettings
from trainer.models.registry import build
sizes = [
    sum(t.nbytes for t in build(s.model, s.data, 0, s.n_groups).state_dict().values())
    for s in (RunSettings(**given) for given in json.loads(sys.argv[1]))
]
print(json.dumps({"gpus": torch.cuda.device_count(), "cuda": torch.version.cuda, "sizes": sizes}))
"""


def checks(overrides: Sequence[str]) -> Iterator[Check]:
    """Yield the checks one after the other, since some take seconds."""
    yield from check_installation()
    yield from check_start()
    try:
        campaign = load_campaign(overrides)
    except UserError as error:
        yield Check("problem", "settings", f"{error}; correct it, then run the doctor again")
        return
    yield Check(
        "ok", "settings", f"config.yaml, experiments/{campaign.config.scale}.yaml are valid"
    )
    yield _processes(campaign)
    models = {
        job.run.settings.model: {name: getattr(job.run.settings, name) for name in MODEL_SETTINGS}
        for job in campaign.jobs
    }
    printed, reason = run_python(PROBE, json.dumps([*models.values()]))
    if reason:
        text = f"cannot be imported, or build the models: {reason}; {SET_UP}"
        yield Check("problem", "torch", text)
        return
    probe = json.loads(printed)
    sizes = dict(zip(models, probe["sizes"], strict=True))
    yield _devices(campaign, probe)
    yield _cores(campaign)
    yield _memory(campaign, sizes)
    yield writable("results")
    yield writable("resources")
    yield _results_disk(campaign, sizes)
    yield from _data(campaign)
    yield from _start_points(campaign)
    yield wandb_copy(campaign)


def verdict(levels: Sequence[Level]) -> str:
    problems, warnings = levels.count("problem"), levels.count("warning")
    return f"{problems} problem(s), {warnings} warning(s)"


def _processes(campaign: Campaign) -> Check:
    try:
        campaign.check_clients()
    except UserError as error:
        return Check("problem", "processes", str(error))
    return Check("ok", "processes", f"{campaign.execution.processes} for each run")


def _devices(campaign: Campaign, probe: dict[str, Any]) -> Check:
    device, processes = campaign.execution.device, campaign.execution.processes
    installed, usable = visible_gpus(), probe["gpus"]
    if device == "cpu":
        unused = f"; {installed} GPU(s) left alone" if installed else ""
        return Check("ok", "devices", f"the CPU, as requested{unused}")
    if installed and not usable:
        return Check(
            "problem",
            "devices",
            f"nvidia-smi lists {installed} GPU(s), torch (CUDA {probe['cuda']}) can use none; "
            "update the NVIDIA driver or install torch for its CUDA version",
        )
    if not usable:
        level: Level = "problem" if device == "cuda" else "warning"
        return Check(
            level,
            "devices",
            f"no GPU, device is {device}; set device cpu, or add a GPU",
        )
    if processes > min(installed or usable, usable):
        return Check(
            "problem",
            "devices",
            f"{processes} processes need a GPU each, {usable} can be used; lower processes, or set "
            "device cpu",
        )
    return Check("ok", "devices", f"{usable} GPU(s), CUDA {probe['cuda']}")


def _cores(campaign: Campaign) -> Check:
    cores = len(os.sched_getaffinity(0))
    runs = allocate_here(campaign).at_once(len(campaign.jobs))
    threads, processes = campaign.execution.threads, campaign.execution.processes
    text = f"{cores}; {runs} run(s) at once, each of {processes} process(es)"
    if processes * (threads or 1) > cores:
        wanted = f"{processes} process(es) of {threads or 1} thread(s)"
        return Check("warning", "cores", f"{cores}, a run is {wanted}; lower processes or threads")
    return Check("ok", "cores", text)


def _memory(campaign: Campaign, sizes: dict[str, int]) -> Check:
    free = psutil.virtual_memory().available
    settings = [job.run.settings for job in campaign.jobs]
    clients = max(CLIENT_COPIES * s.num_clients * sizes[s.model] for s in settings)
    runs = allocate_here(campaign).at_once(len(campaign.jobs))
    needed = runs * (campaign.execution.processes * PROCESS_BYTES + clients)
    text = (
        f"{_size(free)} free, about {_size(needed)} needed by {runs} run(s) at once: "
        f"{_size(PROCESS_BYTES)} a process as measured with ResNet-56, and {CLIENT_COPIES} copies "
        "of each client's model"
    )
    if free >= needed:
        return Check("ok", "memory", text)
    return Check("warning", "memory", f"{text}; run fewer at once (snakemake --cores)")


def _results_disk(campaign: Campaign, sizes: dict[str, int]) -> Check:
    needed, runs, state = 0.0, 0, 0.0
    for job in campaign.jobs:
        if not job.finished:
            s = job.run.settings
            # model.pt, latest.pt, one at each decay and, without a start point, init.pt
            models = 2 + len(s.phases) - 1 + (job.run.start is None)
            needed += models * sizes[s.model] + RUN_BYTES
            runs += 1
            # At the end of a round: the averaged model of each process, each client's momentum
            replicas = campaign.execution.processes + (s.num_clients if s.momentum else 0)
            state = max(state, replicas * sizes[s.model])
    now = allocate_here(campaign).at_once(max(1, runs))
    needed += now * CHECKPOINTS * state
    basis = (
        f"for {runs} runs not finished yet: their models, {_size(RUN_BYTES)} each, and the "
        f"checkpoints of {now} at once"
    )
    return _disk("disk", Path("results"), needed, basis)


def _disk(subject: str, folder: Path, needed: float, basis: str) -> Check:
    free = shutil.disk_usage(existing(folder)).free
    text = f"{_size(free)} free at {folder}/, about {_size(needed)} needed {basis}"
    if free < needed:
        return Check("problem", subject, f"{text}; make room")
    return Check("ok", subject, text)


def _data(campaign: Campaign) -> Iterator[Check]:
    for dataset in sorted({job.run.settings.dataset for job in campaign.jobs}):
        folder = Path("resources") / dataset
        if all((folder / f"{split}.beton").exists() for split in ("train", "test")):
            yield Check("ok", "data", f"{dataset} is prepared in {folder}/")
            continue
        yield _source(campaign, dataset)
        if dataset not in DATA_BYTES:
            yield Check("warning", "data", f"{dataset}: its size is unknown")
            continue
        basis = f"for {dataset}: arrays and .beton files" + (
            ", and the archive" if dataset == "cifar10" else ""
        )
        yield _disk("disk", folder, DATA_BYTES[dataset], basis)


def _source(campaign: Campaign, dataset: str) -> Check:
    if dataset in INSTALLED:
        return Check("ok", "data", f"{dataset} come with {INSTALLED[dataset]}; no download")
    source = campaign.config.source(dataset)
    if source is None and dataset != "cifar10":
        text = f"{dataset}_source names no folder; set it in config.yaml"
        return Check("problem", "data", text)
    if source is None:
        text = (
            "CIFAR-10's archive (170 MB) will be downloaded; without a network, set cifar10_source "
            "to a local copy"
        )
        return Check("warning", "data", text)
    if source.exists():
        return Check("ok", "data", f"{dataset} will be prepared from {source}")
    text = f"{dataset}_source {source}: there is no such file or folder; correct config.yaml"
    return Check("problem", "data", text)


def _start_points(campaign: Campaign) -> Iterator[Check]:
    folder = campaign.config.checkpoints_source
    for start in campaign.published.values():
        kind = start.checksum.kind
        if start.path.is_file():
            if start.checksum.fits(start.path):
                yield Check("ok", "start point", f"{start.path} has the expected {kind}")
            else:
                text = f"{start.path}: its {kind} is not that of the experiments; remove it"
                yield Check("problem", "start point", text)
        elif folder and (copy := next(copies(start, folder), None)):
            yield Check("ok", "start point", f"{start.path} will be copied from {copy}")
        elif start.url is None:
            yield Check("problem", "start point", f"{start.path} is missing; put it there")
        else:
            text = f"{start.path} will be downloaded; without a network, put it there"
            yield Check("warning", "start point", text)


def _size(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.0f} MB"

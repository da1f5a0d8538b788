"""Jobs share cores and GPUs: through Snakemake, with stand-ins for the launcher and the driver."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.commands import BIN
from tests.workflows import TINY, copy_project, edit
from workflow.machine import DECODERS, divide_threads, threads_per_process, visible_gpus

LAUNCH = """
import os, sys, time
from pathlib import Path

value = dict(zip(sys.argv[1:], sys.argv[2:])).get
forks = Path(value("--run-path") or "").name == "__main__.py" and value("--start-method") == "fork"
assert forks == (value("--device") == "cpu"), sys.argv
assert forks or value("-m") == "trainer", sys.argv
assert os.environ["MKL_NUM_THREADS"] == os.environ["OMP_NUM_THREADS"], os.environ
begin = time.monotonic()
time.sleep(1)
folder = Path(value("--out"))
folder.mkdir(parents=True, exist_ok=True)
for name in ("metrics.jsonl", "model.pt"):
    (folder / name).touch()
facts = [begin, time.monotonic(), value("--nproc-per-node"), os.environ["OMP_NUM_THREADS"]]
others = ["checkpoint-every", "time-limit", "allow-divergence", "wandb-group"]
facts += [value("--" + name) for name in ["device", "nw", *others]]
(folder / "facts").write_text(" ".join(map(str, facts)))
"""


@dataclass(frozen=True)
class Job:
    begin: float
    end: float
    processes: int
    threads: int
    device: str
    decoders: int
    others: tuple[str, ...]  # checkpoint_every, time_limit, allow_divergence, wandb_group

    @classmethod
    def read(cls, path: Path) -> Job:
        begin, end, processes, threads, device, decoders, *others = path.read_text().split()
        numbers = float(begin), float(end), int(processes), int(threads)
        return cls(*numbers, device, int(decoders), tuple(others))


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def smi(folder: Path, gpus: int) -> None:
    lines = [f"GPU {i}: a GPU (UUID: GPU-{i})" for i in range(gpus)]
    program(folder, "nvidia-smi", "#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Create a tiny experiment whose 4 start points and 8 runs only pretend to train."""
    folder = copy_project(tmp_path / "copy")
    experiments = folder / "experiments" / "laptop.yaml"
    experiments.write_text(TINY.replace("execution: {processes: 1, threads: 1, device: cpu}\n", ""))
    edit(experiments, "[1, 2]", "[1, 2, 3, 4]")
    data = folder / "resources" / "digits"
    data.mkdir(parents=True)
    for split in ("train", "test"):
        (data / f"{split}.beton").touch()
    (folder / "trainer" / "launch.py").write_text(LAUNCH)
    smi(tmp_path / "bin", 0)
    return folder


def snakemake(project: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{project.parent / 'bin'}:{BIN}:{os.environ['PATH']}"}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    call = [BIN / "snakemake", "--until", "train", *arguments, "--", "fig1a"]
    return subprocess.run(
        [str(a) for a in call], cwd=project, env=environment, capture_output=True, text=True
    )


def trained(project: Path, *arguments: object) -> tuple[list[Job], list[Job]]:
    """Run Snakemake; return the jobs of phase 1 and of phase 2."""
    done = snakemake(project, *arguments)
    assert done.returncode == 0, done.stderr
    results = project / "results" / "laptop"
    phases = [
        [Job.read(path) for path in (results / part).glob("*/facts")]
        for part in ("start_points", "runs")
    ]
    assert [len(jobs) for jobs in phases] == [4, 8]
    return phases[0], phases[1]


def at_once(jobs: list[Job]) -> int:
    return max(sum(j.begin <= job.begin < j.end for j in jobs) for job in jobs)


@pytest.mark.parametrize(
    ("cores", "settings", "phase1", "phase2"),
    [
        (8, [], 2, 1),  # 8 cores among 4 start points, then among 8 runs
        (8, ["processes=2"], 1, 1),
        (3, ["processes=2", "threads=2"], 1, 1),  # what was asked for does not fit
        (8, ["threads=3"], 3, 3),
        (32, ["processes=2"], 4, 2),
    ],
)
def test_jobs_have_the_cores_and_no_more(
    project: Path, cores: int, settings: list[str], phase1: int, phase2: int
) -> None:
    first, second = trained(project, "-c", cores, "--config", "wandb=disabled", *settings)
    assert {job.threads for job in first} == {phase1}
    assert {job.threads for job in second} == {phase2}
    for jobs in (first, second):
        assert at_once(jobs) * jobs[0].processes * jobs[0].threads <= cores


def test_jobs_at_once_are_no_more_than_the_gpus(project: Path) -> None:
    smi(project.parent / "bin", 2)
    first, second = trained(project, "-c", 8)
    assert at_once([*first, *second]) == 2
    assert {job.threads for job in [*first, *second]} == {4}
    assert {job.device for job in [*first, *second]} == {"auto"}


def of_photos(project: Path) -> None:
    edit(project / "experiments" / "laptop.yaml", "dataset: digits", "dataset: photos")
    (project / "resources" / "digits").rename(project / "resources" / "photos")


@pytest.mark.parametrize(
    ("dataset", "settings", "computing", "decoding"),
    [
        ("photos", [], 1, 3),  # 8 cores for the runs of 2 GPUs
        ("photos", ["threads=7"], 1, 6),
        ("photos", ["threads=1"], 1, 1),
        ("photos", ["device=cpu", "threads=2"], 2, 0),
        ("digits", [], 4, 0),
    ],
)
def test_where_a_gpu_trains_on_image_files_its_cores_decode_them(
    project: Path, dataset: str, settings: list[str], computing: int, decoding: int
) -> None:
    smi(project.parent / "bin", 2)
    if dataset == "photos":
        of_photos(project)
    first, second = trained(project, "-c", 8, "--config", "wandb=disabled", *settings)
    found = {(job.threads, job.decoders) for job in [*first, *second]}
    if decoding:  # never by more threads than this machine has cores
        decoding = max(1, min(decoding, len(os.sched_getaffinity(0)) - 1))
    assert found == {(computing, decoding)}


def test_threads_that_decode_are_not_what_a_run_is_known_by(project: Path) -> None:
    of_photos(project)
    _, second = trained(project, "-c", 8, "--config", "device=cpu")
    assert {job.decoders for job in second} == {0}
    smi(project.parent / "bin", 2)
    done = snakemake(project, "-n", "-c", 8, "--config", "threads=2")
    assert done.returncode == 0, done.stderr
    assert "rule " not in done.stdout + done.stderr


def test_gpus_to_share_can_be_said(project: Path) -> None:
    smi(project.parent / "bin", 4)
    first, second = trained(project, "-c", 8, "--resources", "gpu=1")
    assert at_once([*first, *second]) == 1


def test_on_the_cpu_gpus_bound_nothing_and_jobs_are_told_what_is_set(project: Path) -> None:
    smi(project.parent / "bin", 1)
    edit(project / "experiments" / "laptop.yaml", "phase1:", "allow_divergence: true\n    phase1:")
    settings = ["device=cpu", "checkpoint_every=7", "time_limit=90"]
    first, second = trained(project, "-c", 8, "--config", *settings)
    assert at_once([*first, *second]) > 1
    assert {job.device for job in [*first, *second]} == {"cpu"}
    assert {job.others for job in first} == {("7.0", "90.0", "0", "laptop/fig1a")}
    assert {job.others for job in second} == {("7.0", "90.0", "1", "laptop/fig1a")}


def test_more_processes_than_gpus_are_refused_before_any_job(project: Path) -> None:
    smi(project.parent / "bin", 1)
    for arguments in ([], ["--resources", "gpu=1"]):
        done = snakemake(project, "-n", *arguments, "--config", "processes=2")
        assert done.returncode != 0
        [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert "2 processes need a GPU each and 1 can be used; lower processes" in line


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [(None, 3), ("", 0), ("-1", 0), ("0", 1), ("2, 0", 2), ("0,-1,1", 1), ("GPU-1,GPU-2", 2)],
)
def test_the_gpus_are_those_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: str | None, expected: int
) -> None:
    smi(tmp_path / "bin", 3)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if allowed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
    assert visible_gpus() == expected


def test_without_a_driver_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert visible_gpus() == 0


FEW = st.integers(1, 64)


@given(FEW, FEW, FEW, st.none() | FEW, st.none() | FEW)
def test_threads_fit_the_cores(
    cores: int, processes: int, runs: int, gpus: int | None, asked: int | None
) -> None:
    threads = threads_per_process(cores, processes, runs, gpus, asked)
    assert threads == 1 or threads * processes <= cores
    if asked is not None:
        assert threads <= asked
    elif threads > 1:
        together = runs if gpus is None else max(1, min(runs, gpus // processes))
        assert threads * processes * together <= cores
        assert (threads + 1) * processes * together > cores


@given(FEW, st.none() | FEW)
def test_computing_and_decoding_threads_are_the_processs(threads: int, cores: int | None) -> None:
    computing, decoding = divide_threads(threads, decoding=True, cores=cores)
    assert computing >= 1 and 1 <= decoding <= (cores or threads)
    assert computing + decoding == max(2, min(threads, cores or threads))  # one core is for both
    assert divide_threads(threads, decoding=False) == (threads, 0)


def test_a_gpu_of_a_cluster_gets_the_authors_number_of_decoders() -> None:
    """Their train_imagenet/run.sh says ``--nw 6``."""
    assert divide_threads(1 + DECODERS, decoding=True) == (1, 6)

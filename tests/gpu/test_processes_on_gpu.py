"""Processes and GPUs: who has which, how they talk, and who must not open one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.gpu.conftest import ROOT
from tests.gpu.needs import needs_gpu, needs_two_gpus
from trainer.distributed.gpu_lease import leased, visible_gpus

ASK_FOR_ALL = """
import sys
from trainer.distributed.gpu_lease import leased, visible_gpus
from trainer.errors import UserError
try:
    with leased(visible_gpus(), len(visible_gpus()), wait_seconds=0) as indices:
        print("leased", indices)
except UserError as error:
    print("refused", error)
"""
TRAIN = """
import sys, torch
from trainer.__main__ import main
status = main(sys.argv[1:])
print("CUDA was opened:", torch.cuda.is_initialized())
sys.exit(status)
"""
OPTIONS = {
    "dataset": "cifar10", "model": "resnet8", "batch-size": 8, "step1": 2, "epochs": 2,
    "start-lr": 0.001, "precision": "fp64", "bn-batches": 4, "eval-on-start": 1,
}  # fmt: skip


def python(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True
    )


def train_options(betons: Path, out: Path, **more: object) -> list[str]:
    chosen = OPTIONS | {"data-pth": betons, "log-pth": out} | more
    return [word for name, value in chosen.items() for word in (f"--{name}", str(value))]


def evaluations(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def own_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the leases of this test apart from those of runs on the same machine."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def test_a_run_on_the_cpu_opens_no_gpu(betons: Path, tmp_path: Path) -> None:
    """A context takes half a GB of a GPU that others may need, and fails where it is exclusive."""
    words = train_options(betons, tmp_path / "cpu", device="cpu", **{"total-batch-size": 16})
    done = python("-c", TRAIN, "train", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "CUDA was opened: False"


def test_a_run_on_the_device_is_the_cpus(
    betons: Path, tmp_path: Path, device: torch.device
) -> None:
    """Compare whole runs in float64, by the command line, by the automatic choice of execution."""
    for name, on in (("there", device.type), ("here", "cpu")):
        more = {"device": on, "total-batch-size": 32}
        done = python("-m", "trainer", "train", *train_options(betons, tmp_path / name, **more))
        assert done.returncode == 0, done.stderr
    there, here = evaluations(tmp_path / "there"), evaluations(tmp_path / "here")
    assert len(there) == len(here) > 2
    for a, b in zip(there, here, strict=True):
        numbers = {key: value for key, value in b.items() if value is not None}
        assert {key: a[key] for key in numbers} == pytest.approx(numbers, rel=1e-6)


@needs_gpu
def test_gpus_have_names_of_their_own_and_are_leased_once() -> None:
    gpus = visible_gpus()
    assert len(set(gpus)) == len(gpus) >= 1
    with leased(gpus, 1) as [first]:
        assert first == 0
        assert "other runs hold too many" in python("-c", ASK_FOR_ALL).stdout
    assert python("-c", ASK_FOR_ALL).stdout.startswith("leased")


@needs_gpu
def test_nccl_works_with_one_process(device: torch.device) -> None:
    store = dist.HashStore()
    dist.init_process_group("nccl", store=store, rank=0, world_size=1, device_id=device)
    try:
        value = torch.arange(5.0, device=device)
        dist.all_reduce(value)
        assert value.tolist() == [0, 1, 2, 3, 4]
        said = [{"a": 1}]
        dist.broadcast_object_list(said)
        assert said == [{"a": 1}]
    finally:
        dist.destroy_process_group()


@needs_two_gpus
def test_as_many_processes_as_gpus_are_the_run_of_one(betons: Path, tmp_path: Path) -> None:
    """With NCCL, each process on a GPU of its own."""
    count = torch.cuda.device_count()
    k = 8 * 2 * count
    more = {"device": "cuda", "total-batch-size": k, "replacement": 1, "steps-per-epoch": 4}
    launch = ["-m", "trainer.launch", "--nnodes", 1, "--nproc-per-node", count, "-m", "trainer"]
    for name, words in (("one", ["-m", "trainer"]), ("all", launch)):
        done = python(*words, "train", *train_options(betons, tmp_path / name, **more))
        assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "all" / "provenance.json").read_text())
    assert made["processes"] == count
    for a, b in zip(evaluations(tmp_path / "all"), evaluations(tmp_path / "one"), strict=True):
        numbers = {key: value for key, value in b.items() if value is not None}
        assert {key: a[key] for key in numbers} == pytest.approx(numbers, rel=1e-6)


@needs_gpu
def test_hidden_gpus_are_not_seen() -> None:
    words = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    done = subprocess.run(
        words, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "0"

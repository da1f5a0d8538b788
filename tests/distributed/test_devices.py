"""GPUs are leased: real concurrent processes, made-up names of GPUs."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore

from tests.commands import BIN, ROOT, torchrun
from trainer.distributed.gpu_lease import leased, own_gpu, visible_gpus, warn_about_unused_gpu
from trainer.distributed.world import World
from trainer.errors import UserError

# What `python -m trainer train` does with its GPU, but for the training.
RUN = """
import os, sys, time
from torch.distributed.rendezvous import rendezvous
from trainer.distributed.gpu_lease import own_gpu

gpus, out, seconds = sys.argv[1].split(","), sys.argv[2], float(sys.argv[3])
rank, local, size = (
    int(os.environ.get(name, default))
    for name, default in (("RANK", 0), ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1))
)
store = next(rendezvous("env://"))[0] if size > 1 else None
with own_gpu(gpus, rank, local, size, store) as gpu:
    begin = time.monotonic()
    open(f"{out}.{local}.begun", "w").close()
    time.sleep(seconds + local / 2)  # the first process, which leases for all, is done first
    with open(f"{out}.{local}", "w") as file:
        file.write(f"{gpus[gpu]} {begin} {time.monotonic()}")
"""


@pytest.fixture(autouse=True)
def own_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of this test alone, and its script, written before any process reads it."""
    (tmp_path / "run.py").write_text(RUN)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def start(
    tmp_path: Path, name: str, gpus: list[str], processes: int = 1, seconds: float = 2.0
) -> subprocess.Popen[str]:
    launch = [sys.executable]
    if processes > 1:
        launch = [str(BIN / "torchrun"), "--standalone", f"--nproc-per-node={processes}"]
    arguments = [
        *launch,
        str(tmp_path / "run.py"),
        ",".join(gpus),
        str(tmp_path / name),
        str(seconds),
    ]
    return subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.05)


def uses(tmp_path: Path) -> list[tuple[str, float, float]]:
    """GPU, begin and end of each process."""
    found = [path.read_text().split() for path in tmp_path.glob("run-*.[0-9]")]
    return [(gpu, float(begin), float(end)) for gpu, begin, end in found]


def assert_never_shared(found: list[tuple[str, float, float]]) -> None:
    for i, (gpu, begin, end) in enumerate(found):
        for other, other_begin, other_end in found[:i]:
            assert gpu != other or end <= other_begin or other_end <= begin


def test_runs_side_by_side_have_a_gpu_each(tmp_path: Path) -> None:
    gpus = ["a", "b", "c"]
    # Twice as many runs as GPUs: the others wait until one is free.
    runs = [start(tmp_path, f"run-{i}", gpus) for i in range(6)]
    for run in runs:
        _, errors = run.communicate(timeout=120)
        assert run.returncode == 0, errors
    found = uses(tmp_path)
    assert len(found) == 6
    assert {gpu for gpu, _, _ in found} == set(gpus)
    assert_never_shared(found)


def test_runs_of_several_processes_share_gpus_without_a_deadlock(tmp_path: Path) -> None:
    runs = [start(tmp_path, f"run-{i}", ["a", "b", "c"], processes=2) for i in range(3)]
    for run in runs:
        _, errors = run.communicate(timeout=180)
        assert run.returncode == 0, errors
    found = uses(tmp_path)
    assert len(found) == 6
    assert_never_shared(found)


def test_nodes_without_torchruns_numbers_have_leases_of_their_own() -> None:
    """Two nodes of two processes that something else started, with one store."""
    store = HashStore()
    with ExitStack() as stack:

        def lease(gpus: list[str], rank: int, local: int) -> int:
            return stack.enter_context(own_gpu(gpus, rank, local, 2, store))

        stack.enter_context(leased(["x"]))
        assert lease(["x", "y", "z"], 2, 0) == 1
        assert lease(["a", "b"], 0, 0) == 0
        assert (lease(["a", "b"], 1, 1), lease(["x", "y", "z"], 3, 1)) == (1, 2)


def test_a_killed_run_holds_no_gpu(tmp_path: Path) -> None:
    run = start(tmp_path, "run-0", ["a"], seconds=600)
    try:
        wait_for(tmp_path / "run-0.0.begun")
        with pytest.raises(UserError), leased(["a"], wait_seconds=0):
            pass
    finally:
        run.kill()
        run.communicate()
    with leased(["a"], wait_seconds=0) as indices:
        assert indices == [0]


def test_a_lease_ends_with_its_run() -> None:
    with leased(["a", "b"], 2, wait_seconds=0) as first:
        assert first == [0, 1]
    with leased(["a", "b"], wait_seconds=0) as [one], leased(["b", "a"], wait_seconds=0) as [other]:
        assert (one, other) == (0, 0)  # "a", then "b": names count, not places


def test_too_few_gpus_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(UserError, match=r"2 processes need a GPU each, this machine has 1; start"):
        leased(["a"], 2).__enter__()
    with (
        leased(["a", "b"], 1, wait_seconds=0),
        pytest.raises(UserError, match=r"2 of this machine's 2 GPUs.*--resources gpu=2.*cpu"),
        leased(["a", "b"], 2, wait_seconds=0.3),
    ):
        pass
    # The part that it could have had is free again.
    with leased(["b"], wait_seconds=0):
        pass


def test_a_folder_that_cannot_hold_leases_is_named(tmp_path: Path) -> None:
    with leased(["a"]):
        [folder] = tmp_path.glob("local-sgd-gpus-*")
    assert folder.stat().st_mode & 0o777 == 0o700
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    folder.touch()
    with pytest.raises(UserError, match="TMPDIR"):
        leased(["a"]).__enter__()


def test_slices_of_a_gpu_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-GPU-1/2/0,MIG-GPU-1/3/0")
    assert visible_gpus() == ["MIG-GPU-1-2-0"]


@pytest.mark.parametrize("file", ["dev/nvidia0", "proc/driver/nvidia/version"])
def test_a_driver_that_is_not_used_is_said_unless_gpus_are_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    warn_about_unused_gpu(tmp_path)
    assert capsys.readouterr().err == ""
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).touch()
    warn_about_unused_gpu(tmp_path)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: device auto: an NVIDIA driver") and file in line
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        warn_about_unused_gpu(tmp_path)
        assert capsys.readouterr().err == ""


def test_a_run_says_once_that_it_leaves_a_driver_unused(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no more of a driver than its program: two processes, one warning, training goes on."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    words = ["train", "--data-pth", digits, "--total-batch-size", 256, "--epochs", 1]
    for device, warnings in (("auto", 1), ("cpu", 0)):
        out = tmp_path / device
        done = torchrun(2, *words, "--device", device, "--log-pth", out)
        assert done.returncode == 0 and (out / "metrics.jsonl").exists(), done.stderr
        assert done.stderr.count("this run trains on the CPU") == warnings


def test_provenance_names_the_model_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"H{100 + device.index}")
    assert World(0, 1, torch.device("cuda", 1)).device_name == "cuda:1, H101"
    assert World(0, 1, torch.device("cpu")).device_name == "cpu"

"""`python -m workflow doctor`, on machines that lack something."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.commands import ROOT, command
from tests.workflow.test_status import files
from tests.workflows import TINY, copy_project, edit
from workflow.campaign import load_campaign
from workflow.commands import doctor, installation
from workflow.commands.installation import Check
from workflow.commands.starting import writable
from workflow.commands.wandb_copy import wandb_copy

Usage = namedtuple("Usage", "total used free")
KEY = "0123456789" * 4
SIZES = {"mlp": 100_000, "cnn": 100_000, "resnet56": 3_500_000}
PROBE = {"gpus": 0, "cuda": "13.0"}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the project and work in it: nothing trained, no data, no key."""
    folder = copy_project(tmp_path / "copy")
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copyfile(ROOT / name, folder / name)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    return folder


def levels(checks: Iterable[Check], subject: str) -> list[str]:
    return [check.level for check in checks if check.subject == subject]


def run_doctor(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    before = files(folder)
    done = command(sys.executable, "-B", "-m", "workflow", "doctor", *words, cwd=folder)
    assert done.stderr == ""
    assert files(folder) == before
    return done


def test_a_machine_that_has_everything_passes(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    done = run_doctor(checkout)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    subjects = {line.split()[1] for line in lines if line.startswith("ok ")}
    assert subjects == {
        "python", "packages", "ffcv", "compiler", "settings", "processes", "devices", "cores",
        "memory", "results/", "resources/", "disk", "data", "wandb",
        "cache", "snakemake", "profiles/", "shm",
    }  # fmt: skip
    assert lines[-1].startswith("0 problem(s), ")
    assert max(map(len, lines)) <= 100


def test_problems_are_told_apart_with_their_fix_and_exit_status_1(checkout: Path) -> None:
    """FFCV without its libraries, and a misspelt setting."""
    (checkout / "ffcv.py").write_text("raise ImportError('libopencv_core.so.4: no such file')")
    edit(checkout / "config.yaml", "wandb: null", "wandb: of")
    done = run_doctor(checkout)
    assert done.returncode == 1
    words = " ".join(done.stdout.split())
    assert "problem ffcv cannot be imported: ImportError: libopencv_core.so.4" in words
    assert "apt-get install libopencv-dev" in words
    assert "problem settings config.yaml: wandb: " in words
    assert done.stdout.splitlines()[-1].startswith("2 problem(s), ")


def test_other_versions_than_the_lock_s_are_warnings_and_missing_ones_problems(
    checkout: Path,
) -> None:
    assert "problem" not in levels(installation._check_packages(), "packages")
    lock = (checkout / "requirements.lock").read_text().splitlines()
    changed = ["filelock==1.0" if line.startswith("filelock==") else line for line in lock]
    changed = [line for line in changed if not line.startswith("tqdm==")]
    (checkout / "requirements.lock").write_text("\n".join(changed))
    edit(checkout / "pyproject.toml", '"pyyaml",', '"pyyaml",\n    "no-such-package>=2",')
    found = {check.text.split()[0]: check for check in installation._check_packages()}
    assert found["filelock"].level == "warning"
    assert "requirements.lock has 1.0; run: rm -f .venv/complete; make setup" in str(
        found["filelock"].text
    )
    assert (found["tqdm"].level, found["tqdm"].text.endswith("run: make lock")) == ("warning", True)
    assert found["no-such-package"].level == "problem"


def test_processes_that_cannot_share_the_clients_are_a_problem(checkout: Path) -> None:
    (checkout / "experiments" / "laptop.yaml").write_text(TINY)
    assert doctor._processes(load_campaign(["processes=4"])).level == "ok"
    check = doctor._processes(load_campaign(["processes=3"]))
    assert check.level == "problem"
    assert "3 processes cannot share K = 4 clients" in check.text


def test_a_machine_without_a_compiler_is_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert installation._check_compiler().level == "warning"


@pytest.mark.parametrize(
    ("device", "listed", "usable", "processes", "level", "words"),
    [
        ("cpu", 2, 2, 4, "ok", "2 GPU(s) left alone"),
        ("auto", 0, 0, 4, "warning", "no GPU"),
        ("cuda", 0, 0, 4, "problem", "set device cpu"),
        ("auto", 2, 0, 2, "problem", "update the NVIDIA driver"),
        ("auto", 2, 2, 4, "problem", "4 processes need a GPU each"),
        ("cuda", 4, 4, 4, "ok", "4 GPU(s)"),
    ],
)
def test_devices(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, device: str, listed: int, usable: int,
    processes: int, level: str, words: str,
) -> None:  # fmt: skip
    """The driver's program lists GPUs; torch can use them, or cannot."""
    program = checkout.parent / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nfor i in $(seq {listed}); do echo GPU $i; done\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    campaign = load_campaign([f"device={device}", f"processes={processes}"])
    check = doctor._devices(campaign, PROBE | {"gpus": usable})
    assert check.level == level
    assert words in check.text


def test_cores_and_memory_are_held_against_what_runs_at_once_need(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(4)))
    assert "4; 4 run(s) at once, each of 1 process(es)" in doctor._cores(load_campaign([])).text
    assert doctor._cores(load_campaign([])).level == "ok"
    assert doctor._cores(load_campaign(["threads=5"])).level == "warning"
    assert doctor._cores(load_campaign(["threads=2", "processes=4"])).level == "warning"
    memory = doctor._memory(load_campaign([]), SIZES)
    assert "about 4.8 GB needed by 4 run(s) at once" in memory.text
    huge = dict.fromkeys(SIZES, 10**13)
    assert doctor._memory(load_campaign([]), huge).level == "warning"


def test_a_disk_too_full_is_a_problem(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = load_campaign([])
    assert doctor._results_disk(campaign, SIZES).level == "ok"
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(1e12, 0, 1e6))
    assert doctor._results_disk(campaign, SIZES).level == "problem"
    found = list(doctor._data(campaign))
    assert levels(found, "disk") == ["problem"]
    for job in campaign.jobs:
        job.folder.mkdir(parents=True)
        (job.folder / "metrics.jsonl").touch()
    assert doctor._results_disk(campaign, SIZES).level == "ok"  # nothing is to be trained


def test_a_folder_that_cannot_be_written_is_a_problem(checkout: Path) -> None:
    assert writable("results").level == "ok"
    assert not (checkout / "results").exists()
    (checkout / "results").touch()
    assert writable("results").level == "problem"


def test_data_is_there_or_made_or_downloaded_or_missing(checkout: Path) -> None:
    assert levels(doctor._data(load_campaign([])), "data") == ["ok"]  # digits need no download
    cifar10 = ["scale=workstation"]
    [data, disk] = doctor._data(load_campaign(cifar10))
    assert (data.level, disk.level) == ("warning", "ok")
    assert "will be downloaded" in data.text
    (checkout / "images").mkdir()
    campaign = load_campaign([*cifar10, "cifar10_source=images"])
    assert levels(doctor._data(campaign), "data") == ["ok"]
    [data, _] = doctor._data(load_campaign([*cifar10, "cifar10_source=image"]))
    assert data.level == "problem"
    assert "cifar10_source image: there is no such file" in data.text
    prepared = checkout / "resources" / "cifar10"
    prepared.mkdir(parents=True)
    for split in ("train", "test"):
        (prepared / f"{split}.beton").touch()
    [data] = doctor._data(load_campaign([*cifar10, "cifar10_source=image"]))
    assert data.level == "ok"


def test_a_start_point_is_there_or_downloaded_and_is_the_one_asked_for(checkout: Path) -> None:
    assert list(doctor._start_points(load_campaign([]))) == []
    path = checkout / "resources" / "start.pt"
    digest = hashlib.sha256(b"model").hexdigest()
    begin = f"checkpoint: {{path: resources/start.pt, sha256: {digest}, epoch: 1}}"
    file = checkout / "experiments" / "laptop.yaml"
    file.write_text(TINY.replace("phase1: {epochs: 2}", begin))
    [check] = doctor._start_points(load_campaign([]))
    assert (check.level, "put it there" in check.text) == ("problem", True)
    edit(file, "epoch: 1}", "epoch: 1, url: 'https://example.org/start.pt'}")
    [check] = doctor._start_points(load_campaign([]))
    assert (check.level, "will be downloaded" in check.text) == ("warning", True)
    path.parent.mkdir()
    path.write_bytes(b"another")
    [check] = doctor._start_points(load_campaign([]))
    assert (check.level, "SHA-256" in check.text) == ("problem", True)
    path.write_bytes(b"model")
    [check] = doctor._start_points(load_campaign([]))
    assert check.level == "ok"


def test_wandb_says_whether_a_key_is_there_and_never_which(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wandb_copy(load_campaign([])).text == "disabled"
    assert wandb_copy(load_campaign(["wandb=offline"])).level == "ok"
    assert wandb_copy(load_campaign(["wandb=online"])).level == "warning"
    netrc = checkout.parent / "netrc"
    netrc.write_text(f"machine api.wandb.ai login user password {KEY}\n")
    netrc.chmod(0o600)
    by_file = wandb_copy(load_campaign(["wandb=online"]))
    assert (by_file.level, KEY in by_file.text) == ("ok", False)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert wandb_copy(load_campaign(["wandb=online"])).level == "warning"
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    by_variable = wandb_copy(load_campaign(["wandb=online"]))
    assert (by_variable.level, KEY in by_variable.text) == ("ok", False)

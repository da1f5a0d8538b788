"""Compute nodes without a network: all that needs one is in the target ``data``."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.commands import BIN, command
from tests.workflows import TINY, copy_project, edit, planned, snakemake

# A network of its own, with nothing but the loopback interface
ALONE = ("unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_project(tmp_path_factory.mktemp("prepared") / "project")
    (folder / "experiments" / "laptop.yaml").write_text(TINY.replace("[1, 2]", "[1]"))
    done = snakemake(folder, "--cores", 2, "data")
    assert done.returncode == 0, done.stderr
    return folder


def test_nothing_of_the_data_is_left_to_make(prepared: Path) -> None:
    jobs = planned(prepared, "fig1a")
    assert jobs["train"] == 2 and jobs["start_point"] == 1
    assert not {"prepare", "beton", "download"} & jobs.keys()


def test_a_published_start_point_is_data_too(prepared: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(prepared, tmp_path / "project")
    checkpoint = f"{{path: start.pt, epoch: 2, sha256: {'a' * 64}, url: 'https://a.b/start.pt'}}"
    experiments = folder / "experiments" / "laptop.yaml"
    edit(experiments, "phase1: {epochs: 2}", f"checkpoint: {checkpoint}")
    assert planned(folder, "data")["download"] == 1


def test_training_needs_no_network(prepared: Path) -> None:
    if subprocess.run([*ALONE, "true"], capture_output=True).returncode:
        pytest.skip("needs unshare and ip, and to be allowed a network of its own")
    asked = "import socket; socket.getaddrinfo('pypi.org', 1)"
    assert command(*ALONE, BIN / "python", "-c", asked).returncode, "there is a network"
    words = ("--config", "processes=2", "wandb=offline", "--", "fig1a")
    done = command(*ALONE, BIN / "snakemake", "--cores", 2, *words, cwd=prepared)
    assert done.returncode == 0, done.stderr
    assert (prepared / "results/laptop/figures/fig1a.png").exists()
    assert list(prepared.glob("results/laptop/checkpoints/*/wandb/offline-run-*"))

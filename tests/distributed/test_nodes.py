"""Several nodes, where there is no cluster: what is refused, and which address is one's own."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import psutil
import pytest

from tests.commands import command, trainer
from tests.conftest import one_line
from tests.option_runs import covers
from tests.workflows import copy_project, snakemake
from trainer.distributed.multinode import configure_rendezvous
from trainer.errors import UserError


def test_without_slurm_the_launcher_says_what_to_start() -> None:
    done = command(sys.executable, "-m", "trainer.launch", "--nnodes", 2, "-m", "trainer")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --nnodes 2: this is no Slurm job; start it by sbatch")


@covers("processes")
def test_another_number_of_processes_than_expected_is_refused(digits: Path, tmp_path: Path) -> None:
    words = ("train", "--data-pth", digits, "--batch-size", 32, "--total-batch-size", 128)
    words = (*words, "--epochs", 1, "--log-pth", tmp_path / "run")
    said = one_line(trainer(*words, "--processes", 2))
    assert said.startswith("error: processes is 2, but 1 started")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    done = trainer(*words, "--processes", 1)
    assert done.returncode == 0, done.stderr


def test_nodes_need_a_cluster_and_divide_the_processes(tmp_path: Path) -> None:
    folder = copy_project(tmp_path / "project")
    done = snakemake(folder, "--cores", 2, "--config", "processes=2", "nodes=2", "--", "fig1a")
    assert "error: config.yaml: 2 nodes need a cluster; set nodes to 1" in done.stderr
    odd = snakemake(folder, "--cores", 2, "--config", "processes=4", "nodes=3", "--", "fig1a")
    assert "error: config.yaml: 4 processes cannot be spread evenly over 3 nodes" in odd.stderr


@pytest.fixture(autouse=True)
def no_interface_and_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "SLURM_JOB_ID", "SLURM_NODEID"):
        monkeypatch.setenv(name, "")  # to be as it was afterwards
        monkeypatch.delenv(name)


def launch(**given: str | None) -> argparse.Namespace:
    start = {"rdzv_endpoint": "127.0.0.1:1", "rdzv_conf": "", "local_addr": None}
    return argparse.Namespace(**start | given)


def test_the_interface_is_the_one_towards_the_first_node(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, addresses in psutil.net_if_addrs().items():
        for address in (a.address for a in addresses if a.family.name == "AF_INET"):
            monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
            monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
            arguments = launch(rdzv_endpoint=f"{address}:20000")
            configure_rendezvous(arguments)
            assert arguments.local_addr == address
            assert os.environ["GLOO_SOCKET_IFNAME"] == name
            assert os.environ["NCCL_SOCKET_IFNAME"] == f"={name}"


def test_an_interface_that_is_named_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib")
    configure_rendezvous(launch())
    assert (os.environ["GLOO_SOCKET_IFNAME"], os.environ["NCCL_SOCKET_IFNAME"]) == ("ib0", "ib")


@pytest.mark.parametrize(("node", "first"), [("0", "is_host=1"), ("3", "is_host=0")])
def test_the_first_node_keeps_the_store(
    monkeypatch: pytest.MonkeyPatch, node: str, first: str
) -> None:
    monkeypatch.setenv("SLURM_NODEID", node)
    arguments = launch(rdzv_conf="timeout=100")
    configure_rendezvous(arguments)
    assert arguments.rdzv_conf == f"timeout=100,{first}"


def test_a_node_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"--rdzv-endpoint nowhere.invalid:1: cannot be reached"):
        configure_rendezvous(launch(rdzv_endpoint="nowhere.invalid:1"))

"""Where the processes of a run listen while it goes on: on the loopback interface alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.commands import BIN, FORKED
from tests.conftest import metrics, more
from tests.run.test_lock import wait_until
from tests.workflows import TINY, copy_project, edit

LAUNCH = (sys.executable, "-m", "trainer.launch", "--nproc-per-node", 2)
TORCHRUN = (BIN / "torchrun", "--standalone", "--nproc-per-node", 2)
LONG = ("--total-batch-size", 256, "--epochs", 100_000, "--wandb", "offline")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}


def tree(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


def listening(process: psutil.Process) -> set[tuple[str, int]]:
    """Addresses and ports at which the process or one that it started waits for others."""
    found = set()
    for one in tree(process):
        with suppress(psutil.NoSuchProcess):
            for connection in one.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN or not connection.raddr:
                    found.add(tuple(connection.laddr))
    return found


@contextmanager
def training(command: Sequence[object], folder: Path, **variables: str) -> Iterator[psutil.Process]:
    """Start a run, yield it once it has recorded an evaluation, then end it."""
    words = [str(word) for word in command]
    with (folder.parent / "log").open("w") as log:
        process = psutil.Popen(words, env=ENVIRONMENT | variables, stdout=log, stderr=log)
    try:
        partial = folder / "metrics.partial.jsonl"
        wait_until(lambda: partial.exists() and partial.read_text(), process)
        yield process
    finally:
        started = tree(process)
        with suppress(psutil.NoSuchProcess):
            process.terminate()
        _, left = psutil.wait_procs(started, timeout=40)
        for one in left:
            one.kill()


@pytest.mark.parametrize("start", [more(("-m", "trainer")), FORKED], ids=["module", "forked"])
def test_a_run_on_one_machine_listens_on_loopback_alone(
    digits: Path, tmp_path: Path, start: Sequence[object]
) -> None:
    folder = tmp_path / "run"
    words = ("train", "--data-pth", digits, "--log-pth", folder, *LONG)
    with training([*LAUNCH, *start, *words], folder) as process:
        found = listening(process)
    assert len(found) >= 3, "the store and two processes"
    assert {address for address, _ in found} == {"127.0.0.1"}


def outer_interface() -> tuple[str, str] | None:
    """Name and IPv4 address of one that other machines see."""
    for name, addresses in psutil.net_if_addrs().items():
        for address in addresses:
            if address.family == socket.AF_INET and not address.address.startswith("127."):
                return name, address.address
    return None


@pytest.fixture
def interface() -> tuple[str, str]:
    if (found := outer_interface()) is None:
        pytest.skip("needs a network interface")
    return found


@pytest.mark.parametrize("launcher", [more(LAUNCH), TORCHRUN], ids=["launch", "torchrun"])
def test_nor_do_processes_go_by_the_machines_name(
    digits: Path, tmp_path: Path, interface: tuple[str, str], launcher: Sequence[object]
) -> None:
    """Check that gloo listens on loopback, not on the host name's address, its default."""
    renamed = ("unshare", "--uts", "sh", "-c", f'hostname {interface[1]} && exec "$@"', "sh")
    if subprocess.run([*renamed, "true"], capture_output=True).returncode:
        pytest.skip("needs root, to give this machine another name")
    folder = tmp_path / "run"
    words = ("-m", "trainer", "train", "--data-pth", digits, "--log-pth", folder, *LONG)
    with training([*renamed, *launcher, *words], folder) as process:
        ranks = [one for one in tree(process) if "RANK" in one.environ()]
        found = set.union(*map(listening, ranks))
    assert len(found) >= 2
    assert {address for address, _ in found} == {"127.0.0.1"}


@pytest.mark.exhaustive
def test_an_interface_that_is_asked_for_is_taken(
    digits: Path, tmp_path: Path, interface: tuple[str, str]
) -> None:
    folder = tmp_path / "run"
    words = ("-m", "trainer", "train", "--data-pth", digits, "--log-pth", folder, *LONG)
    with training([*LAUNCH, *words], folder, GLOO_SOCKET_IFNAME=interface[0]) as process:
        assert interface[1] in {address for address, _ in listening(process)}


@pytest.mark.exhaustive
def test_the_workflows_runs_listen_on_loopback_alone(digits: Path, tmp_path: Path) -> None:
    """From the first to the last moment."""
    folder = copy_project(tmp_path / "copy")
    shutil.copytree(digits, folder / "resources" / "digits")
    experiments = folder / "experiments" / "laptop.yaml"
    experiments.write_text(TINY)
    edit(experiments, "processes: 1", "processes: 2")
    edit(experiments, "[1, 2]", "[1]")
    edit(experiments, "epochs: 4", "epochs: 20")
    found, most = set[tuple[str, int]](), 0
    log = (tmp_path / "log").open("w")
    command = [BIN / "snakemake", "--cores", 4, "fig1a"]
    with (
        log,
        psutil.Popen(
            [str(word) for word in command], cwd=folder, env=ENVIRONMENT, stdout=log, stderr=log
        ) as process,
    ):
        while process.poll() is None:
            now = listening(process)
            found |= now
            most = max(most, len(now))
            time.sleep(0.02)
    assert process.returncode == 0, (tmp_path / "log").read_text()
    assert most >= 3, "the store and two processes"
    assert {address for address, _ in found} == {"127.0.0.1"}


@pytest.mark.parametrize("start", [more(("-m", "trainer")), FORKED], ids=["module", "forked"])
def test_processes_that_are_started_again_find_each_other(
    digits: Path, tmp_path: Path, start: Sequence[object]
) -> None:
    """Kill one process mid-run, so that the launcher restarts all of them."""
    folder = tmp_path / "run"
    words = ("train", "--data-pth", digits, "--log-pth", folder, "--total-batch-size", 256)
    words = [*LAUNCH, "--max-restarts", 1, *start, *words, "--epochs", 100]
    with training(words, folder) as process:
        first = tree(process)[1:]
        first[-1].send_signal(signal.SIGKILL)
        assert process.wait(120) == 0, (tmp_path / "log").read_text()
        assert not set(first) & set(tree(process))
    assert metrics(folder)[-1]["epoch"] == 100
    assert json.loads((folder / "provenance.json").read_text())["processes"] == 2

"""Jobs that are forks of a server are as processes of their own, whatever dies or changes."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from tests.commands import BIN, ROOT
from tests.workflows import copy_project
from workflow.forks.__main__ import SERVERS
from workflow.forks.server import IMPORTS
from workflow.forks.start import ForkServers

# Says where it runs, then waits for a signal, which it catches, as a run does
MODULE = """
import json, os, signal, sys, time
from pathlib import Path
facts = {
    "arguments": sys.argv[1:], "folder": os.getcwd(), "variable": os.environ.get("OF_THE_JOB"),
    "input": sys.stdin.read(), "umask": os.umask(0), "name": __name__,
}
place = {"pid": os.getpid(), "parent": os.getppid()}
print(json.dumps(facts), flush=True)
print("to stderr", file=sys.stderr)
def stop(number, frame):
    print(signal.Signals(number).name, flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
with open(sys.argv[1], "a") as file:
    file.write(json.dumps(place) + "\\n")
while sys.argv[2] == "wait" and not Path(sys.argv[1]).with_name("go").exists():
    time.sleep(0.02)
sys.exit(3)
"""
# Starts a server, as Snakemake does, and tells its process
HOLDER = """
import sys, time
from workflow.forks.start import ForkServers
servers = ForkServers(["job"])
servers.start({"PYTHONSAFEPATH": "1", "PYTHONPATH": sys.argv[1]})
print(servers._servers[0].pid, servers._folder, flush=True)
time.sleep(600)
"""


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Jobs:
    """Start the module ``job`` through ``python -m workflow.forks``."""

    def __init__(self, folder: Path, server: int) -> None:
        self.folder, self.server = folder, server
        self.note = folder / "note"

    def start(self, *words: str, **variables: str) -> subprocess.Popen[str]:
        client = subprocess.Popen(
            [sys.executable, "-m", "workflow.forks", "job", str(self.note), *words],
            cwd=self.folder, env=os.environ | variables, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        atexit.register(client.kill)  # where a test fails
        return client

    def waiting(self) -> subprocess.Popen[str]:
        """Start one that waits, until it does."""
        client = self.start("wait")
        assert client.stdin
        client.stdin.close()
        client.stdin = None
        until(self.places)
        return client

    def places(self) -> list[dict[str, int]]:
        lines = self.note.read_text().splitlines() if self.note.exists() else []
        return [json.loads(line) for line in lines]

    def forked(self) -> list[bool]:
        return [place["parent"] == self.server for place in self.places()]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Make the module ``job`` and the project importable."""
    (tmp_path / "job.py").write_text(MODULE)
    paths = f"{ROOT}{os.pathsep}{tmp_path}"
    found = {"PYTHONSAFEPATH": "1", "PYTHONPATH": paths}
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def jobs(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Jobs]:
    monkeypatch.setenv(SERVERS, "")  # restored after the test
    servers = ForkServers(["job"])
    servers.start(environment)
    yield Jobs(tmp_path, servers._servers[0].pid)
    (tmp_path / "go").touch()
    servers.stop()
    assert servers._folder and not servers._folder.exists()


def test_a_fork_is_as_a_process_of_its_own(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_JOB", "a value")
    said: list[tuple[int, str, str]] = []
    for variables in ({}, {SERVERS: "/nowhere"}):
        client = jobs.start("ü", **variables)
        out, err = client.communicate("to read")
        said.append((client.returncode, out, err))
    assert jobs.forked() == [True, False]
    assert said[0] == said[1]
    assert said[0][0] == 3 and said[0][2] == "to stderr\n"
    assert json.loads(said[0][1])["variable"] == "a value"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_client_reaches_the_fork(jobs: Jobs, number: signal.Signals) -> None:
    client = jobs.waiting()
    client.send_signal(number)
    out, _ = client.communicate(timeout=60)
    assert out.splitlines()[1:] == [number.name]
    assert client.returncode == 75
    assert jobs.forked() == [True]


def test_a_fork_ends_with_its_client(jobs: Jobs) -> None:
    client, fork = jobs.waiting(), psutil.Process(jobs.places()[0]["pid"])
    client.kill()
    out, _ = client.communicate(timeout=60)
    assert out.splitlines()[1:] == ["SIGTERM"]
    until(lambda: not fork.is_running())


def test_a_job_is_run_again_when_the_server_died(jobs: Jobs) -> None:
    """Its fork ends, and leaves a checkpoint; the client goes on by itself."""
    client = jobs.waiting()
    os.kill(jobs.server, signal.SIGKILL)
    until(lambda: len(jobs.places()) == 2)
    (jobs.folder / "go").touch()
    out, _ = client.communicate(timeout=60)
    assert "SIGTERM" in out.splitlines() and client.returncode == 3
    assert jobs.places()[1]["pid"] == client.pid


def test_a_job_that_was_interrupted_is_not_run_again(jobs: Jobs) -> None:
    """As where everything is told to end, in any order."""
    client = jobs.waiting()
    os.kill(jobs.server, signal.SIGSTOP)  # it forwards nothing
    client.send_signal(signal.SIGINT)
    os.kill(jobs.server, signal.SIGKILL)
    client.communicate(timeout=60)
    assert client.returncode == 128 + signal.SIGINT
    assert len(jobs.places()) == 1


@pytest.mark.parametrize("change", [{"OMP_NUM_THREADS": "7"}, {"PYTHONUTF8": "1"}])
def test_other_variables_are_refused(jobs: Jobs, change: dict[str, str]) -> None:
    for variables in ({}, change, {}):
        jobs.start("", **variables).communicate("")
    assert jobs.forked() == [True, False, True]


def test_a_fork_holds_no_code_that_was_changed(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERVERS, "")
    project = copy_project(tmp_path / "project")
    environment["PYTHONPATH"] = f"{project}{os.pathsep}{tmp_path}"
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    servers = ForkServers(["job"])
    servers.start(environment)
    jobs = Jobs(tmp_path, servers._servers[0].pid)
    changed = project / "trainer" / "errors.py"
    for edit in (lambda: None, changed.touch):
        edit()
        jobs.start("").communicate("")
    servers.stop()
    assert jobs.forked() == [True, False]


def test_a_server_ends_with_a_killed_snakemake_once_its_fork_has(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, environment["PYTHONPATH"]], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout
    pid, folder = holder.stdout.readline().split()
    monkeypatch.setenv(SERVERS, folder)
    jobs = Jobs(tmp_path, int(pid))
    server, client = psutil.Process(int(pid)), jobs.waiting()
    holder.kill()
    holder.communicate()
    until(lambda: not Path(folder).exists())
    refused = jobs.start("")
    refused.communicate("")
    assert refused.returncode == 3 and jobs.forked() == [True, False]
    assert server.is_running() and client.poll() is None
    (tmp_path / "go").touch()
    out, _ = client.communicate(timeout=60)
    assert client.returncode == 3 and len(out.splitlines()) == 1
    until(lambda: not server.is_running())


@pytest.mark.parametrize("name", [name for names in IMPORTS.values() for name in names])
def test_what_a_server_imports_is_there(name: str) -> None:
    """Else it would refuse every job."""
    assert find_spec(name)

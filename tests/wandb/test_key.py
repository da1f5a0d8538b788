"""The key of the account at W&B: it goes to the server, and nowhere else."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.commands import torchrun
from tests.conftest import more
from tests.security.test_secrets import holding
from tests.wandb.copies import KEY, TINY, warnings
from tests.wandb.server import Server
from tests.workflows import TINY as TINY_PROJECT
from tests.workflows import copy_project, edit, snakemake

pytest.importorskip("wandb")

ACCOUNT = base64.b64encode(f"api:{KEY}".encode()).decode()


@contextmanager
def command_lines() -> Iterator[set[bytes]]:
    """Of all processes on this machine that are there meanwhile."""
    found: set[bytes] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    found.add(file.read_bytes())
                except OSError:  # it has just ended
                    continue

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


@pytest.fixture(params=["environment", more("netrc")])
def key_in(
    request: pytest.FixtureRequest, server: Server, account: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Where the key is: WANDB_API_KEY, as ``server`` leaves it, or ~/.netrc alone."""
    if request.param == "netrc":
        monkeypatch.delenv("WANDB_API_KEY")
        machine = server.url.removeprefix("http://")
        (account / ".netrc").write_text(f"machine {machine}\n  login user\n  password {KEY}\n")
    return str(request.param)


def assert_kept(said: str, seen: set[bytes], folder: Path) -> None:
    """Assert that the keys are in no output, command line or file except ~/.netrc."""
    assert any(b"wandb-core" in line for line in seen), "nobody looked"
    for secret in (KEY, ACCOUNT):
        assert secret not in said
        assert [line for line in seen if secret.encode() in line] == []
        assert [path for path in holding(folder, secret) if path.name != ".netrc"] == []


@pytest.mark.parametrize("mode", ["refused", more("online"), more("offline")])
def test_a_run_keeps_the_key_to_itself(
    digits: Path, tmp_path: Path, server: Server, key_in: str, mode: str
) -> None:
    server.refuses = mode == "refused"
    options = ["--data-pth", digits, "--log-pth", tmp_path / "run", "--out", tmp_path / "out"]
    options += [*TINY, "--wandb", "offline" if mode == "offline" else "online"]
    with command_lines() as seen:
        done = torchrun(2, "train", *options)
    assert done.returncode == 0, done.stderr
    assert len(warnings(done)) == (mode == "refused"), done.stderr
    assert (f"Basic {ACCOUNT}" in server.accounts) == (mode != "offline")
    assert list(tmp_path.glob("run/wandb/*run-*/*.wandb"))
    assert not {path for path in server.paths if "/otel/" in path}, "reports, with stack traces"
    assert_kept(done.stdout + done.stderr, seen, tmp_path)


@pytest.mark.exhaustive
def test_the_workflow_keeps_the_key_to_itself(tmp_path: Path, server: Server) -> None:
    folder = copy_project(tmp_path / "copy")
    (folder / "experiments" / "laptop.yaml").write_text(TINY_PROJECT)
    edit(folder / "experiments" / "laptop.yaml", "seeds: [1, 2]", "seeds: [1]")
    edit(folder / "config.yaml", "wandb: null", "wandb: online")
    server.refuses = True
    with command_lines() as seen:
        done = snakemake(folder, "fig1a", "results/laptop/runs.csv")
        report = snakemake(folder, "fig1a", "--report", "report.html")
    assert done.returncode == report.returncode == 0, done.stderr + report.stderr
    assert f"Basic {ACCOUNT}" in server.accounts
    assert len(list(folder.glob("results/laptop/checkpoints/*/wandb"))) == 3
    said = done.stdout + done.stderr + report.stdout + report.stderr
    assert_kept(said, seen, tmp_path)

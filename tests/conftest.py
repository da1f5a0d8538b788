"""Fixtures: real prepared data, whole runs through the real command line."""

from __future__ import annotations

import fcntl
import http.server
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch

from tests import workflows
from tests.commands import ROOT, trainer
from tests.https import Https
from tests.option_runs import Trained
from trainer.data.specs import DATASETS

SHARED = ROOT.parent / "shared" / "data"

torch.set_num_threads(1)

# A machine that does much else is no reason to fail.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")

# xdist sets it for its workers, and commands would fold their lines to it.
os.environ.pop("COLUMNS", None)

# What nohup or a script's & starts ignores them, and so would every command that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def more(*values: object) -> object:
    """Mark a case of a parametrized test as exhaustive: it runs only in the full test suite."""
    return pytest.param(*values, marks=pytest.mark.exhaustive)


def shared_file(name: str) -> Path:
    """Return a file of the authors' or of real images from ../shared/data; skip if absent."""
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"needs {name} in ../shared/data, which this machine does not have")
    return path


def unpacked(archive: Path, folder: Path) -> Path:
    """``folder`` with what is in ``archive``, of this project's own developers."""
    folder.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", folder], check=True)
    return folder


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the only ``error:`` line of a command that must have failed without a traceback."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_metrics(a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]]) -> None:
    """Equal to 1e-5, line by line and key by key."""
    assert len(a) == len(b) > 0
    for left, right in zip(a, b, strict=True):
        empty = {key for key, value in left.items() if value is None}
        assert empty == {key for key, value in right.items() if value is None}
        numbers = {key: value for key, value in left.items() if key not in empty}
        assert numbers == pytest.approx(
            {key: value for key, value in right.items() if key not in empty}, rel=1e-5, abs=1e-5
        )


@pytest.fixture(scope="module")
def https(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Https]:
    """Its certificate is trusted, also by the commands that a test starts."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, to make the server's certificate")
    server = Https(tmp_path_factory.mktemp("certificate"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(server.certificate))
        yield server


@pytest.fixture(scope="module")
def served(https: Https, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Serve a folder over https; yield the folder and its URL."""
    folder = tmp_path_factory.mktemp("served")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with https.serving(handler) as url:
        yield folder, url


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the digits' .beton files with the real commands."""
    folder = tmp_path_factory.mktemp("digits")
    for step in (["prepare", "--out", folder], ["beton", "--data-pth", folder]):
        done = trainer(*step)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def tiny_cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """.beton files of CIFAR-10's shape: 64 random images to train, 32 to test."""
    folder = tmp_path_factory.mktemp("cifar10")
    draw = np.random.default_rng(0)
    for split, n in (("train", 64), ("test", 32)):
        images = draw.integers(0, 256, (n, 32, 32, 3), np.uint8)
        classes = list(DATASETS["cifar10"].classes)
        np.savez(folder / f"{split}.npz", images=images, labels=np.arange(n) % 10, classes=classes)
    done = trainer("beton", "--data-pth", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the patches of photographs: JPEG files of several sizes, and their .beton files."""
    folder = tmp_path_factory.mktemp("photos")
    for step in (["prepare", "--dataset", "photos", "--out"], ["beton", "--data-pth"]):
        done = trainer(*step, folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def trained(digits: Path, tmp_path: Path) -> Callable[..., Trained]:
    def run(**changes: object) -> Trained:
        return Trained(digits, tmp_path / str(len(list(tmp_path.iterdir()))), **changes)

    return run


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the project, with a tiny experiment, to a path with a space and an accent."""
    folder = workflows.copy_project(tmp_path_factory.mktemp("a projét") / "copy")
    (folder / "experiments" / "laptop.yaml").write_text(workflows.TINY)
    return folder


@pytest.fixture(scope="session")
def finished(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run `snakemake fig1a` in the project, so that its own rules make everything.

    One process of the tests does, and the others copy what it made.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return finish(project)
    shared = tmp_path_factory.getbasetemp().parent / "finished"
    with shared.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if shared.exists():
            return shutil.copytree(shared, project, symlinks=True, dirs_exist_ok=True)
        copied = shutil.copytree(finish(project), shared.with_suffix(".tmp"), symlinks=True)
        copied.rename(shared)
    return project


def finish(project: Path) -> Path:
    done = workflows.snakemake(project, "fig1a")
    assert done.returncode == 0, done.stdout + done.stderr
    return project


@pytest.fixture
def edited(finished: Path) -> Iterator[Path]:
    """Yield the finished project; restore its settings after the test."""
    files = [finished / "config.yaml", finished / "experiments" / "laptop.yaml"]
    before = [file.read_text() for file in files]
    yield finished
    for file, text in zip(files, before, strict=True):
        file.write_text(text)


@pytest.fixture
def own(finished: Path, tmp_path: Path) -> Path:
    """Copy the finished project, for tests that make other results."""
    return shutil.copytree(finished, tmp_path / "own")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Minutes long files first, lest one process still runs them when all others are done."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="store the golden trajectories anew")

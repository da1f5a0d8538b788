"""The doctor finds what keeps Snakemake from starting, each with its fix in one line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT, command
from tests.workflows import copy_project, snakemake
from workflow.commands import starting


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = copy_project(tmp_path / "copy")
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copyfile(ROOT / name, folder / name)
    monkeypatch.chdir(folder)
    return folder


def problem(folder: Path) -> str:
    """Run the doctor, which must find exactly one problem; return its line."""
    done = command("python", "-B", "-m", "workflow", "doctor", cwd=folder)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("1 problem(s), "), done.stdout
    [line] = [line for line in done.stdout.splitlines() if line.startswith("problem ")]
    return line


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME"])
def test_a_cache_that_cannot_be_written(
    variable: str, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even by root, for whom permissions do not count."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, str(tmp_path / "file" / "home"))
    assert snakemake(copy, "--dry-run", "fig1a").returncode != 0
    found = problem(copy)
    assert f"{tmp_path}/file cannot be written; set XDG_CACHE_HOME to a folder of yours" in found
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert snakemake(copy, "--dry-run", "fig1a").returncode == 0


def test_profiles_that_unzipping_made_a_file_of(copy: Path) -> None:
    shutil.rmtree(copy / "profiles")
    (copy / "profiles").write_text("workflow/profiles")
    done = snakemake(copy, "fig1a")
    assert done.returncode != 0 and "cores" in done.stderr
    assert "run: ln -sfn workflow/profiles profiles" in problem(copy)
    subprocess.run(["ln", "-sfn", "workflow/profiles", "profiles"], cwd=copy, check=True)
    assert starting._profiles().level == "ok"


@pytest.mark.parametrize("name", ["venv", "a venv"])
def test_an_environment_that_was_moved(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pip writes the path of Python into each script, behind a shell's where it has a space."""
    made, moved = tmp_path / name, tmp_path / f"{name} moved"
    (made / "bin").mkdir(parents=True)
    (made / "bin" / "python").symlink_to(sys.executable)
    plain = f"#!{made}/bin/python\n"
    quoted = f"#!/bin/sh\n'''exec' \"{made}/bin/python\" \"$0\" \"$@\"\n' '''\n"
    script = made / "bin" / "snakemake"
    script.write_text((quoted if " " in name else plain) + "print('started')\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "prefix", str(made))
    assert subprocess.run([script], capture_output=True, text=True).stdout == "started\n"
    assert starting._scripts().level == "ok"
    shutil.copytree(made, moved, symlinks=True)
    monkeypatch.setattr(sys, "prefix", str(moved))
    for _ in ("copied", "moved"):
        check = starting._scripts()
        assert check.level == "problem" and "make setup" in check.text
        assert f"an environment that was moved ({made}/bin/python)" in check.text
        shutil.rmtree(made, ignore_errors=True)
    (moved / "bin" / "snakemake").unlink()
    assert starting._scripts().level == "problem"


@pytest.mark.parametrize(
    ("options", "level", "words"),
    [("ro", "problem", "mount it writable"), ("size=64m", "warning", "--shm-size=1g")],
)
def test_shared_memory_that_is_read_only_or_small(options: str, level: str, words: str) -> None:
    script = (
        "from workflow.commands.starting import _shared_memory as s; print(s().level, s().text)"
    )
    namespace = ("unshare", "--user", "--map-root-user", "--mount")
    mount = 'mount -t tmpfs -o "$0" none /dev/shm && exec "$@"'
    done = subprocess.run(
        [*namespace, "sh", "-c", mount, options, sys.executable, "-c", script],
        cwd=ROOT, capture_output=True, text=True, env=os.environ,
    )  # fmt: skip
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("needs user namespaces, which this machine does not allow")
    assert done.stdout.startswith(f"{level} "), done.stderr
    assert words in done.stdout

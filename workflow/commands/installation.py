"""Check what is installed here against requirements.lock; needs no settings."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workflow.commands.status import wrapped

Level = Literal["ok", "warning", "problem"]
SET_UP = "run: rm -f .venv/complete; make setup"


@dataclass(frozen=True)
class Check:
    """Hold one line of the doctor's report; a warning or problem names the fix."""

    level: Level
    subject: str
    text: str

    def __str__(self) -> str:
        return wrapped(f"{self.level:8} {self.subject:12} {self.text}", indent=22)


def check_installation() -> Iterator[Check]:
    yield _check_python()
    yield from _check_packages()
    yield _check_ffcv()
    yield _check_compiler()


def run_python(script: str, *arguments: str) -> tuple[str, str]:
    """Run ``script`` in a process of its own; return its output, or the last line of its error."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode == 0:
        return done.stdout, ""
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return "", lines[-1]


def _check_python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == (3, 11):
        return Check("ok", "python", found)
    return Check("warning", "python", f"{found}; requirements.lock is for 3.11: {SET_UP}")


def _check_packages() -> Iterator[Check]:
    lock = dict(
        re.findall(r"^([\w.-]+)==(\S+)", Path("requirements.lock").read_text("utf-8"), re.M)
    )
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    as_locked = []
    for line in project["dependencies"]:
        name = re.split(r"[^\w.-]", line)[0]
        try:
            version = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            yield Check("problem", "packages", f"{name} is not installed; {SET_UP}")
            continue
        if name not in lock:
            text = f"{name} {version} is not in requirements.lock; run: make lock"
            yield Check("warning", "packages", text)
        elif version != lock[name]:
            text = f"{name} is {version}, requirements.lock has {lock[name]}; {SET_UP}"
            yield Check("warning", "packages", text)
        else:
            as_locked.append(f"{name} {version}")
    yield Check("ok", "packages", ", ".join(as_locked))


def _check_ffcv() -> Check:
    _, reason = run_python("import ffcv")
    if reason:
        return Check(
            "problem",
            "ffcv",
            f"cannot be imported: {reason}; its C++ libraries must be there (Debian, Ubuntu: "
            f"apt-get install libopencv-dev libturbojpeg0-dev), then {SET_UP}",
        )
    return Check("ok", "ffcv", "imports, with its C++ libraries")


def _check_compiler() -> Check:
    compiler = os.environ.get("CXX", "g++")
    if path := shutil.which(compiler):
        return Check("ok", "compiler", path)
    return Check(
        "warning",
        "compiler",
        f"no {compiler}: set-up compiles FFCV with it, --compile 1 the models; apt-get install g++",
    )

"""Check what keeps Snakemake itself from starting here, whatever the settings."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from snakemake.common import get_appdirs

from workflow.commands.installation import SET_UP, Check

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 the kernel's, not a temporary file
# Docker's default of 64 MB is too little for several processes on GPUs.
SHARED_BYTES = 100e6


def check_start() -> Iterator[Check]:
    yield _cache()
    yield _scripts()
    yield _profiles()
    yield _shared_memory()


def _cache() -> Check:
    """Check the folder of Snakemake's copies of source files, below XDG_CACHE_HOME, else HOME."""
    check = writable(str(Path(get_appdirs().user_cache_dir)))
    if check.level == "ok":
        return Check("ok", "cache", f"{check.subject} {check.text}")
    text = (
        f"Snakemake's {check.subject}: {check.text.partition(';')[0]}; set XDG_CACHE_HOME to a "
        "folder of yours"
    )
    return Check("problem", "cache", text)


def _scripts() -> Check:
    """Check the path of Python in an environment's scripts, which moving it leaves behind."""
    script = Path(sys.prefix, "bin", "snakemake")
    try:
        head = script.read_bytes()[:4096].decode("utf-8", "replace")
    except OSError:
        return Check("problem", "snakemake", f"there is no {script}; {SET_UP}")
    named = re.match(r"#!(?:/bin/sh\s+\'\'\'exec\' )?\"?(/[^\"\n]*/python[^\s\"]*)", head)
    if named and not _is_ours(Path(named[1])):
        text = f"{script} is of an environment that was moved ({named[1]}); {SET_UP}"
        return Check("problem", "snakemake", text)
    return Check("ok", "snakemake", str(script))


def _is_ours(python: Path) -> bool:
    return python.exists() and python.parent.resolve() == Path(sys.prefix, "bin").resolve()


def _profiles() -> Check:
    """Check profiles/default, which is behind a link that unzipping may lose."""
    if Path("profiles", "default", "config.yaml").is_file():
        return Check("ok", "profiles/", "has Snakemake's defaults")
    text = "is no link to workflow/profiles any more; run: ln -sfn workflow/profiles profiles"
    return Check("problem", "profiles/", text)


def _shared_memory() -> Check:
    """Take a semaphore, as the writers of .beton files do, and look for room for NCCL."""
    try:
        multiprocessing.Lock()
    except OSError as error:
        text = (
            f"{SHARED_MEMORY} cannot be written ({error.strerror}); mount it writable, 1 GB or more"
        )
        return Check("problem", "shm", text)
    free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0
    text = f"{free / 1e6:.0f} MB free at {SHARED_MEMORY}"
    if free < SHARED_BYTES:
        fix = "too little for processes on several GPUs; with Docker: --shm-size=1g"
        return Check("warning", "shm", f"{text}, {fix}")
    return Check("ok", "shm", text)


def writable(name: str) -> Check:
    there = existing(Path(name))
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return Check("ok", f"{name}/", "can be written")
    return Check("problem", f"{name}/", f"{there} cannot be written; make it a folder of yours")


def existing(path: Path) -> Path:
    """Return ``path``, or its nearest parent that exists."""
    return next(p for p in [path, *path.absolute().parents] if p.exists())

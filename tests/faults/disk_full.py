"""A disk that is full at every kind of write: one line, nothing half-written, on with room.

``python -m tests.faults.disk_full`` (as root, to mount a small file system in memory) prints how
each command ended on it, and whether it then gave the bytes that it gives elsewhere.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from tests import workflows
from tests.commands import BIN, command
from tests.faults.kills import prepared
from tests.faults.writes import Hindrance, Outcome, try_out, writes

SIZE = 64 * 2**20


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """Mount a small file system at ``place``; raise PermissionError if mounting is not allowed."""
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    if subprocess.run(words, capture_output=True).returncode:
        raise PermissionError("needs root, to mount a small file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def filled(disk: Path, room: int) -> Iterator[None]:
    """Meanwhile there are ``room`` bytes left on it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(2**16))
    with filler.open("r+b") as file:
        file.truncate(max(0, filler.stat().st_size - room))
    try:
        yield
    finally:
        filler.unlink()


def full(disk: Path, room: int) -> Hindrance:
    reasons = ("No space left", "are free")
    return Hindrance(f"{room} bytes", partial(filled, disk, room), reasons)


def outcomes(folder: Path, kinds: int | None = None) -> Iterator[Outcome]:
    """Of all kinds, or of the first room of each kind where ``kinds`` says so."""
    source = prepared(folder / "digits")
    with small_disk(folder / "disk") as disk:
        for i, write in enumerate(writes(source)):
            for room in write.room[:kinds]:
                elsewhere = folder / f"elsewhere {i}"
                yield try_out(write, full(disk, room), disk / "a folder é", elsewhere)


def through_snakemake(folder: Path, data: Path) -> list[str]:
    """Run the workflow on a disk that fills up, then with free space; return the complaints."""
    complaints = []
    with small_disk(folder / "disk of a project") as disk:
        project = workflows.copy_project(disk / "project")
        (project / "experiments" / "laptop.yaml").write_text(workflows.TINY)
        shutil.copytree(data, project / "resources" / "digits")
        with filled(disk, 2**18):
            full = workflows.snakemake(project, "fig1a")
        if full.returncode == 0:
            complaints.append("it did not get full")
        command(BIN / "snakemake", "--unlock", cwd=project)
        done = workflows.snakemake(project, "fig1a")
        if done.returncode:
            complaints.append(done.stdout + done.stderr)
        elif not (project / "results/laptop/figures/fig1a.png").exists():
            complaints.append("no figure")
    return complaints


def main() -> int:
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        for outcome in outcomes(Path(name)):
            bad += bool(outcome.complaints)
            print(outcome, flush=True)
        complaints = through_snakemake(Path(name), Path(name) / "digits")
        print(f"snakemake: {'; '.join(complaints) or 'went on once there was room'}")
    return bool(bad or complaints)


if __name__ == "__main__":
    sys.exit(main())

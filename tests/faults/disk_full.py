"""A disk that is full at every kind of write: one line, nothing half-written, on with room.

``python -m tests.faults.disk_full`` (as root, to mount a small file system in memory) prints how
each command ended on it, and whether it then gave the bytes that it gives elsewhere.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests import workflows
from tests.commands import BIN, ROOT, command
from tests.faults import images
from tests.faults.kills import prepared

SIZE = 64 * 2**20
# Which write fails depends on how much room there is. In bytes, from none at all
ROOM = (0, 4096, 3 * 2**16, 2**20)
TRAIN = (
    "--total-batch-size", 256, "--train-subset", 512, "--epochs", 30, "--step1", 2,
    "--eval-freq1", 5, "--save-freq1", 10, "--clients", "serial", "--momentum", 0.9,
)  # fmt: skip


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """Raises PermissionError where it may not be mounted."""
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


@dataclass(frozen=True)
class Write:
    """``words`` to ``python -m`` in a folder where ``before`` has put what they need.

    ``results``: the files that it makes there.
    """

    name: str
    words: tuple[object, ...]
    results: tuple[str, ...]
    before: Callable[[Path], object] = lambda folder: None
    room: tuple[int, ...] = (0, 4096)


@dataclass
class Outcome:
    write: Write
    room: int
    said: str
    complaints: list[str] = field(default_factory=list)


def writes(source: Path) -> list[Write]:
    """All kinds; ``source`` has the digits prepared, the photos listed and a figure's tables."""

    def copies(*names: str) -> Callable[[Path], None]:
        return lambda folder: [shutil.copy(source / name, folder) for name in names] and None

    tables = ROOT / "results" / "reference" / "laptop" / "tables"
    experiments = ROOT / "experiments" / "laptop.yaml"
    analysis = ("workflow.analysis",)
    train = ("trainer", "train", "--data-pth", source, *TRAIN, "--log-pth", "log", "--out", "out")
    made = ("out/metrics.jsonl", "out/model.pt")
    return [
        Write("arrays", ("trainer", "prepare", "--out", "."), ("train.npz", "test.npz")),
        Write(
            "image files and their list",
            ("trainer", "prepare", "--dataset", "photos", "--out", "."),
            ("train.json", "test.json"),
            room=(0, 2**16),
        ),
        Write(
            "raw .beton",
            ("trainer", "beton", "--data-pth", "."),
            ("train.beton", "test.beton", "train.beton.json", "test.beton.json"),
            copies("train.npz", "test.npz"),
            room=(2**20, 0, 2**22, 7 * 2**20),
        ),
        *(
            Write(
                f".beton of image files, JPEG with probability {p}",
                ("trainer", "beton", "--data-pth", "out", "--split", "train", "--num-workers", 2,
                 "--compress-probability", p),
                ("out/train.beton", "out/train.beton.json"),
                images.make_list,
                room=(2**20, 0, 2**21),
            )
            for p in (0, 1)
        ),
        Write("a run", train, made, room=ROOM),
        Write(
            "a run with checkpoints", (*train, "--checkpoint-every", 0), made, room=(*ROOM, 2**19)
        ),
        Write(
            "a table",
            (*analysis, "compare", "--tables", tables / "fig1a.csv", "--reference", tables,
             "--out", "compare.csv"),
            ("compare.csv",),
            room=(0,),
        ),
        Write(
            "a figure",
            (*analysis, "figure", "fig1a", "--tables", tables / "fig1a.csv", "--experiments",
             experiments, "--out", "fig1a"),
            ("fig1a.csv", "fig1a.png", "fig1a.pdf"),
            room=(0, 4096, 2**16),
        ),
        Write(
            "verdicts",
            (*analysis, "claims", "--tables", *sorted(tables.glob("*.csv")), "--experiments",
             experiments, "--out", "claims.csv"),
            ("claims.csv", "claims.html"),
        ),
    ]  # fmt: skip


def try_out(write: Write, room: int, disk: Path, elsewhere: Path) -> Outcome:
    """``write`` on the full ``disk``, again with room, and ``elsewhere`` for comparison."""
    folder = disk / "a folder é"
    for place in (folder, elsewhere):
        if not place.exists():
            place.mkdir()
            write.before(place)
    if not all((elsewhere / name).exists() for name in write.results):
        done = _run(write, elsewhere)
        assert done.returncode == 0, done.stderr
    with filled(disk, room):
        full = _run(write, folder)
        errors = [line for line in full.stderr.splitlines() if line.startswith("error: ")]
        outcome = Outcome(write, room, errors[0] if errors else "")
        if full.returncode:
            outcome.complaints += _complaints(full, errors, folder, elsewhere, write)
        else:
            outcome.said = "it fits"
    again = _run(write, folder)
    if again.returncode:
        outcome.complaints.append(f"failed with room, too: {again.stderr}")
        return outcome
    for name in write.results:
        if not _same(folder / name, elsewhere / name):
            outcome.complaints.append(f"{name} differs from an undisturbed one")
    shutil.rmtree(folder)
    return outcome


def _run(write: Write, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", *map(str, write.words)]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)


def _complaints(
    done: subprocess.CompletedProcess[str],
    errors: list[str],
    folder: Path,
    whole: Path,
    write: Write,
) -> Iterator[str]:
    if done.returncode != 2 or len(errors) != 1 or "\nTraceback" in done.stderr:
        yield f"status {done.returncode}: {done.stderr}"
    elif "No space left" not in errors[0] and "are free" not in errors[0]:
        yield f"does not say why: {errors[0]}"
    for name in write.results:
        if (folder / name).exists() and not _same(folder / name, whole / name):
            yield f"{name} is half-written"
    for path in folder.rglob("*.tmp"):
        yield f"{path.name} is left"


def _same(a: Path, b: Path) -> bool:
    """A PDF holds the time at which it was made, an image list its folder."""
    if a.suffix == ".pdf":
        return a.read_bytes()[-6:] == b.read_bytes()[-6:]
    here, there = (str(path.parent.resolve()).encode() for path in (a, b))
    return a.read_bytes().replace(here, there) == b.read_bytes()


def outcomes(folder: Path, kinds: int | None = None) -> Iterator[Outcome]:
    """Of all kinds, or of the first room of each kind where ``kinds`` says so."""
    source = prepared(folder / "digits")
    with small_disk(folder / "disk") as disk:
        for i, write in enumerate(writes(source)):
            for room in write.room[:kinds]:
                yield try_out(write, room, disk, folder / f"elsewhere {i}")


def through_snakemake(folder: Path, data: Path) -> list[str]:
    """A project on a disk that gets full under it; then with room. What is wrong, if anything."""
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
            verdict = "; ".join(outcome.complaints) or outcome.said
            print(f"{outcome.write.name}, {outcome.room} bytes: {verdict}", flush=True)
        complaints = through_snakemake(Path(name), Path(name) / "digits")
        print(f"snakemake: {'; '.join(complaints) or 'went on once there was room'}")
    return bool(bad or complaints)


if __name__ == "__main__":
    sys.exit(main())

"""Every kind of write that this project does, tried where it cannot succeed, then where it can."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from tests.commands import ROOT
from tests.faults import images

# Which write fails depends on how much room there is. In bytes, from none at all
ROOM = (0, 4096, 3 * 2**16, 2**20)
TRAIN = (
    "--total-batch-size", 256, "--train-subset", 512, "--epochs", 30, "--step1", 2,
    "--eval-freq1", 5, "--save-freq1", 10, "--clients", "serial", "--momentum", 0.9,
)  # fmt: skip


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


@dataclass(frozen=True)
class Hindrance:
    """What keeps a command from writing while ``there`` is entered.

    ``reasons``: one of them must be in what the command says. ``user``: a number, to run it as.
    """

    name: str
    there: Callable[[], AbstractContextManager[None]]
    reasons: tuple[str, ...]
    user: int | None = None


@dataclass
class Outcome:
    write: Write
    hindrance: Hindrance
    said: str
    complaints: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        verdict = "; ".join(self.complaints) or self.said
        return f"{self.write.name}, {self.hindrance.name}: {verdict}"


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


def try_out(write: Write, hindrance: Hindrance, folder: Path, elsewhere: Path) -> Outcome:
    """``write`` into ``folder``, hindered and then not, and ``elsewhere`` for comparison."""
    for place in (folder, elsewhere):
        if not place.exists():
            place.mkdir()
            write.before(place)
    if not all((elsewhere / name).exists() for name in write.results):
        done = _run(write, elsewhere)
        assert done.returncode == 0, done.stderr
    with hindrance.there():
        tried = _run(write, folder, hindrance.user)
        errors = [line for line in tried.stderr.splitlines() if line.startswith("error: ")]
        outcome = Outcome(write, hindrance, errors[0] if errors else "")
        if tried.returncode:
            outcome.complaints += _complaints(tried, errors, folder, elsewhere, outcome)
        else:
            outcome.said = "it fits"
    again = _run(write, folder)
    if again.returncode:
        outcome.complaints.append(f"failed without it, too: {again.stderr}")
        return outcome
    for name in write.results:
        if not _same(folder / name, elsewhere / name):
            outcome.complaints.append(f"{name} differs from an undisturbed one")
    shutil.rmtree(folder)
    return outcome


def _run(write: Write, folder: Path, user: int | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", *map(str, write.words)]
    return subprocess.run(
        words, cwd=folder, env=environment, user=user, capture_output=True, text=True
    )


def _complaints(
    done: subprocess.CompletedProcess[str],
    errors: list[str],
    folder: Path,
    whole: Path,
    outcome: Outcome,
) -> Iterator[str]:
    if done.returncode != 2 or len(errors) != 1 or "\nTraceback" in done.stderr:
        yield f"status {done.returncode}: {done.stderr}"
    elif not any(reason in errors[0] for reason in outcome.hindrance.reasons):
        yield f"does not say why: {errors[0]}"
    for name in outcome.write.results:
        if (folder / name).exists() and not _same(folder / name, whole / name):
            yield f"{name} is half-written"
    for path in folder.rglob("*.tmp"):
        yield f"{path.name} is left"


def _same(a: Path, b: Path) -> bool:
    """Compare two files, ignoring a PDF's body (it has a timestamp) and the files' own folders."""
    if a.suffix == ".pdf":
        return a.read_bytes()[-6:] == b.read_bytes()[-6:]
    here, there = (str(path.parent.resolve()).encode() for path in (a, b))
    return a.read_bytes().replace(here, there) == b.read_bytes()

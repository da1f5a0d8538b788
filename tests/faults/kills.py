"""Random kills: runs that are killed again and again end with the bits of one that was not.

``python -m tests.faults.kills 100`` kills as often, spread over ``RUNS``, and prints what became of
each. A victim is any process of the run: the launcher, one of its ranks, Snakemake, a shell.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests import workflows
from tests.commands import BIN, ROOT

ENVIRONMENT = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
SECONDS = 180  # no run takes as long


@dataclass(frozen=True)
class Kind:
    """A run to kill, by hand on some ``processes``. H does not divide the epoch."""

    processes: int
    options: Sequence[object]
    fork: bool = False


COMMON = (
    "--batch-size", 8, "--total-batch-size", 32, "--clients", "serial", "--eval-on-start", 1,
    "--start-lr", 0.002, "--checkpoint-every", 0.002, "--wait", 1,
)  # fmt: skip
RUNS = {
    "plain": Kind(1, ("--step1", 7, "--eval-freq1", 9, "--epochs", 300)),
    "momentum": Kind(2, ("--momentum", 0.9, "--step1", 7, "--eval-freq1", 9, "--epochs", 150)),
    "batchnorm": Kind(
        1,
        ("--model", "cnn_bn", "--bn-batches", 4, "--step1", 5, "--eval-freq1", 9, "--epochs", 60,
         "--save-freq1", 10),
    ),
    "label noise": Kind(
        2,
        ("--label-noise", 1, "--noise-p", 0.2, "--replacement", 1, "--aug", 0, "--step1", 11,
         "--eval-freq1", 7, "--epochs", 150),
        fork=True,
    ),
    "phases": Kind(
        2,
        ("--decay1", 50, "--step1", 1, "--eval-freq1", 50, "--step2", 1000, "--epochs", 150,
         "--warm-up", 1, "--warmup-epochs", 3, "--max-lr", 0.01, "--momentum", 0.9,
         "--nesterov", 1),
    ),
}  # fmt: skip
SNAKEMAKE = "snakemake"  # a figure of four runs and two start points
FIGURE = """
execution: {processes: 1, threads: 1, device: cpu}
experiments:
  fig1a:
    title: killed
    seeds: [1, 2]
    settings: {dataset: digits, model: mlp, batch_size: 8, total_batch_size: 32, train_subset: 300}
    phase1: {epochs: 60, eval_freq1: 90}
    phase2: {epochs: 60, eval_on_start: true}
    runs:
      - {step1: 1, eval_freq1: 126}
      - {step1: 7, eval_freq1: 18}
"""


@dataclass
class Outcome:
    """``killed``: the victims. ``differs``: what is not as in the undisturbed run."""

    name: str
    killed: list[str]
    starts: int
    differs: list[str]


def prepared(folder: Path) -> Path:
    """Make the digits' .beton files in ``folder``."""
    for step in (["prepare", "--out", folder], ["beton", "--data-pth", folder]):
        words = [sys.executable, "-m", "trainer", *map(str, step)]
        subprocess.run(words, cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True)
    return folder


def by_hand(kind: Kind, data: Path, folder: Path) -> tuple[list[str], Path]:
    """Return the command of a run, and its working directory."""
    words: list[object] = [sys.executable, "-m", "trainer"]
    if kind.processes > 1:
        main = ("--start-method", "fork", "--run-path", ROOT / "trainer" / "__main__.py")
        how = main if kind.fork else ("-m", "trainer")
        words = [BIN / "torchrun", "--standalone", "--nproc-per-node", kind.processes, *how]
    words += ["train", "--data-pth", data, "--log-pth", folder, *COMMON, *kind.options]
    return [str(word) for word in words], ROOT


def by_snakemake(data: Path, folder: Path) -> tuple[list[str], Path]:
    if not folder.exists():
        workflows.copy_project(folder)
        (folder / "experiments" / "laptop.yaml").write_text(FIGURE)
        workflows.edit(folder / "config.yaml", "checkpoint_every: 10", "checkpoint_every: 0.002")
        shutil.copytree(data, folder / "resources" / "digits")
    return [str(BIN / "snakemake"), "fig1a"], folder


def survive(command: Sequence[str], cwd: Path, kills: int, draw: random.Random) -> Outcome:
    """Start ``command`` until it succeeds, killing its first starts at random moments.

    What a killed launcher leaves behind is not waited for: the next start meets it.
    """
    outcome = Outcome("", [], 0, [])
    while True:
        outcome.starts += 1
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(
                command, cwd=cwd, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True
            )
            while len(outcome.killed) < kills and process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(draw.uniform(0.5, 7))
                if process.poll() is None and (victim := _victim(process.pid, draw)) is not None:
                    outcome.killed.append(victim)
            if process.wait(SECONDS) == 0:
                return outcome
            log.seek(0)
            said = log.read()
        assert outcome.starts <= kills + 1, f"failed without having been killed:\n{said}"
        if cwd != ROOT:  # what a killed snakemake leaves
            subprocess.run([command[0], "--unlock"], cwd=cwd, env=ENVIRONMENT, capture_output=True)


def _victim(pid: int, draw: random.Random) -> str | None:
    """Kills one of the processes of a start, each role as likely as another; says which."""
    with suppress(psutil.NoSuchProcess):
        launcher = psutil.Process(pid)
        by_role: dict[str, list[psutil.Process]] = {}
        for process in [launcher, *launcher.children(recursive=True)]:
            by_role.setdefault(_role(process), []).append(process)
        role = draw.choice(sorted(by_role))
        draw.choice(by_role[role]).kill()
        return role
    return None


def _role(process: psutil.Process) -> str:
    words = " ".join(process.cmdline())
    rank = process.environ().get("RANK")
    if rank is not None:
        return f"rank {rank}"
    for role, sign in (
        ("torchrun", "bin/torchrun"),
        ("torchrun", "trainer.launch"),
        ("snakemake", "bin/snakemake"),
    ):
        if sign in words and "bash" not in words:
            return role
    return "trainer" if "trainer" in words and "bash" not in words else "shell"


def compare(whole: Path, killed: Path, files: Sequence[str]) -> list[str]:
    return [name for name in files if (whole / name).read_bytes() != (killed / name).read_bytes()]


def results(folder: Path) -> list[str]:
    """List the files that must be equal: metrics and models of runs, tables, figures' numbers."""
    found = itertools.chain.from_iterable(
        folder.rglob(pattern) for pattern in ("metrics.jsonl", "*.pt", "fig*.csv")
    )
    kept = [path for path in found if "reference" not in path.parts]
    return sorted(str(path.relative_to(folder)) for path in kept)


def torture(names: Sequence[str], kills: int, seed: int, folder: Path) -> Iterator[Outcome]:
    """``kills`` kills, spread over the runs ``names`` in turns of a few."""
    draw = random.Random(seed)  # noqa: S311 repeatable
    data = prepared(folder / "digits")
    left = kills
    for turn, name in enumerate(itertools.cycle(names)):
        whole = folder / f"{name} whole"
        command = lambda place, name=name: (  # noqa: E731
            by_snakemake(data, place) if name == SNAKEMAKE else by_hand(RUNS[name], data, place)
        )
        if not whole.exists():
            undisturbed = survive(*command(whole), 0, draw)
            assert undisturbed.starts == 1
        killed = folder / f"{name} {turn}"
        outcome = survive(*command(killed), min(left, draw.randint(2, 5)), draw)
        files = results(whole)
        assert files
        outcome.name = name
        outcome.differs = compare(whole, killed, files)
        if results(killed) != files:
            outcome.differs.append("the list of files")
        left -= len(outcome.killed)
        shutil.rmtree(killed)
        yield outcome
        if left <= 0:
            return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", nargs="+", default=[*RUNS, SNAKEMAKE])
    arguments = parser.parse_args()
    victims: Counter[str] = Counter()
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for outcome in torture(arguments.runs, arguments.kills, arguments.seed, Path(folder)):
            victims.update(outcome.killed)
            bad += bool(outcome.differs)
            verdict = f"DIFFERS: {outcome.differs}" if outcome.differs else "same bits"
            killed = ", ".join(outcome.killed)
            print(
                f"{outcome.name:12} {outcome.starts} starts, killed: {killed}: {verdict}",
                flush=True,
            )
    print(f"{victims.total()} kills: {dict(victims)}; {bad} runs differ")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())

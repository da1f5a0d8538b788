"""Call the stages of `make gpu` one after the other, within a given time.

Without a GPU it is a dry run on the CPU, of the same stages with small networks. What is finished
is not repeated by the next call, what time or Ctrl-C has stopped resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from bench.gpu.checks import run_benchmark, run_tests
from bench.gpu.figure1a import run_figure
from bench.gpu.machine import check_driver, describe, fingerprint
from bench.gpu.page import summarize, title, write_page
from bench.gpu.stages import Outcome, Site, read_outcome, write_outcome
from trainer.errors import UserError
from trainer.files.atomic import prepare_output_folder, write_json

# Each with the share of the time still left that it may take
STAGES: dict[str, tuple[Callable[[Site], Outcome], float]] = {
    "tests": (run_tests, 0.4),
    "bench": (run_benchmark, 0.45),
    "fig1a": (run_figure, 1.0),
}
MINUTES, DRY_RUN_MINUTES = 24.0, 60.0  # the latter on a CPU that may be busy
MACHINE = "machine.json"


def main() -> int:
    """Run the stages that are left; return 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, help=f"default: {MINUTES:g}; of a dry run {DRY_RUN_MINUTES:g}"
    )
    parser.add_argument("--out", type=Path, help="default: results/gpu, or results/gpu-dry-run")
    parser.add_argument("--data", type=Path, default=Path("resources/cifar10"))
    parser.add_argument("--checkpoints", type=Path, default=Path("resources/checkpoints"))
    parser.add_argument("--again", action="store_true", help="repeat what is finished, too")
    given = parser.parse_args()
    check_driver()
    about = describe()
    out = (given.out or Path("results", "gpu-dry-run" if about["dry_run"] else "gpu")).absolute()
    minutes = given.minutes or (DRY_RUN_MINUTES if about["dry_run"] else MINUTES)
    site = Site(
        out=out,
        state=out.with_name(f"{out.name}-state"),
        data=given.data,
        checkpoints=given.checkpoints,
        dry_run=about["dry_run"],
        end=time.monotonic() + 60 * minutes,
    )
    if given.again:
        _remove(site)
    _begin(site, about)
    if site.dry_run:  # whatever else the machine does: threads that wait for others spin
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    for number in (signal.SIGTERM, signal.SIGHUP):  # a lost connection, for instance, is a Ctrl-C
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    print(f"{title(about)}. At most {minutes:g} minutes, to {site.out}.")
    print("Ctrl-C stops it, the same command resumes there.\n", flush=True)
    try:
        for name in STAGES:
            _run(site, name)
    finally:
        outcomes = {name: read_outcome(site, name) for name in STAGES}
        page = write_page(site, about, outcomes)
        print(f"\n{summarize(outcomes)}\nMore in {page}", flush=True)
    return int(any(o is None or o.state == "failed" for o in outcomes.values()))


def _run(site: Site, name: str) -> None:
    """Run a stage unless it is done; an error that it does not expect ends no other stage."""
    before = read_outcome(site, name)
    if before is not None and before.state == "done":
        print(f"{name}: done before: {before.summary}", flush=True)
        return
    run, share = STAGES[name]
    started = time.monotonic()
    seconds = share * site.seconds_left()
    print(f"{name}: at most {seconds:.0f} s, log in {site.out / name}*.log", flush=True)
    try:
        outcome = run(Site(**{**vars(site), "end": started + seconds}))
    except UserError as error:
        outcome = Outcome(state="failed", summary=str(error))
    except Exception as error:
        traceback.print_exc()
        outcome = Outcome(state="failed", summary=f"{type(error).__name__}: {error}")
    write_outcome(site, name, outcome)
    taken = f"{time.monotonic() - started:.0f} s"
    print(f"{name}: {outcome.state} after {taken}: {outcome.summary}", flush=True)


def _remove(site: Site) -> None:
    """Remove the results of an earlier call, and nothing else that ``--out`` may name."""
    if site.out.exists() and not (site.out / MACHINE).is_file():
        raise UserError(
            f"{site.out}: holds no results of this command (no {MACHINE}), so --again does not "
            "remove it; choose another --out, or remove it yourself"
        )
    for folder in (site.out, site.state):
        shutil.rmtree(folder, ignore_errors=True)


def _begin(site: Site, about: dict[str, object]) -> None:
    """Create the folders; refuse to add to results of other code, another torch or GPU."""
    for folder in (site.state, site.out):
        prepare_output_folder(folder)
    file = site.out / MACHINE
    if file.exists() and fingerprint(json.loads(file.read_text("utf-8"))) != fingerprint(about):
        raise UserError(
            f"{site.out}: holds results of other code, another torch or GPU; move it away, choose "
            "another --out, or give --again to remove it"
        )
    write_json(file, about)

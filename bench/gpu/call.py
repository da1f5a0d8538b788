"""Call the stages of `make gpu` one after the other, within a given time.

Without a GPU it is a dry run on the CPU, of the same stages with small networks. What is finished
is not repeated by the next call, what time has stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from bench.gpu.checks import run_benchmark, run_tests
from bench.gpu.figure1a import run_figure
from bench.gpu.machine import describe, fingerprint
from bench.gpu.page import write_page
from bench.gpu.stages import Outcome, Site, read_outcome, write_outcome
from trainer.errors import UserError
from trainer.files.atomic import write_json

# Each with the share of the time still left that it may take
STAGES: dict[str, tuple[Callable[[Site], Outcome], float]] = {
    "tests": (run_tests, 0.4),
    "bench": (run_benchmark, 0.45),
    "fig1a": (run_figure, 1.0),
}
MINUTES = 24.0


def main() -> int:
    """Run the stages that are left; return 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="default: results/gpu, or results/gpu-dry-run")
    parser.add_argument("--data", type=Path, default=Path("resources/cifar10"))
    parser.add_argument("--checkpoints", type=Path, default=Path("resources/checkpoints"))
    parser.add_argument("--again", action="store_true", help="repeat what is finished, too")
    given = parser.parse_args()
    about = describe()
    out = given.out or Path("results", "gpu-dry-run" if about["dry_run"] else "gpu")
    end = time.monotonic() + 60 * given.minutes
    site = Site(
        out=out,
        state=out.with_name(f"{out.name}-state"),
        data=given.data,
        checkpoints=given.checkpoints,
        dry_run=about["dry_run"],
        end=end,
    )
    if given.again:
        for folder in (site.out, site.state):
            shutil.rmtree(folder, ignore_errors=True)
    _begin(site, about)
    for name, (run, share) in STAGES.items():
        before = read_outcome(site, name)
        if before is not None and before.state == "done":
            print(f"{name}: done before: {before.summary}", flush=True)
            continue
        started = time.monotonic()
        own = Site(**{**vars(site), "end": started + share * site.seconds_left()})
        outcome = run(own)
        write_outcome(site, name, outcome)
        taken = f"{time.monotonic() - started:.0f} s"
        print(f"{name}: {outcome.state} after {taken}: {outcome.summary}", flush=True)
    outcomes = {name: read_outcome(site, name) for name in STAGES}
    page = write_page(site, about, outcomes)
    print(f"\n{page.read_text('utf-8')}\nin {page}")
    return int(any(o is None or o.state == "failed" for o in outcomes.values()))


def _begin(site: Site, about: dict[str, object]) -> None:
    """Create the folders; refuse to add to results of other code, another torch or GPU."""
    site.state.mkdir(parents=True, exist_ok=True)
    site.out.mkdir(parents=True, exist_ok=True)
    file = site.out / "machine.json"
    if file.exists() and fingerprint(json.loads(file.read_text("utf-8"))) != fingerprint(about):
        raise UserError(
            f"{site.out}: holds results of other code, another torch or GPU; move it away, choose "
            "another --out, or give --again to remove it"
        )
    write_json(file, about)

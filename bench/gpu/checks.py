"""Run the checks of tests/gpu, and the benchmark, as stages."""

from __future__ import annotations

import re
from xml.etree.ElementTree import ParseError

from bench.gpu.machine import installed
from bench.gpu.stages import Outcome, Site
from bench.gpu.table import tables
from bench.gpu.throughput import FAILED, LATE, LEFT_OUT, whole_lines
from trainer.files.atomic import atomic

CHECKS = "tests/gpu"


def run_tests(site: Site) -> Outcome:
    """Run tests/gpu alone, so that a machine needs no other test's packages."""
    if not installed("pytest"):
        reason = f"{CHECKS}: needs pytest"
        return Outcome(state="left out", summary="no pytest here", left_out=[reason])
    xml = site.out / "tests.xml"
    xml.unlink(missing_ok=True)
    words = ["-m", "pytest", CHECKS, "-vv", "-rs", "--durations=10", "--confcutdir", CHECKS]
    words += ["-p", "no:cacheprovider", "-p", "no:xdist", f"--junitxml={xml}"]
    status = site.run(words, "tests.log", site.seconds_left())
    if status is None:  # pytest was killed before it wrote what it found
        return _so_far((site.out / "tests.log").read_text("utf-8", "replace"))
    try:
        cases = list(_cases(xml.read_text("utf-8")))
    except (OSError, ParseError):
        return Outcome(state="failed", summary="pytest did not start; see tests.log")
    finally:
        xml.unlink(missing_ok=True)
    failed = [f"{name}: {why}" for name, kind, why in cases if kind in ("failure", "error")]
    skipped = [f"{name}: {reason}" for name, kind, reason in cases if kind == "skipped"]
    passed = len(cases) - len(failed) - len(skipped)
    summary = f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped"
    return Outcome(
        state="failed" if status else "done", summary=summary, failed=failed, left_out=skipped
    )


def _so_far(log: str) -> Outcome:
    """Count the tests in the log of a call that time has ended; the next call begins anew."""
    passed, failed, skipped = (
        len(re.findall(rf"^{CHECKS}/\S+.* {word}\b", log, re.MULTILINE))
        for word in ("PASSED", "(?:FAILED|ERROR)", "SKIPPED")
    )
    summary = f"time was up after {passed} passed, {failed} failed, {skipped} skipped: tests.log"
    return Outcome(state="failed" if failed else "stopped", summary=summary)


def _cases(xml: str) -> list[tuple[str, str, str]]:
    """Return each test's name, how it ended and why."""
    from xml.etree import ElementTree

    found = []
    for case in ElementTree.fromstring(xml).iter("testcase"):  # noqa: S314 pytest's, just written
        kinds = {child.tag: child for child in case}
        kind = next((k for k in ("failure", "error", "skipped") if k in kinds), "passed")
        reason = kinds[kind].get("message", "") if kind in kinds else ""
        module = case.get("classname", "").rpartition(".")[-1]
        found.append((f"{module}::{case.get('name')}", kind, reason.partition("\n")[0]))
    return found


def run_benchmark(site: Site) -> Outcome:
    """Measure images per second until everything is measured or the time is up."""
    lines = site.out / "bench.jsonl"
    # A case under way may take longer than its share; what it has written is kept.
    share = site.seconds_left() / 2
    words = ["-m", "bench.gpu.throughput", "--out", lines, "--seconds", share]
    status = site.run(words, "bench.log", site.seconds_left())
    said = (site.out / "bench.log").read_text("utf-8", "replace").splitlines()
    late, left_out, failed = (
        [line.removeprefix(sign) for line in said if line.startswith(sign)]
        for sign in (LATE, LEFT_OUT, FAILED)
    )
    measured = whole_lines(lines)
    with atomic(site.out / "bench.md") as temporary:
        temporary.write_text(tables(measured), "utf-8")
    if status and not failed:  # ended by itself, outside of a measurement
        failed = [said[-1] if said else "it said nothing; see bench.log"]
    return Outcome(
        state="failed" if failed else "stopped" if status is None or late else "done",
        summary=f"{len(measured)} measurements",
        failed=failed,
        left_out=[*left_out, *(f"{name}: time was up" for name in late)],
    )

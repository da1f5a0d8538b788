"""Write what `make gpu` found as a page, README.md of its folder, and in short for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.gpu.stages import Outcome, Site
from trainer.files.atomic import atomic

Outcomes = Mapping[str, Outcome | None]
NOT_RUN = Outcome(state="stopped", summary="not run yet")


def title(about: Mapping[str, Any]) -> str:
    """Say where it runs; of a dry run, what that is worth."""
    if about["dry_run"]:
        return "A dry run on the CPU, by small stand-ins: no GPU has run any of this"
    return f"On {', '.join(gpu['name'] for gpu in about['gpus'])}"


def summarize(outcomes: Outcomes) -> str:
    """Give one line for each stage, and say what failed and how much was left out."""
    lines = []
    for name, outcome in outcomes.items():
        found = outcome or NOT_RUN
        lines.append(f"{name:<8}{found.state:<10}{found.summary}")
        lines += [f"{'':<8}FAILED    {failed}" for failed in found.failed]
    left_out = sum(len(outcome.left_out) for outcome in outcomes.values() if outcome)
    if left_out:
        lines.append(f"{left_out} checks or measurements were left out, each for a reason.")
    states = {(outcome or NOT_RUN).state for outcome in outcomes.values()}
    if "failed" in states:
        lines.append("FAILED: a stage has failed, see its log.")
    elif "stopped" in states:
        lines.append("Unfinished: the same command resumes.")
    else:
        lines.append("All is done that this machine has the packages and data for.")
    return "\n".join(lines)


def write_page(site: Site, about: Mapping[str, Any], outcomes: Outcomes) -> Path:
    page = site.out / "README.md"
    with atomic(page) as temporary:
        temporary.write_text("\n".join(_lines(site, about, outcomes)) + "\n", "utf-8")
    return page


def _lines(site: Site, about: Mapping[str, Any], outcomes: Outcomes) -> Iterator[str]:
    yield f"# {title(about)}"
    yield ""
    commit = about["git_commit"] or "unknown"
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    yield f"Commit {commit}{' with uncommitted changes' if about['git_dirty'] else ''}; {versions}."
    yield ""
    yield "| stage | state | found |"
    yield "| --- | --- | --- |"
    for name, outcome in outcomes.items():
        found = outcome or NOT_RUN
        yield f"| {name} | {found.state} | {found.summary} |"
    failed = [line for outcome in outcomes.values() if outcome for line in outcome.failed]
    missing = [f"{package} is not installed: {what}" for package, what in about["missing"].items()]
    skipped = [line for outcome in outcomes.values() if outcome for line in outcome.left_out]
    for heading, items in (("Failed", failed), ("Left out", [*missing, *skipped])):
        yield ""
        yield f"{heading}:"
        yield ""
        yield from (f"- {item}" for item in items or ["nothing"])
    table = site.out / "bench.md"
    if table.exists():
        yield ""
        yield table.read_text("utf-8").rstrip()

"""Write what `make gpu` found as a page: README.md of its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.gpu.stages import Outcome, Site


def write_page(
    site: Site, about: Mapping[str, Any], outcomes: Mapping[str, Outcome | None]
) -> Path:
    page = site.out / "README.md"
    page.write_text("\n".join(_lines(site, about, outcomes)) + "\n", "utf-8")
    return page


def _lines(
    site: Site, about: Mapping[str, Any], outcomes: Mapping[str, Outcome | None]
) -> Iterator[str]:
    if about["dry_run"]:
        yield "# A dry run on the CPU: no GPU has run any of this"
    else:
        yield f"# On {', '.join(gpu['name'] for gpu in about['gpus'])}"
    yield ""
    commit = about["git_commit"] or "unknown"
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    yield f"Commit {commit}{' with uncommitted changes' if about['git_dirty'] else ''}; {versions}."
    yield ""
    yield "| stage | | |"
    yield "| --- | --- | --- |"
    for name, outcome in outcomes.items():
        state, summary = (outcome.state, outcome.summary) if outcome else ("not run", "")
        yield f"| {name} | {state} | {summary} |"
    yield ""
    yield "Left out:"
    yield ""
    missing = [f"{package} is not installed: {what}" for package, what in about["missing"].items()]
    skipped = [line for outcome in outcomes.values() if outcome for line in outcome.left_out]
    yield from (f"- {line}" for line in [*missing, *skipped] or ["nothing"])
    table = site.out / "bench.md"
    if table.exists():
        yield ""
        yield table.read_text("utf-8").rstrip()

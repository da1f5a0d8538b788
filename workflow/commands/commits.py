"""Warn when different trainer code made the runs; their names do not tell."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from trainer.tracking.provenance import git
from workflow.paths import ROOT


def mixture(folders: Iterable[Path], project: Path = ROOT) -> str:
    """Compare the commits that made the finished runs in ``folders`` with the present one.

    Returns "" where trainer/ is the same in all. Runs without a recorded commit are left out.
    """
    made = Counter(filter(None, map(_read_commit, folders)))
    present = git(project, "rev-parse", "HEAD")
    first: dict[str, str] = {}  # commit by trainer/: many commits change other files alone
    for commit in filter(None, [*made, present]):
        first.setdefault(_hash_trainer(project, commit), commit)
    if not made or len(first) < 2:
        return ""
    counts: Counter[str] = Counter()
    for commit, count in made.items():
        counts[first[_hash_trainer(project, commit)]] += count
    parts = ", ".join(f"{count} by commit {commit[:10]}" for commit, count in counts.most_common())
    now = f"; the next are by {present[:10]}" if present else ""
    return (
        f"trainer/ has changed between runs: finished are {parts}{now}. Nothing is repeated for "
        "it; `git diff COMMIT COMMIT -- trainer` shows what differs"
    )


def _read_commit(folder: Path) -> str | None:
    """Read a run's commit; None where its provenance is missing, damaged or has none."""
    try:
        commit = json.loads((folder / "provenance.json").read_text("utf-8"))["git_commit"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    known = isinstance(commit, str) and re.fullmatch("[0-9a-f]{7,64}", commit)
    return commit if known else None


def _hash_trainer(project: Path, commit: str) -> str:
    """Identify a commit's trainer/ by its content, or by the commit if git does not have it."""
    return git(project, "rev-parse", "--verify", "--quiet", f"{commit}:trainer") or commit

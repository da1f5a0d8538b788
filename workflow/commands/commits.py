"""Say when runs are of different trainer code, which is part of no run's name."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from workflow.experiments import ROOT


def mixture(folders: Iterable[Path], project: Path = ROOT) -> str:
    """Compare the commits that made the finished runs in ``folders`` with the present one.

    Empty where trainer/ is the same in all. Runs that note no commit are left out.
    """
    made = Counter(filter(None, map(_noted, folders)))
    own = _git(project, "rev-parse", "--show-prefix") == ""  # not of a repository around it
    present = _git(project, "rev-parse", "HEAD") if own else None
    first: dict[str, str] = {}  # commit by trainer/: many commits change other files alone
    for commit in filter(None, [*made, present]):
        first.setdefault(_trainer(project, commit), commit)
    if not made or len(first) < 2:
        return ""
    counts: Counter[str] = Counter()
    for commit, count in made.items():
        counts[first[_trainer(project, commit)]] += count
    parts = ", ".join(f"{count} by commit {commit[:10]}" for commit, count in counts.most_common())
    now = f"; the next are by {present[:10]}" if present else ""
    return (
        f"trainer/ has changed between runs: finished are {parts}{now}. Nothing is repeated for "
        "it; `git diff COMMIT COMMIT -- trainer` shows what differs"
    )


def _noted(folder: Path) -> str | None:
    """Read a run's commit; None where its provenance is missing, damaged or has none."""
    try:
        commit = json.loads((folder / "provenance.json").read_text("utf-8"))["git_commit"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    known = isinstance(commit, str) and re.fullmatch("[0-9a-f]{7,64}", commit)
    return commit if known else None


def _trainer(project: Path, commit: str) -> str:
    """Identify trainer/ of a commit by its content; by the commit where git lacks it."""
    return _git(project, "rev-parse", "--verify", "--quiet", f"{commit}:trainer") or commit


def _git(project: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None

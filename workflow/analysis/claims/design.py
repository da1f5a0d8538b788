"""Name the commit that fixed an experiments file and the rules of judgement."""

from __future__ import annotations

from pathlib import Path

from trainer.tracking.provenance import ROOT, git

RULES = ("workflow/analysis/claims/*.py", "workflow/analysis/statistics.py")


def design_commit(experiments: Path, project: Path = ROOT) -> str:
    """Return the last commit that changed ``experiments`` or the rules; empty where unknown.

    Unknown: without git, in a shallow clone, where one of the files is not committed as it is.
    """
    rules = sorted(str(path) for pattern in RULES for path in project.glob(pattern))
    files = [str(experiments.resolve()), *rules]
    tracked = git(project, "ls-files", "--error-unmatch", "--", *files)
    changed = git(project, "status", "--porcelain", "--", *files)
    shallow = git(project, "rev-parse", "--is-shallow-repository")
    if not tracked or changed != "" or shallow != "false":
        return ""
    return git(project, "log", "-1", "--format=%H", "--", *files) or ""

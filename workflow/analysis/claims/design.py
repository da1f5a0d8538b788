"""Name the commits that fixed experiments and the rules of judgement."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from trainer.settings.yaml import parse_yaml
from trainer.tracking.provenance import ROOT, git

RULES = ("workflow/analysis/claims/*.py", "workflow/analysis/statistics.py")
NOT_DESIGN = ("title",)  # keys that may change when results are known


class DesignCommits:
    """Find, per experiment of a file, the commit since which it and the rules are as they are.

    A commit is empty where it is unknown: without git, in a shallow clone, where one of the files
    is not committed as it is.
    """

    def __init__(self, experiments: Path, project: Path = ROOT) -> None:
        self._project = project
        self._file = str(experiments.resolve())

    def of(self, experiments: Sequence[str]) -> str:
        """Return the latest of the commits of ``experiments`` and of the rules."""
        if not self._committed:
            return ""
        found = {self._rules_commit, *map(self._experiment_commit, experiments)}
        # Listed before its ancestors: the first one has no descendant among them.
        return git(self._project, "rev-list", "--topo-order", "-1", *sorted(found)) or ""

    @cached_property
    def _rules(self) -> list[str]:
        return sorted(str(path) for rule in RULES for path in self._project.glob(rule))

    @cached_property
    def _committed(self) -> bool:
        files = [self._file, *self._rules]
        tracked = git(self._project, "ls-files", "--error-unmatch", "--", *files)
        changed = git(self._project, "status", "--porcelain", "--", *files)
        shallow = git(self._project, "rev-parse", "--is-shallow-repository")
        return bool(tracked) and changed == "" and shallow == "false"

    @cached_property
    def _rules_commit(self) -> str:
        return git(self._project, "log", "-1", "--format=%H", "--", *self._rules) or ""

    @cache  # noqa: B019 - as long-lived as the object
    def _experiment_commit(self, name: str) -> str:
        """Walk back through the file's commits while the experiment stays the same."""
        commits = (git(self._project, "log", "--format=%H", "--", self._file) or "").split()
        first = commits[0]
        for commit in commits:
            if self._at(commit).get(name) != self._at(commits[0]).get(name):
                break
            first = commit
        return first

    @cache  # noqa: B019
    def _at(self, commit: str) -> dict[str, Any]:
        """Read the designs of a commit's file, YAML's references resolved.

        A file that was removed, or is not one of experiments, has none.
        """
        path = Path(self._file).relative_to(self._project.resolve()).as_posix()
        try:
            content = parse_yaml(git(self._project, "show", f"{commit}:{path}") or "")
            experiments = content["experiments"]
        except (ValueError, KeyError, TypeError):
            return {}
        return {
            name: {key: value for key, value in experiment.items() if key not in NOT_DESIGN}
            for name, experiment in experiments.items()
        }

"""Name the commits that fixed experiments, claims and the rules of judgement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from trainer.settings.yaml import parse_yaml
from trainer.tracking.provenance import ROOT, git
from workflow.claims import ERROR_RATE, OWN
from workflow.paper import FILE

RULES = ("workflow/analysis/claims/*.py", "workflow/analysis/statistics.py", "workflow/claims.py")
# Commits that moved rules, claims or experiments without changing any verdict, or made the rules
# stricter, and why; as in a file of git's blame.ignoreRevsFile
MOVES = "workflow/analysis/claims/moves.txt"
NOT_DESIGN = ("title",)  # keys of an experiment that may change when results are known


class DesignCommits:
    """Find the commit since which an experiment, a row of claims and the rules are as they are.

    A commit is empty where it is unknown: without git, in a shallow clone, where one of the files
    is not committed as it is.
    """

    def __init__(self, experiments: Path, project: Path = ROOT) -> None:
        self._project = project.resolve()
        self._file = experiments.resolve()
        self._paper = self._project / FILE

    def of(self, row: str, experiments: Sequence[str]) -> str:
        """Return the latest of the commits of ``row``, its ``experiments`` and the rules."""
        if not self._committed:
            return ""
        found = {
            self._rules_commit,
            self._row_commit(row),
            *map(self._experiment_commit, experiments),
        }
        # Listed before its ancestors: the first one has no descendant among them.
        return git(self._project, "rev-list", "--topo-order", "-1", *sorted(found - {""})) or ""

    @cached_property
    def _moves(self) -> set[str]:
        path = self._project / MOVES
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        return {line.split()[0] for line in lines if line.strip() and not line.startswith("#")}

    @cached_property
    def _committed(self) -> bool:
        rules = [path for rule in RULES for path in self._project.glob(rule)]
        others = [path for path in (self._paper, self._project / MOVES) if path.exists()]
        files = sorted(map(str, [self._file, *rules, *others]))
        tracked = git(self._project, "ls-files", "--error-unmatch", "--", *files)
        changed = git(self._project, "status", "--porcelain", "--", *files)
        shallow = git(self._project, "rev-parse", "--is-shallow-repository")
        return bool(tracked) and changed == "" and shallow == "false"

    @cached_property
    def _rules_commit(self) -> str:
        commits = self._commits(*RULES)  # as patterns, which match files that were removed, too
        return next((commit for commit in commits if commit not in self._moves), "")

    @cache  # noqa: B019 - as long-lived as the object
    def _experiment_commit(self, name: str) -> str:
        def content(values: dict[str, Any]) -> Any:
            experiment = values.get("experiments", {}).get(name, {})
            return {key: value for key, value in experiment.items() if key not in NOT_DESIGN}

        return self._unchanged_since(self._file, content)

    @cache  # noqa: B019
    def _row_commit(self, name: str) -> str:
        paper = self._at("HEAD", self._paper) if self._paper.exists() else {}
        file = self._file if _row(paper, name) is None else self._paper
        return self._unchanged_since(file, lambda values: _row(values, name))

    def _unchanged_since(self, file: Path, content: Callable[[dict[str, Any]], Any]) -> str:
        """Walk back through the file's commits while the content stays the same, or is moved."""

        def at(commit: str) -> Any:
            try:
                return content(self._at(commit, file))
            except (AttributeError, TypeError):  # a list, say, where a mapping belongs
                return None

        commits = self._commits(str(file))
        since = commits[0]
        for newer, older in pairwise(commits):
            if newer not in self._moves and at(older) != at(newer):
                break
            since = older
        return "" if since in self._moves else since

    def _commits(self, *files: str) -> list[str]:
        return (git(self._project, "log", "--format=%H", "--", *files) or "").split()

    @cache  # noqa: B019
    def _at(self, commit: str, file: Path) -> dict[str, Any]:
        """Read a commit's file, YAML's references resolved; one that is broken has no content."""
        path = file.relative_to(self._project).as_posix()
        try:
            found = parse_yaml(git(self._project, "show", f"{commit}:{path}") or "")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def _row(values: dict[str, Any], name: str) -> Any:
    """Return all that decides on a row: its claims, and its part of the family's error rate."""
    claims, pooled = values.get("claims", {}), values.get("pooled", {})
    row = pooled.get(name, claims.get(name))
    if row is None:
        return None
    families = [each.get("family", OWN) for each in [*claims.values(), *pooled.values()]]
    family = row.get("family", OWN)
    rate = values.get("rates", {}).get(family, ERROR_RATE)
    return row, [claims.get(each) for each in row.get("claims", [])], rate, families.count(family)

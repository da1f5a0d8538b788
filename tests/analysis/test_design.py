"""The design of a row: the commit since which experiment, claim and rules are as they are."""

from __future__ import annotations

from pathlib import Path

from tests.tracking.test_revision import git, new_repository
from trainer.tracking.provenance import ROOT
from workflow.analysis.claims.design import MOVES, RULES, DesignCommits
from workflow.paper import FILE

DESIGN = """\
experiments:
  fig1a: {title: a, seeds: &seeds [1, 2]}
  fig2a: {title: b, seeds: *seeds}
"""


def test_a_design_is_the_last_commit_that_changed_its_experiments_or_the_rules(
    tmp_path: Path,
) -> None:
    """Blank for a change that is not committed, and outside of a repository."""
    project = new_repository(tmp_path / "project")
    experiments, rule = project / "experiments/laptop.yaml", project / RULES[1]
    judging = project / RULES[0].replace("*", "judge")

    def design(*names: str, of: Path = project) -> str:
        return DesignCommits(of / "experiments/laptop.yaml", of).of("", names)

    def commit(file: Path, text: str) -> str:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        assert design("fig1a") == ""
        git(project, "add", ".")
        git(project, "commit", "-m", "a change")
        return git(project, "rev-parse", "HEAD")

    commit(rule, "a")
    commit(judging, "a")
    first = commit(experiments, DESIGN)
    assert design("fig1a") == design("fig2a") == first
    # A title is no design, nor is the way of writing; another experiment's design is its own.
    commit(experiments, DESIGN.replace("title: b", "title: c").replace("*seeds", "[1, 2]"))
    second = commit(experiments, DESIGN.replace("*seeds", "[1, 2, 3]"))
    assert design("fig1a") == first
    assert design("fig2a") == design("fig1a", "fig2a") == design("fig2a", "fig1a") == second
    third = commit(experiments, DESIGN.replace("&seeds [1, 2]", "&seeds [1, 2, 3]"))
    assert (design("fig1a"), design("fig2a")) == (third, second)
    for broken in ("experiments: [", "experiments: [1]", "no experiments", "[1]", ""):
        commit(experiments, broken)
        fixed = commit(experiments, DESIGN)
        assert design("fig1a") == design("fig2a") == fixed
    for file in (rule, judging):
        assert design("fig1a") != (changed := commit(file, "b"))
        assert design("fig1a") == design("fig2a") == design() == changed
    git(tmp_path, "clone", "--depth", "1", project.as_uri(), "shallow")
    assert design("fig1a", of=tmp_path / "shallow") == ""
    (tmp_path / "own.yaml").write_text(DESIGN)
    assert DesignCommits(tmp_path / "own.yaml", project).of("", ["fig1a"]) == ""
    assert all(list(ROOT.glob(pattern)) for pattern in RULES)


CLAIM = "{says: so, experiment: fig1a, effect: gain_at_the_end, family: panels}"
PAPER = f"""\
rates: {{panels: 0.05}}
claims:
  1a: &first {CLAIM}
  1b: {{<<: *first, experiment: fig1b}}
pooled:
  "1": {{says: so, claims: [1a, 1b], family: primary}}
"""


class Project:
    """Commit changes of a small project, and ask for designs."""

    def __init__(self, folder: Path) -> None:
        self.folder = new_repository(folder)
        self.commit({"experiments/laptop.yaml": DESIGN, "workflow/analysis/statistics.py": "a"})

    def commit(self, files: dict[str, str | None]) -> str:
        for name, text in files.items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink() if text is None else file.write_text(text)
        git(self.folder, "add", "--all", ".")
        git(self.folder, "commit", "-m", "a change")
        return git(self.folder, "rev-parse", "HEAD")

    def design(self, row: str, *experiments: str) -> str:
        commits = DesignCommits(self.folder / "experiments/laptop.yaml", self.folder)
        return commits.of(row, experiments)


def test_a_claim_is_part_of_its_rows_design_as_it_reads_once_references_are_resolved(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path / "project")
    first = project.commit({FILE: PAPER})
    assert project.design("1a", "fig1a") == project.design("1", "fig1a") == first
    project.commit({FILE: PAPER.replace("{<<: *first, experiment: fig1b}",
                                        CLAIM.replace("fig1a", "fig1b"))})  # fmt: skip
    assert project.design("1b") == project.design("1") == first
    changed = project.commit({FILE: PAPER.replace("experiment: fig1b", "experiment: fig2a")})
    assert project.design("1b") == project.design("1") == changed
    assert project.design("1a") == first
    # A further row of the family takes a part of all others' error rate.
    more = PAPER.replace("pooled:", f"  1c: {CLAIM}\npooled:")
    project.commit({FILE: PAPER})
    grown = project.commit({FILE: more})
    assert project.design("1a") == project.design("1b") == grown != project.design("1")
    own = project.commit({"experiments/laptop.yaml": f"{DESIGN}claims: {{mine: {CLAIM}}}\n"})
    assert project.design("mine", "fig1a") == own
    assert project.design("1a", "fig1a") == grown


def test_a_commit_that_only_moved_rules_is_looked_past(tmp_path: Path) -> None:
    """Rules that were Python become YAML; until the commit is listed, all rows look new."""
    catalogue = "workflow/analysis/claims/catalogue.py"
    project = Project(tmp_path / "project")
    before = project.commit({catalogue: "claims"})
    moved = project.commit(
        {
            catalogue: None,
            FILE: PAPER,
            MOVES: "# none yet\n",
            "experiments/laptop.yaml": DESIGN.replace("title: a", "title: a, more: 1"),
        }
    )
    assert project.design("1a", "fig1a") == project.design("1", "fig1a") == moved
    project.commit({MOVES: f"# listed\n\n{moved} claims became YAML\n"})
    assert project.design("1a", "fig1a") == project.design("1", "fig1a") == before
    later = project.commit({FILE: PAPER.replace("gain_at_the_end", "gain_throughout")})
    assert project.design("1a", "fig1a") == later
    (project.folder / MOVES).write_text("")
    assert project.design("1a") == ""


def test_the_listed_moves_are_commits_with_a_reason() -> None:
    lines = [line for line in (ROOT / MOVES).read_text("utf-8").splitlines() if line[:1] != "#"]
    for line in filter(None, lines):
        commit, reason = line.split(maxsplit=1)
        assert len(commit) == 40 and int(commit, 16) and reason

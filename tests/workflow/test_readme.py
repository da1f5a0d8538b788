"""The README's table of claims, the reference verdicts and the reference tables fit together."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.commands import ROOT
from trainer.errors import UserError
from trainer.tracking.provenance import git
from workflow.analysis.claims.judge import judge
from workflow.analysis.claims.measure import ExperimentDesign
from workflow.analysis.pages.readme import claims_table, insert_claims, update_readme
from workflow.analysis.tables.read import read_table
from workflow.experiments import expand, load_experiments

REFERENCE = ROOT / "results/reference/laptop"


def test_the_readme_shows_the_reference_verdicts() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    claims, runs = (pd.read_csv(REFERENCE / name) for name in ("claims.csv", "runs.csv"))
    assert text == insert_claims(text, claims_table(claims, runs, "laptop")), "run `make readme`"


def test_the_reference_verdicts_follow_from_the_reference_tables() -> None:
    experiments = load_experiments(ROOT / "experiments/laptop.yaml").experiments
    tables = {name: read_table(REFERENCE / f"tables/{name}.csv") for name in experiments}
    theory = read_table(REFERENCE / "tables/theory.csv")
    designs = {name: ExperimentDesign.of(each) for name, each in experiments.items()}
    judged = judge(tables, designs, theory)
    stored = pd.read_csv(REFERENCE / "claims.csv")
    assert judged["verdict"].tolist() == stored["verdict"].tolist()
    pd.testing.assert_series_equal(
        judged["effect"].astype(float), stored["effect"].astype(float), rtol=1e-6
    )


@pytest.mark.parametrize("scale", ["laptop", "workstation", "extensions"])
def test_designs_were_committed_before_the_reference_runs(scale: str) -> None:
    folder = ROOT / "results/reference" / scale
    if not (folder / "claims.csv").exists():
        pytest.skip(f"no figure of {scale} has been run whole")
    claims, runs = (pd.read_csv(folder / name) for name in ("claims.csv", "runs.csv"))
    judged = claims.dropna(subset=["design"])
    if judged.empty:
        pytest.skip("claims.csv names no design: its files were not committed when it was judged")
    used = runs.assign(target=runs["experiments"].str.split()).explode("target")
    targets = judged.assign(target=judged["target"].str.split()).explode("target")
    pairs = targets.merge(used, on="target")[["design", "git_commit"]].drop_duplicates()
    for design, commit in pairs.itertuples(index=False):
        if any(git(ROOT, "cat-file", "-e", f"{c}^{{commit}}") is None for c in (design, commit)):
            pytest.skip(f"this copy's history lacks {design} or {commit}")
        before = git(ROOT, "merge-base", "--is-ancestor", design, commit)
        assert before is not None, f"runs of {commit} were made before {design}"


def test_the_reference_runs_are_those_of_the_experiments() -> None:
    """A changed experiment makes the reference results stale."""
    for name, experiment in load_experiments(ROOT / "experiments/laptop.yaml").experiments.items():
        table = read_table(REFERENCE / f"tables/{name}.csv")
        stored = set(table.loc[table["role"] == "phase 2", "run"])
        assert stored == {run.id for run in expand(experiment)}, f"{name}: run `make reference`"


def test_only_what_is_between_the_marks_changes(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    text = (ROOT / "README.md").read_text("utf-8")
    readme.write_text(text.replace("supported", "refuted").replace("# Why", "# My own"))
    update_readme(readme, REFERENCE)
    before, after = readme.read_text("utf-8").split("<!-- end of claims -->")
    assert before.startswith("# My own")
    assert "| supported |" in before
    assert after == text.split("<!-- end of claims -->")[1].replace("supported", "refuted")
    readme.write_text("no marks")
    with pytest.raises(UserError, match="put them back"):
        update_readme(readme, REFERENCE)

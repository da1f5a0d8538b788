"""The pages' tables of claims, the reference verdicts and the reference tables fit together."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from tests.commands import ROOT
from trainer.errors import UserError
from trainer.tracking.provenance import git
from workflow.analysis.claims.judge import judge
from workflow.analysis.claims.measure import ExperimentDesign
from workflow.analysis.pages.claims_tables import claims_table, results_table
from workflow.analysis.pages.readme import BEGIN, END, read_reference, update_pages
from workflow.analysis.tables.read import read_table
from workflow.experiments import expand, load_experiments

REFERENCE = ROOT / "results/reference/laptop"


def test_the_pages_show_the_reference_verdicts(tmp_path: Path) -> None:
    pages = {name: (ROOT / name).read_text("utf-8") for name in ("README.md", "docs/claims.md")}
    copies = [tmp_path / Path(name).name for name in pages]
    for copy, text in zip(copies, pages.values(), strict=True):
        copy.write_text(text, "utf-8")
    update_pages(ROOT / "results/reference", *copies)
    assert [copy.read_text("utf-8") for copy in copies] == [*pages.values()], "run `make readme`"


def test_the_readme_says_of_figure_1a_what_the_verdicts_say() -> None:
    claims = pd.read_csv(ROOT / "results/reference/workstation/claims.csv").set_index("claim")
    gain, cooled = (claims.loc[row, "effect"] for row in ("1a", "1a, small η"))
    text = " ".join((ROOT / "README.md").read_text("utf-8").split())
    assert f"accuracy rises {gain:.1f} points above SGD's; {cooled:.1f} remain" in text
    table = pd.read_csv(ROOT / "results/reference/workstation/tables/fig2b.csv")
    rates = table[table["role"] == "phase 2"].groupby("run")["peak_lr"].max()
    assert rates.max() == pytest.approx(8 * rates.min())
    cooled_runs = table[table["step"] == 8580].assign(rate=lambda rows: rows["run"].map(rates))
    ends = cooled_runs.pivot(
        index="seed", columns=["rate", "first_local_steps"], values="test_accuracy"
    )
    rivals = [ends[rates.min(), 200] - ends[rates.max(), 1]]
    controls = pd.read_csv(ROOT / "results/reference/workstation/tables/controls.csv")
    ends = controls[controls["step"] == 8580].pivot(
        index="seed", columns="setting", values="test_accuracy"
    )
    rivals.append(ends["H = 200"] - ends["H = 7800"])
    assert "By then no difference shows from [SGD with eight times the learning rate]" in text
    for difference in rivals:
        assert stats.ttest_1samp(difference, 0).pvalue > 0.05


def test_the_readme_says_which_scales_were_run() -> None:
    """Number of runs, and time: their seconds divided by two cores."""
    text = (ROOT / "README.md").read_text("utf-8").split("## Scales")[1].split("##")[0]
    rows = re.findall(r"^\| `(\w+)` \| .* \| .* \| (.*) \|$", text, re.MULTILINE)
    assert {scale for scale, _ in rows} == {p.stem for p in (ROOT / "experiments").glob("*.yaml")}
    for scale, said in rows:
        file = ROOT / "results/reference" / scale / "runs.csv"
        if not file.exists():
            assert said == "not run", scale
            continue
        runs = pd.read_csv(file)
        minutes = runs["seconds"].sum() / 2 / 60
        time = f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
        assert f"{len(runs)} runs, {time}" in said, scale


def test_a_claim_that_was_not_run_whole_shows_the_panels_that_were() -> None:
    """A contradicted row is counted. Of the 22 supported rows at this scale three are replaced."""
    claims = pd.read_csv(REFERENCE / "claims.csv")
    claims.loc[claims["claim"].isin(["1", "1a"]), ["effect", "verdict"]] = [
        float("nan"),
        "not judged",
    ]
    claims.loc[claims["claim"] == "1b", ["effect", "low", "high"]] = [-3.0, -4.0, -2.0]
    claims.loc[claims["claim"] == "1b", "verdict"] = "contradicted"
    table = results_table({"made": claims, "empty": claims.assign(effect=float("nan"))})
    assert "| claim | `made` |\n" in table
    assert " | 1b: -3 [-4, -2] points, **contradicted** |" in table
    counts = "- `made`: 19 supported, 1 contradicted, 2 inconclusive, 4 without a result"
    assert f"{counts}." in table
    own = claims[claims["claim"].isin(["2", "3", "6"])].assign(claim="own", family="own")
    own["claim"] += own.index.astype(str)
    table = results_table({"made": pd.concat([own, claims])})
    assert f"{counts}; of its own claims 2 supported, 1 inconclusive." in table


def test_a_supported_claim_shows_its_panels_if_one_is_not() -> None:
    claims = pd.read_csv(REFERENCE / "claims.csv")
    assert "1b: " not in results_table({"laptop": claims})
    claims.loc[claims["claim"] == "1b", "verdict"] = "inconclusive"
    [line] = [line for line in results_table({"made": claims}).splitlines() if "| 1. " in line]
    pooled, cifar, imagenet = line.split(" | ")[1].split("; ")
    assert pooled.endswith(" points, **supported**") and "1a" not in pooled
    assert cifar.startswith("1a: ") and cifar.endswith(", **supported**")
    assert imagenet.startswith("1b: ") and imagenet.endswith(", **inconclusive** |")


def test_rows_without_a_result_are_named_below_the_table() -> None:
    claims, runs = (pd.read_csv(REFERENCE / name) for name in ("claims.csv", "runs.csv"))
    table = claims_table(claims.assign(effect=claims["effect"].where(claims["claim"] == "2")), runs)
    assert table.count("\n| **2. ") == 1
    assert table.count("\n|") == 2
    assert "Without a result (`note` in claims.csv says why): 1; 1a; 1b; 1a, small η; " in table


def test_the_reference_verdicts_follow_from_the_reference_tables() -> None:
    experiments = load_experiments(ROOT / "experiments/laptop.yaml").experiments
    tables = {name: read_table(REFERENCE / f"tables/{name}.csv") for name in experiments}
    theory = read_table(REFERENCE / "tables/theory.csv")
    designs = {name: ExperimentDesign.of(each) for name, each in experiments.items()}
    judged = judge(tables, designs, theory)
    stored = pd.read_csv(REFERENCE / "claims.csv")
    written = pd.read_csv(io.StringIO(judged.to_csv(index=False)))
    assert written["verdict"].tolist() == stored["verdict"].tolist()
    pd.testing.assert_frame_equal(
        written.drop(columns="design"), stored.drop(columns="design"), rtol=1e-6, atol=1e-12
    )


@pytest.mark.parametrize("scale", ["laptop", "workstation", "extensions"])
def test_designs_were_committed_before_the_reference_runs(scale: str) -> None:
    folder = ROOT / "results/reference" / scale
    if not (folder / "claims.csv").exists():
        pytest.skip(f"no figure of {scale} has been run whole")
    claims, runs = (pd.read_csv(folder / name) for name in ("claims.csv", "runs.csv"))
    # A pooled row names the later of two designs; its panels have rows of their own.
    judged = claims.dropna(subset=["design"])
    judged = judged[~judged["target"].str.contains(" ")]
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
    readme, page = tmp_path / "README.md", tmp_path / "claims.md"
    readme.write_text(f"# My own\n{BEGIN}\n| refuted |\n{END}\nrefuted\n")
    page.write_text(f"{BEGIN}{END}")
    update_pages(ROOT / "results/reference", readme, page)
    before, after = readme.read_text("utf-8").split(END)
    assert before.startswith(f"# My own\n{BEGIN}\n\n| claim | `laptop` |")
    assert "refuted" not in before
    assert after == "\nrefuted\n"
    assert page.read_text("utf-8").count("### Scale") == len(read_reference(REFERENCE.parent))
    readme.write_text("no marks")
    with pytest.raises(UserError, match="put them back"):
        update_pages(ROOT / "results/reference", readme, page)


def test_reference_results_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no <scale>/claims\.csv; make reference"):
        read_reference(tmp_path)
    (tmp_path / "laptop").mkdir()
    (tmp_path / "laptop/claims.csv").write_text("")
    with pytest.raises(UserError, match=r"laptop/claims\.csv: damaged"):
        read_reference(tmp_path)

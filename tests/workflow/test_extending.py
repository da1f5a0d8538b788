"""The experiment of one's own that docs/extending.md shows, from its file to verdicts."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.commands import ROOT
from tests.workflow.test_report import simulated
from tests.workflows import copy_project, snakemake
from workflow.analysis.claims.verdict import VERDICTS
from workflow.campaign import load_campaign
from workflow.commands import costs, status
from workflow.paper import paper

pytestmark = pytest.mark.slow  # it begins early

DOCS = (ROOT / "docs/extending.md").read_text("utf-8")
[MINE] = re.findall(r"^```yaml\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)
LABELS = ["H = 1", "H = 4", "H = 16", "H: QSR, α = 0.4, H ≥ 4"]


@pytest.fixture(scope="module")
def mine(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the file into a copy of the project; ask for its figure, its page and all verdicts."""
    folder = copy_project(tmp_path_factory.mktemp("mine") / "copy")
    (folder / "experiments/mine.yaml").write_text(MINE)
    shutil.copytree(digits, folder / "resources/digits")
    (folder / "results/mine/tables").mkdir(parents=True)
    simulated().to_csv(folder / "results/mine/tables/theory.csv", index=False)
    targets = ("rules", "claims", "results/mine/pages/rules.html")
    done = snakemake(folder, "--config", "scale=mine", "--", *targets)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_a_figure_of_ones_own_tells_its_curves_apart(mine: Path) -> None:
    numbers = pd.read_csv(mine / "results/mine/figures/rules.csv").set_index("quantity")
    accuracy = numbers.loc["test accuracy (%)"]
    assert set(accuracy["setting"]) == set(LABELS)
    assert (accuracy["n"] == 4).all()
    shares = accuracy[accuracy["x"] <= 1].query("x > 0").set_index("setting")["x"]
    assert shares[LABELS[:3]].to_dict() == {"H = 1": 1, "H = 4": 0.25, "H = 16": 0.0625}
    assert 1 / 16 < shares[LABELS[3]] < 1 / 4
    gains = {
        name: set(numbers.loc[name, "setting"]) for name in set(numbers.index) if "gain" in name
    }
    assert gains == {
        "gain over SGD\nof the same seed (points)": set(LABELS[1:]),
        "gain over H = 4\nof the same seed (points)": {*LABELS[:1], *LABELS[2:]},
    }
    page = (mine / "results/mine/pages/rules.html").read_text("utf-8")
    assert "QSR against constant H after as many steps." in page
    assert "Gains are differences from H = 4 of the same seed." in page


def test_claims_of_ones_own_are_judged_as_a_family(mine: Path) -> None:
    """The paper's rows follow, whose levels are what they were."""
    claims = pd.read_csv(mine / "results/mine/claims.csv").set_index("claim")
    own = claims[claims["family"] == "own"]
    assert own.index.tolist() == ["QSR gains", "QSR is no worse"]
    assert own["level"].tolist() == [0.025, 0.025]
    assert own["n"].tolist() == [4, 4]
    assert set(own["verdict"]) <= set(VERDICTS) - {"not judged"}
    assert own["measure"].tolist() == [
        f"accuracy at the end minus the control's, H: QSR against H = {h}" for h in (4, 1)
    ]
    levels = claims.loc[claims["family"] != "own", "level"]
    assert levels.to_dict() == pytest.approx(paper().levels)
    # By hand: the last accuracies in the table, paired by seed
    table = pd.read_csv(mine / "results/mine/tables/rules_of_h.csv")
    ends = table.loc[table.groupby("run")["step"].idxmax()].pivot(
        index="seed", columns="setting", values="test_accuracy"
    )
    for name, control in (("QSR gains", "H = 4"), ("QSR is no worse", "H = 1")):
        gain = 100 * (ends[LABELS[3]] - ends[control]).mean()
        assert own.loc[name, "effect"] == pytest.approx(gain)


def test_commands_know_the_experiment(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mine)
    campaign = load_campaign(["scale=mine"])
    assert campaign.available_figures == ["rules", "theory"]
    shown = list(status.show(campaign, status.states(campaign)))
    assert any(re.match(r"rules_of_h +16 +16 ", line) for line in shown)
    assert [cost.figure for cost in costs.costs(campaign.experiments)] == ["rules_of_h"]

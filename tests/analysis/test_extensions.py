"""docs/extensions.md says what the tables, verdicts and pilot runs of the extensions say."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from tests.analysis.test_pilots import check_that_options_repeat
from tests.commands import ROOT
from workflow.analysis.claims.judge import judge
from workflow.analysis.claims.measure import ExperimentDesign
from workflow.analysis.tables.read import read_table
from workflow.experiments import Experiment, expand, load_experiments

REFERENCE = ROOT / "results/reference/extensions"
LOADED = load_experiments(ROOT / "experiments/extensions.yaml")
END = 3072  # steps, of phase 2 in all three experiments


@cache
def docs() -> str:
    return (ROOT / "docs/extensions.md").read_text("utf-8")


@cache
def pilots() -> pd.DataFrame:
    table = pd.read_csv(REFERENCE / "pilots.csv", dtype={"accuracies": str})
    return table.assign(points=table["accuracies"].map(in_points))


def in_points(text: str) -> dict[int, float]:
    return {int(step): 100 * accuracy for step, accuracy in json.loads(text).items()}


def tables() -> dict[str, pd.DataFrame]:
    return {name: read_table(REFERENCE / f"tables/{name}.csv") for name in LOADED.experiments}


@pytest.mark.parametrize("group", pilots()["group"].unique())
def test_the_documented_pilots_are_those_of_the_file(group: str) -> None:
    """Mean gains over SGD at the end of phase 2, and of the cool-down where there is one."""
    rows = pilots()[pilots()["group"] == group]
    assert rows["settings"].str.contains("--evaluate-on held_out").all()
    sgd = rows[rows["setting"] == "H = 1"].set_index("seed")["points"]
    [line] = [line for line in docs().splitlines() if line.startswith(f"| {group} | H")]
    for setting, part in rows[rows["setting"] != "H = 1"].groupby("setting"):
        own = part.set_index("seed")["points"]
        found = [
            own.map(lambda curve, at=at: at_step(curve, at))
            - (sgd.map(lambda curve, at=at: at_step(curve, at)) if len(sgd) else 0)
            for at in sorted({END, max(END, own.map(max).max())})
        ]
        unit = "+.2f" if len(sgd) else ".2f"
        gains = ", ".join(f"{gain.mean():{unit}}" + " %" * (not len(sgd)) for gain in found)
        assert f"{setting}: {gains} ({found[0].count()})" in line


def at_step(curve: dict[int, float], step: int) -> float:
    """Return the accuracy at ``step``; a run that diverged keeps its last one."""
    return curve.get(step, curve[max(curve)])


def test_every_pilot_seed_is_declared_and_none_is_judged() -> None:
    for name, experiment in LOADED.experiments.items():
        of = pilots()[pilots()["experiment"] == name]
        assert set(of["seed"]) <= set(experiment.pilot_seeds)
        assert not set(of["seed"]) & set(experiment.seeds)


def test_a_pilot_run_is_repeated_by_its_options(digits: Path, tmp_path: Path) -> None:
    """One that needs no start point."""
    found = pilots().query("experiment == 'qsr' and seed == 1001")
    check_that_options_repeat(found.iloc[-1], digits, tmp_path)


def test_the_documented_verdicts_are_those_of_the_reference() -> None:
    claims = pd.read_csv(REFERENCE / "claims.csv")
    own = claims[claims["family"] == "own"]
    assert set(own["claim"]) == LOADED.claims.keys()
    for row in own.itertuples():
        effect = f"{row.effect:.2f} [{row.low:.2f}, {row.high:.2f}]"
        assert f"| {row.claim} | {row.says} | {effect} | {row.n} | `{row.verdict}` |" in docs()


def test_the_documented_accuracies_are_those_of_the_tables() -> None:
    """Means over seeds at the end of phase 2, of the cool-down where there is one, and bytes."""
    for name, table in tables().items():
        for setting, part in table[table["role"] != "phase 1"].groupby("setting"):
            end = part[part["step"] == END]
            cells = [f"{100 * end['test_accuracy'].mean():.2f}"]
            if LOADED.experiments[name].cooldown:
                last = part.loc[part.groupby("run")["step"].idxmax(), "test_accuracy"]
                cells.append(f"{100 * last.mean():.2f}")
            cells.append(f"{100 * (end['round'] / end['step']).median():.3g} %")
            assert f"| {setting} | {' | '.join(cells)} |" in docs(), name


def test_the_reference_is_of_the_experiments_as_they_are() -> None:
    experiments: dict[str, Experiment] = LOADED.experiments
    for name, table in tables().items():
        after = set(table.loc[table["role"] == "phase 2", "run"])
        assert after == {run.id for run in expand(experiments[name])}
    designs = {name: ExperimentDesign.of(each) for name, each in experiments.items()}
    theory = read_table(REFERENCE / "tables/theory.csv")
    judged = judge(tables(), designs, theory, own=LOADED)
    stored = pd.read_csv(REFERENCE / "claims.csv")
    assert judged["verdict"].tolist() == stored["verdict"].tolist()
    pd.testing.assert_series_equal(
        judged["effect"].astype(float), stored["effect"].astype(float), rtol=1e-6
    )

"""What a campaign draws and judges where tables are given, or only what is finished counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflow.campaigns import SHARED, campaign_folder
from workflow.campaign import load_campaign


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return campaign_folder(tmp_path, monkeypatch, SHARED)


def test_given_tables_are_drawn_without_runs_that_stay_where_they_are(project: Path) -> None:
    campaign = load_campaign(["tables=some/folder"])
    assert campaign.table_files(["fig1a"]) == ["some/folder/fig1a.csv"]
    assert campaign.requested_metrics(["fig1a"]) == []
    assert str(campaign.config.results) == "results/laptop-from-tables"
    assert str(campaign.jobs[0].results) == "results/laptop"
    assert load_campaign([]).table_files(["fig1a"]) == ["results/laptop/tables/fig1a.csv"]


def test_what_has_no_result_is_left_out_where_results_are_given(project: Path) -> None:
    """With only_finished, and with a folder of tables; the theory's can always be made."""
    first = load_campaign([]).runs_by_experiment["fig1a"][0]
    nothing = load_campaign(["only_finished=true"])
    assert nothing.available_figures == ["theory"]
    assert "none is finished; set only_finished to false" in nothing.why_unavailable("fig1a")
    metrics = project / "results/laptop/runs" / first.id / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    metrics.touch()
    assert "fig1a" in load_campaign(["only_finished=true"]).available_figures

    (project / "given").mkdir()
    (project / "given" / "fig2e.csv").touch()
    given = load_campaign(["tables=given"])
    assert given.experiments_with_results == ["fig2e"]
    assert "fig1a" not in given.available_figures
    assert given.why_unavailable("fig1a") == (
        "fig1a needs tables of fig1a, which given lacks; add them there"
    )
    assert given.table_files(["theory"]) == ["results/laptop-from-tables/tables/theory.csv"]
    (project / "given" / "theory.csv").touch()
    assert given.table_files(["theory"]) == ["given/theory.csv"]

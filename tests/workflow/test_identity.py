"""What names a run: the settings that decide its numbers, as far as they are not default."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainer.settings.base import setting
from trainer.settings.run import RESULTS_VERSION, RunSettings
from workflow.experiments import RunSpec, expand, load_experiments
from workflow.paths import experiments_file, scales


class WithANewSetting(RunSettings):
    """The settings after somebody has added one."""

    warp: int = setting(3, "run", help="a setting that nobody has used yet")


def test_a_new_setting_renames_no_run() -> None:
    for scale in scales():
        for experiment in load_experiments(experiments_file(scale)).experiments.values():
            for run in expand(experiment)[:3]:
                given = run.settings.model_dump()
                assert replace(run, settings=WithANewSetting(**given)).id == run.id
                assert replace(run, settings=WithANewSetting(**given, warp=4)).id != run.id


def test_a_new_version_of_the_results_renames_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunSpec(RunSettings(epochs=3))
    before = run.id
    monkeypatch.setattr("trainer.settings.run.RESULTS_VERSION", RESULTS_VERSION + 1)
    assert replace(run).id != before
    assert run.settings.resolved()["results_version"] == RESULTS_VERSION + 1


def test_a_run_is_named_after_its_rule() -> None:
    """Name a user's own by its function."""
    rules = {"qsr": {"alpha": 1}, "cubic": {"alpha": 1}, "rules.mine:slow_start": {}}
    ids = [RunSpec(RunSettings(h_rule=rule, **more)).id for rule, more in rules.items()]
    assert [run.split("-")[3] for run in ids] == ["Hqsr", "Hcubic", "Hslow_start"]
    assert RunSpec(RunSettings(h_rule="other:slow_start")).id != ids[-1]

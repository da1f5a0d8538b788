"""What names a run: the settings that decide its numbers, as far as they are not default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.distributed.world import World
from trainer.errors import UserError
from trainer.run.session import train
from trainer.settings.base import setting
from trainer.settings.run import RESULTS_VERSION, RunSettings
from trainer.settings.schedule import PhaseSettings
from workflow.analysis.tables.build import build_table, write_csv
from workflow.analysis.tables.read import read_table
from workflow.experiments import Experiment, RunSpec, expand, load_experiments
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


def test_every_run_is_what_its_settings_say_by_themselves() -> None:
    """Only one seed's settings are checked; the others' are copies."""
    for scale in scales():
        for experiment in load_experiments(experiments_file(scale)).experiments.values():
            for run in expand(experiment):
                assert run.settings == RunSettings(**run.settings.model_dump())
                if isinstance(run.start, RunSpec):
                    assert run.start.settings.seed == run.settings.seed


@pytest.mark.parametrize("seeds", [[3, -1, 2], [3, 2**63, 2]])
def test_no_seed_escapes_its_check(seeds: list[int]) -> None:
    experiment = Experiment(title="any", seeds=seeds, runs=[{}])
    with pytest.raises(UserError, match=r"^here: seed: "):
        expand(experiment, where="here: ")


def test_phases_without_weight_averaging_are_named_as_before_there_was_any() -> None:
    plain = RunSettings(schedule=[{"epochs": 3}])
    [phase] = plain.identity()["schedule"]
    assert set(phase) == {"epochs", "lr_factor", "local_steps", "eval_freq", "save_freq"}
    averaged = RunSettings(schedule=[{"epochs": 3, "weight_averaging": "swa"}])
    assert RunSpec(averaged).id != RunSpec(plain).id


def test_a_new_version_of_the_results_renames_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunSpec(RunSettings(epochs=3))
    before = run.id
    monkeypatch.setattr("trainer.settings.run.RESULTS_VERSION", RESULTS_VERSION + 1)
    assert replace(run).id != before
    assert run.settings.resolved()["results_version"] == RESULTS_VERSION + 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step1": 5, "eval_freq1": 2}, r"after 3 rounds of H = 5, .* that divides 3 instead of 2"),
        ({"step1": 6, "steps_per_epoch": None}, "cooldown needs steps_per_epoch; set it"),
    ],
)
def test_the_end_before_a_cooldown_must_be_evaluated(
    changes: dict[str, int | None], message: str
) -> None:
    given: dict[str, Any] = {"steps_per_epoch": 6, "epochs": 2, **changes}
    experiment = Experiment(title="any", seeds=[1], runs=[given], cooldown=PhaseSettings(epochs=1))
    with pytest.raises(UserError, match=message):
        expand(experiment)


def test_a_cooldown_follows_every_run_and_has_a_role_of_its_own(
    digits: Path, tmp_path: Path
) -> None:
    values = {"data_pth": digits, "batch_size": 8, "total_batch_size": 32, "device": "cpu"}
    given: dict[str, Any] = {
        "title": "any",
        "seeds": [1],
        "settings": {"batch_size": 8, "total_batch_size": 32, "steps_per_epoch": 6},
        "phase2": {"epochs": 2, "eval_on_start": True, "start_lr": 0.05},
        "runs": [{"step1": 1, "eval_freq1": 6}, {"step1": 6}],
    }
    cooldown = {"epochs": 1, "lr_factor": 0.1, "local_steps": 2, "eval_freq": 3}
    without, runs = (expand(Experiment(**given, **more)) for more in ({}, {"cooldown": cooldown}))
    assert {run.id for run in without}.isdisjoint(run.id for run in runs)
    for before, run in zip(without, runs, strict=True):
        first, last = run.settings.phases
        assert (first,) == before.settings.phases
        assert last == PhaseSettings(**cooldown)  # type: ignore[arg-type]
        out = tmp_path / "runs" / run.id
        settings = run.settings.model_copy(update={**values, "log_pth": out})
        train(settings, World(0, 1, torch.device("cpu")))
    table = build_table("fig1a", runs, tmp_path, cooldown=True)
    assert set(table["first_local_steps"]) == {1, 6}
    for _, rows in table.groupby("run"):
        found = list(rows[["step", "role", "lr", "local_steps"]].itertuples(index=False, name=None))
        h = rows["first_local_steps"].iloc[0]
        assert found[:3] == [(step, "phase 2", 0.2, h) for step in (0, 6, 12)]
        assert found[3:] == [(18, "cooldown", pytest.approx(0.02), 2)]
    write_csv(table, tmp_path / "fig1a.csv")
    assert read_table(tmp_path / "fig1a.csv")["role"].tolist() == table["role"].tolist()


def test_a_run_is_named_after_its_rule() -> None:
    """Name a user's own by its function."""
    rules = {"qsr": {"alpha": 1}, "cubic": {"alpha": 1}, "rules.mine:slow_start": {}}
    ids = [RunSpec(RunSettings(h_rule=rule, **more)).id for rule, more in rules.items()]
    assert [run.split("-")[3] for run in ids] == ["Hqsr", "Hcubic", "Hslow_start"]
    assert RunSpec(RunSettings(h_rule="other:slow_start")).id != ids[-1]

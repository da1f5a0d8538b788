"""Check that ``~`` is the home directory wherever settings or command lines give a path."""

from __future__ import annotations

import json
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from tests.commands import ROOT, command, trainer
from tests.conftest import one_line
from tests.workflows import TINY, copy_project, edit, planned
from trainer.__main__ import COMMANDS
from trainer.errors import UserError
from trainer.settings.base import Settings
from trainer.settings.cli import option, validated
from trainer.settings.run import RunSettings
from workflow.config import Config
from workflow.experiments import expand, load_experiments
from workflow.published import PublishedCheckpoint

REQUIRED: dict[type[Settings], dict[str, Any]] = {
    PublishedCheckpoint: {"path": "a", "sha256": "0" * 64, "epoch": 1},
    COMMANDS["download"].settings: {"url": "https://x.org/a", "sha256": "0" * 64},
}
MODELS = [Config, PublishedCheckpoint, *(command.settings for command in COMMANDS.values())]


def paths() -> Iterator[tuple[type[Settings], str]]:
    """List every setting that is a path, of every command and file."""
    for model in MODELS:
        for name, field in model.model_fields.items():
            if Path in (field.annotation, *get_args(field.annotation)) or name == "resume_pth":
                yield model, name


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.mark.parametrize(("model", "name"), list(paths()))
def test_every_path_is_expanded_once(model: type[Settings], name: str, home: Path) -> None:
    def value(given: str) -> str:
        return str(getattr(validated(model, REQUIRED.get(model, {}) | {name: given}), name))

    assert value("~/a b") == f"{home}/a b"
    assert value("~root/x") == pwd.getpwnam("root").pw_dir + "/x"
    for literal in ("a/~/b", "/a/~", "a~"):
        assert value(literal) == literal
    with pytest.raises(
        UserError, match=r"unknown home directory; give the path without ~"
    ) as caught:
        value("~no such user/x")
    assert name in str(caught.value)


def test_all_kinds_of_paths_were_found() -> None:
    assert {model for model, _ in paths()} == set(MODELS)
    assert len(list(paths())) >= 16


def test_urls_and_identities_stay(home: Path) -> None:
    url = "https://x.org/~a/b.pt"
    assert RunSettings(resume_pth=url, resume_sha256="0" * 64).resume_pth == url
    assert RunSettings(log_pth=Path("~/x")).result_settings() == RunSettings().result_settings()


def test_the_commands_write_below_the_home_directory(home: Path, tmp_path: Path) -> None:
    """Use the two spellings that no shell expands."""
    for words in (["prepare", "--out=~/digits"], ["beton", "--data-pth=~/digits"]):
        done = trainer(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    run = {"data_pth": "~/digits", "log_pth": "~/log", "out": "~/out", "epochs": 1}
    (home / "run.yaml").write_text(yaml.safe_dump(run | {"train_subset": 128}))
    first = trainer("train", "--config=~/run.yaml", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    start = ["--resume-pth=~/out/model.pt", "--log-pth=~/second", "--out=~/second"]
    second = trainer("train", "--config=~/run.yaml", *start, cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert json.loads((home / "second/settings.json").read_text())["log_pth"] == f"{home}/second"


@pytest.mark.parametrize("name", ["log_pth", "resume_pth", "config"])
def test_an_unknown_home_is_one_line(name: str, tmp_path: Path) -> None:
    message = one_line(trainer("train", f"{option(name)}=~no-such-user/x", cwd=tmp_path))
    assert option(name) in message and "'~no-such-user/x'" in message
    assert not list(tmp_path.iterdir())


def test_the_workflow_finds_data_and_start_points(home: Path, tmp_path: Path) -> None:
    copy = copy_project(tmp_path / "copy")
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copyfile(ROOT / name, copy / name)
    content = yaml.safe_load(TINY)
    experiment = content["experiments"]["fig1a"]
    del experiment["phase1"]
    experiment["settings"] |= {"dataset": "imagefolder", "num_classes": 2, "image_size": 8}
    start = {"path": "~/start.pt", "sha256": "0" * 64, "epoch": 2}
    experiment["checkpoint"] = start
    file = copy / "experiments" / "laptop.yaml"
    ids = []
    for path in ("start.pt", "~/start.pt"):
        start["path"] = path
        file.write_text(yaml.safe_dump(content))
        ids.append([run.id for run in expand(load_experiments(file).experiments["fig1a"])])
    assert ids[0] == ids[1]
    (home / "start.pt").touch()
    (home / "data").mkdir()
    edit(copy / "config.yaml", "imagefolder_source: null", "imagefolder_source: ~/data")
    assert planned(copy, "fig1a")["train"] == 4
    done = command("python", "-m", "workflow", "doctor", cwd=copy)
    assert f"prepared from {home}/data" in " ".join(done.stdout.split())


def test_analysis_expands_too(home: Path, tmp_path: Path) -> None:
    shutil.copyfile(ROOT / "experiments/laptop.yaml", home / "laptop.yaml")
    words = ["claims", "--experiments=~/laptop.yaml", "--tables", "~/gone.csv", "--out=~/x.csv"]
    done = command("python", "-m", "workflow.analysis", *words, cwd=tmp_path)
    assert f"{home}/gone.csv" in one_line(done)

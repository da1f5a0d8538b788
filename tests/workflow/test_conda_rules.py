"""The rules in their conda environments, as far as that goes without conda."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.commands import ROOT, command
from tests.conda import FILES, LOCK, on_pypi, parts
from tests.workflows import TINY, copy_project, refused, snakemake

pytestmark = pytest.mark.slow  # it begins early

# Hides what an env does not bring, given the packages' own declarations of what they need.
HIDE = """
import sys


class Hide:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in {hidden}:
            return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


sys.meta_path[:] = map(Hide, sys.meta_path)
"""
COMMANDS = {
    "data": [
        "python -m trainer prepare --dataset digits --out resources/digits",
        "python -m trainer beton --data-pth resources/digits",
        "python -m trainer prepare --dataset photos --out resources/photos",
        "python -m trainer beton --data-pth resources/photos --split test",
    ],
    "train": [
        "python -m workflow.forks trainer.launch --nproc-per-node 1 -m trainer train"
        " --dataset digits --epochs 1 --batch-size 8 --total-batch-size 32 --sharpness 1"
        " --data-pth resources/digits --log-pth progress --out out --device cpu",
        "python -m trainer wandb_sync --log-pth progress",
    ],
    "analysis": [
        "python -m workflow.forks workflow.analysis table --experiments experiments/laptop.yaml"
        " --experiment fig1a --results results/laptop --out tables/fig1a.csv",
        "python -m workflow.analysis figure fig1a --tables tables/fig1a.csv"
        " --experiments experiments/laptop.yaml --plot {} --out fig1a",
        "python -m workflow.analysis page fig1a --image fig1a.png"
        " --experiments experiments/laptop.yaml --out fig1a.html",
        "python -m workflow.analysis runs --experiments experiments/laptop.yaml"
        " --results results/laptop --out runs",
        "python -c 'import workflow.analysis.theory.simulation, workflow.analysis.theory.figure'",
        "python -m workflow.analysis claims --experiments experiments/laptop.yaml"
        " --tables tables/fig1a.csv --out claims.csv",
    ],
}


def brought(file: Path) -> set[str]:
    """List the distributions that come with an env, by the metadata of those installed here."""
    conda, from_pip = parts(file)
    names = [on_pypi(re.split("[=<>]", d)[0]) for d in conda]
    wanted = [*(n for n in names if n in LOCK), *(Requirement(p).name for p in from_pip)]
    found: set[str] = set()
    while wanted:
        name = wanted.pop().lower().replace("_", "-")
        if name in found:
            continue
        found.add(name)
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
    return found


@pytest.mark.parametrize("env", COMMANDS)
def test_rules_need_no_more_than_their_env_brings(
    own: Path, monkeypatch: pytest.MonkeyPatch, env: str
) -> None:
    here = brought(ROOT / "envs" / f"{env}.yaml")
    hidden = {
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if not {owner.lower().replace("_", "-") for owner in owners} & here
        and module not in ("trainer", "workflow", "distutils", "_distutils_hack")
    }
    assert {"snakemake", "pytest", "hypothesis"} <= hidden
    (own / "hide").mkdir()
    (own / "hide" / "sitecustomize.py").write_text(HIDE.format(hidden=hidden))
    monkeypatch.setenv("PYTHONPATH", f"{own / 'hide'}:{own}")
    for line in COMMANDS[env]:
        words = shlex.split(line)
        done = command(sys.executable, *words[1:], cwd=own)
        assert done.returncode == 0, line + done.stdout + done.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = copy_project(tmp_path / "copy")
    (folder / "experiments" / "laptop.yaml").write_text(TINY)
    return folder


def test_every_rule_with_a_command_has_an_env(checkout: Path) -> None:
    """By Snakemake's own reading of the rules."""
    (checkout / "Snakefile").write_text(
        'include: "workflow/Snakefile"\n\n\nfor rule in workflow.rules:\n'
        '    print("rule", rule.name, bool(rule.shellcmd), rule.conda_env)\n'
    )
    done = snakemake(checkout, "--list-rules")
    assert done.returncode == 0, done.stderr
    rules = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("rule ")]
    envs = {name: Path(env).stem for name, shell, env in rules if shell == "True"}
    assert envs["train"] == envs["start_point"] == "train"
    assert envs["beton"] == "data"
    assert envs["figure"] == "analysis"
    assert set(envs.values()) <= {file.stem for file in FILES}, envs


def stand_in(folder: Path) -> Path:
    """Write a fake `conda` that answers what Snakemake asks before it plans."""
    answers = {
        "info --json": {"conda_prefix": "/conda", "platform": "linux-64", "root_prefix": "/conda"},
        "config --get channel_priority --json": {"get": {"channel_priority": "strict"}},
    }
    lines = [f"'{words}') echo '{json.dumps(answer)}';;" for words, answer in answers.items()]
    lines += ["--version) echo conda 26.9.1;;", "*) exit 1;;"]
    folder.mkdir()
    (folder / "conda").write_text('#!/bin/bash\ncase "$*" in\n' + "\n".join(lines) + "\nesac\n")
    (folder / "conda").chmod(0o755)
    return folder


@pytest.mark.parametrize(("device", "env"), [("cpu", "train"), ("cuda", "train-cuda")])
def test_a_dry_run_with_conda_finds_the_envs(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str, env: str
) -> None:
    if shutil.which("conda") is None:
        folder = stand_in(tmp_path / "bin")
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    done = snakemake(checkout, "--sdm", "conda", "--dry-run", "fig1a", "--config",
                     f"device={device}", "--resources", "gpu=1")  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    created = set(re.findall(r"Conda environment .*?([\w-]+)\.yaml will be created", said))
    assert created == {"data", env, "analysis"}


def test_a_device_that_names_no_env_is_refused(checkout: Path) -> None:
    words = ("--dry-run", "fig1a", "--config", "device=auto")
    assert snakemake(checkout, *words).returncode == 0
    assert "device auto names no conda env" in refused(checkout, "--sdm", "conda", *words)

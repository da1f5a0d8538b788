"""The conda environments of the rules: parsed, matched and solved, for want of a channel to ask."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from rattler import (
    BuildString,
    MatchSpec,
    PackageRecord,
    VersionWithSource,
    VirtualPackage,
    VirtualPackageOverrides,
    solve,
)

from tests.commands import ROOT, command
from tests.workflows import TINY, copy_project, refused, snakemake

pytestmark = pytest.mark.slow  # it begins early

FILES = sorted((ROOT / "envs").glob("*.yaml"))
LOCK = dict(
    line.split("==")
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if "==" in line
)
# As conda-forge's recipe names them (conda-forge/pytorch-cpu-feedstock, recipe/meta.yaml)
CPU_BUILDS = ["cpu_generic_py311_h8e3e2d6_0", "cpu_mkl_py311_h1234567_100"]
CUDA_BUILDS = ["cuda129_mkl_py311_h1234567_300", "cuda130_generic_py311_h8e3e2d6_200"]
# What is not Python's, or whose Python version is the machine's
UNPINNED = {"pip", "python", "cxx-compiler", "pkg-config", "libjpeg-turbo", "opencv"}


def parts(file: Path) -> tuple[list[str], list[str]]:
    """What conda installs, and what pip does."""
    dependencies = yaml.safe_load(file.read_text())["dependencies"]
    from_pip = [p for d in dependencies if isinstance(d, dict) for p in d["pip"]]
    return [d for d in dependencies if isinstance(d, str)], from_pip


def specs(file: Path) -> dict[str, MatchSpec]:
    """The parsed conda dependencies by name."""
    return {spec.name.normalized: spec for spec in map(MatchSpec, parts(file)[0])}


def on_pypi(name: str) -> str:
    return {"pytorch": "torch"}.get(name, name)


def record(name: str, version: str, build: str) -> PackageRecord:
    return PackageRecord(name, VersionWithSource(version), BuildString(build), 0, "linux-64")


def builds(file: Path, name: str) -> list[str]:
    if name != "pytorch":
        return ["py311_0"]
    return CUDA_BUILDS if "cuda" in file.stem else CPU_BUILDS


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_conda_pins_equal_the_lock(file: Path) -> None:
    assert yaml.safe_load(file.read_text())["channels"] == ["conda-forge"]
    found = specs(file)
    assert len(found) == len(parts(file)[0])
    for name in found.keys() - UNPINNED:
        version = LOCK[on_pypi(name)]
        for build in builds(file, name):
            assert found[name].matches(record(name, version, build)), (name, version, build)
            for other in (f"{version}.1", f"{version}1", "0.1"):
                assert not found[name].matches(record(name, other, build)), (name, other)
    assert found["python"].matches(record("python", "3.11.9", "h0_0_cpython"))
    assert not found["python"].matches(record("python", "3.12.1", "h0_0_cpython"))
    for requirement in map(Requirement, parts(file)[1]):
        assert str(requirement.specifier) == f"=={LOCK[requirement.name]}"


def test_builds_for_cpu_and_cuda_exclude_each_other() -> None:
    with_pytorch = [file for file in FILES if "pytorch" in specs(file)]
    assert {file.stem for file in with_pytorch} == {"data", "train", "train-cuda"}
    for file in with_pytorch:
        spec = specs(file)["pytorch"]
        matched = {b for b in CPU_BUILDS + CUDA_BUILDS
                   if spec.matches(record("pytorch", LOCK["torch"], b))}  # fmt: skip
        assert matched == set(builds(file, "pytorch")), file.stem


def test_training_envs_differ_in_the_build_of_pytorch_alone() -> None:
    cpu, cuda = (parts(ROOT / "envs" / f"{name}.yaml") for name in ("train", "train-cuda"))
    assert cuda[0] == [d.replace("cpu_*", "cuda*") for d in cpu[0]]
    assert cuda[1] == cpu[1]


@pytest.mark.parametrize(
    ("env", "driver", "build"),
    [
        ("train", "", CPU_BUILDS[0]),
        ("train", "13.0", CPU_BUILDS[0]),
        ("train-cuda", "13.0", CUDA_BUILDS[1]),
        ("train-cuda", "", None),  # not the CPU build, found out on a GPU node
    ],
)
def test_a_login_node_gets_the_build_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: str, driver: str, build: str | None
) -> None:
    """With a channel of our own that keeps CUDA builds from machines without a driver, too."""
    packages = {
        f"pytorch-{LOCK['torch']}-{b}.conda": {
            "name": "pytorch", "version": LOCK["torch"], "build": b, "build_number": 0,
            "subdir": "linux-64", "depends": depends, "sha256": "0" * 64, "size": 1,
        }
        for b, depends in ((CPU_BUILDS[0], []), (CUDA_BUILDS[1], ["__cuda"]))
    }  # fmt: skip
    for subdir, content in {"linux-64": packages, "noarch": {}}.items():
        index = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": content}
        (tmp_path / subdir).mkdir()
        (tmp_path / subdir / "repodata.json").write_text(json.dumps(index))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", driver)  # conda's own: empty means none
    solved = solve(
        [f"file://{tmp_path}"],
        [specs(ROOT / "envs" / f"{env}.yaml")["pytorch"]],
        platforms=["linux-64", "noarch"],
        virtual_packages=VirtualPackage.detect(VirtualPackageOverrides.from_env()),
    )
    if build is None:
        with pytest.raises(Exception, match="__cuda"):
            asyncio.run(solved)
        return
    [found] = asyncio.run(solved)
    assert str(found.build) == build


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
        "python -m trainer.launch --nproc-per-node 1 -m trainer train --dataset digits --epochs 1"
        " --batch-size 8 --total-batch-size 32 --sharpness 1"
        " --data-pth resources/digits --log-pth progress --out out --device cpu",
        "python -m trainer wandb_sync --log-pth progress",
    ],
    "analysis": [
        "python -m workflow.analysis table --experiments experiments/laptop.yaml --experiment fig1a"
        " --results results/laptop --out tables/fig1a.csv",
        "python -m workflow.analysis figure fig1a --tables tables/fig1a.csv"
        " --experiments experiments/laptop.yaml --plot {} --out fig1a",
        "python -m workflow.analysis page --image fig1a.png --caption it --out fig1a.html",
        "python -m workflow.analysis runs --experiments experiments/laptop.yaml"
        " --results results/laptop --out runs",
        "python -c 'import workflow.analysis.simulation, workflow.analysis.theory'",
        "python -m workflow.analysis claims --experiments experiments/laptop.yaml"
        " --tables tables/fig1a.csv --out claims.csv",
    ],
}


def brought(file: Path) -> set[str]:
    """The distributions that come with an env, by the metadata of those installed here."""
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
    """A `conda` that knows what Snakemake asks before it plans: there is none here to be had."""
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

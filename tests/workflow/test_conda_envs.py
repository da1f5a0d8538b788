"""The conda environments of the rules: parsed, matched and solved, for want of a channel to ask."""

from __future__ import annotations

import asyncio
import json
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

from tests.commands import ROOT
from tests.conda import FILES, LOCK, on_pypi, parts

# As conda-forge's recipe names them (conda-forge/pytorch-cpu-feedstock, recipe/meta.yaml)
CPU_BUILDS = ["cpu_generic_py311_h8e3e2d6_0", "cpu_mkl_py311_h1234567_100"]
CUDA_BUILDS = ["cuda129_mkl_py311_h1234567_300", "cuda130_generic_py311_h8e3e2d6_200"]
# What is not Python's, or whose Python version is the machine's
UNPINNED = {"pip", "python", "cxx-compiler", "pkg-config", "libjpeg-turbo", "opencv"}


def specs(file: Path) -> dict[str, MatchSpec]:
    """Parse the conda dependencies, by name."""
    return {spec.name.normalized: spec for spec in map(MatchSpec, parts(file)[0])}


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

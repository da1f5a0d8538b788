"""Check that neither shell, Snakemake nor YAML executes what a settings file holds."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.commands import BIN, ROOT, command
from tests.conftest import more
from tests.workflows import TINY, copy_project, refused, snakemake
from trainer.data.specs import DATASETS

HOSTILE = {
    "semicolon": "--a b; touch pwned",
    "substitution": "$(touch pwned)",
    "backticks": "`touch pwned`",
    "single quotes": "'; touch pwned; '",
    "double quotes": '"; touch pwned; "$(touch pwned)',
    "line": "a\ntouch pwned\n",
    "braces": "{__import__('os').system('touch pwned')}",
}
# One name of nearly all, where a test takes long.
ALL = "a; touch pwned; $(touch pwned) `touch pwned` '\" & touch pwned"
# Numbers, and what is quoted where it is put together
QUOTED_ALREADY = {
    "threads", "resources.processes", "resources.threads_per_process",
    "params.missing", "params.options", "params.runs", "params.start", "params.checksum",
    "resources.source", "resources.trainer",
}  # fmt: skip
each = pytest.mark.parametrize("value", [ALL, *map(more, HOSTILE.values())], ids=["all", *HOSTILE])


def update(file: Path, *keys: str, value: Any) -> None:
    content = yaml.safe_load(file.read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    file.write_text(yaml.safe_dump(content))


def test_every_value_that_a_rule_gives_to_the_shell_is_quoted() -> None:
    value = re.compile(r"{((?:wildcards|input|output|log|params|resources|threads)\b[^}]*)}")
    for file in (ROOT / "workflow" / "rules").glob("*.smk"):
        unquoted = [name for name in value.findall(file.read_text()) if not name.endswith(":q")]
        assert set(unquoted) <= QUOTED_ALREADY, file


def assert_unharmed(folder: Path) -> None:
    assert not list(folder.rglob("pwned"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = copy_project(tmp_path / "copy")
    (folder / "experiments" / "laptop.yaml").write_text(TINY)
    return folder


@each
def test_a_sources_name_is_a_name(copy: Path, value: str) -> None:
    for split in ("train", "test"):
        for name in DATASETS["cifar10"].classes:
            images = copy / value / split / name
            images.mkdir(parents=True)
            Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(images / "0.png")
    update(copy / "config.yaml", "cifar10_source", value=value)
    done = snakemake(copy, "resources/cifar10/train.npz")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (copy / "resources" / "cifar10" / "train.npz").exists()
    assert_unharmed(copy)


@each
def test_a_checkpoints_place_and_address_are_names(copy: Path, value: str) -> None:
    start = {"path": f"resources/{value}", "url": f"https://127.0.0.1:9/{value}"}
    start |= {"sha256": "a" * 64, "epoch": 2}
    experiments = copy / "experiments" / "laptop.yaml"
    update(experiments, "experiments", "fig1a", "phase1", value=None)
    update(experiments, "experiments", "fig1a", "checkpoint", value=start)
    done = snakemake(copy, f"resources/{value}")
    assert done.returncode != 0
    # Snakemake finds no rule for a file with braces in its name.
    assert ("error: https://127.0.0.1:9/" in done.stderr) == ("{" not in value), done.stderr
    assert_unharmed(copy)


@pytest.mark.exhaustive
@each
def test_a_figures_title_and_tables_are_names(own: Path, value: str) -> None:
    shutil.copytree(own / "results" / "laptop" / "tables", own / value)
    shutil.rmtree(own / "results" / "laptop")
    update(own / "config.yaml", "tables", value=value)
    update(own / "experiments/laptop.yaml", "experiments", "fig1a", "title", value=value)
    done = snakemake(own, "fig1a")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (own / "results" / "laptop-from-tables" / "figures" / "fig1a.png").exists()
    assert_unharmed(own)


@pytest.mark.parametrize(
    "keys",
    [
        ["config.yaml", "scale"],
        more(["config.yaml", "device"]),
        more(["config.yaml", "wandb"]),
        ["config.yaml", "plot", "colormap"],
        more(["config.yaml", "plot", "sgd_color"]),
        more(["config.yaml", "image_files", "jpeg_quality"]),
        more(["experiments/laptop.yaml", "execution", "device"]),
        ["experiments/laptop.yaml", "experiments", "fig1a", "settings", "model"],
        more(["experiments/laptop.yaml", "experiments", "fig1a", "settings", "dataset"]),
        more(["experiments/laptop.yaml", "experiments", "fig1a", "settings", "precision"]),
        ["experiments/laptop.yaml", "experiments", "fig1a", "settings", "data_pth"],
    ],
    ids=".".join,
)
def test_other_values_are_refused(copy: Path, keys: list[str]) -> None:
    if keys[1] == "scale":
        shutil.copyfile(copy / "experiments" / "laptop.yaml", copy / f"experiments/{ALL}.yaml")
    update(copy / keys[0], *keys[1:], value=ALL)
    assert keys[-1] in refused(copy)
    assert_unharmed(copy)


def test_a_run_from_a_hostile_start_in_a_hostile_folder(own: Path, tmp_path: Path) -> None:
    folder = own.rename(tmp_path / f" {ALL}\n# %s *?[x]")
    model = next((folder / "results" / "laptop" / "start_points").glob("*/model.pt"))
    start = {"path": f"resources/{ALL}.pt", "epoch": 2}
    start["sha256"] = hashlib.sha256(model.read_bytes()).hexdigest()
    shutil.copyfile(model, folder / str(start["path"]))
    experiments = folder / "experiments" / "laptop.yaml"
    update(experiments, "experiments", "fig1a", "phase1", value=None)
    update(experiments, "experiments", "fig1a", "checkpoint", value=start)
    update(experiments, "experiments", "fig1a", "seeds", value=[1])
    update(experiments, "execution", "processes", value=2)
    done = snakemake(folder, "fig1a", "claims", "results/laptop/runs.csv")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_unharmed(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "__use_yte__: true\n__definitions__:\n  - import os; os.system('touch pwned')\n",
        more("__use_yte__: true\n?os.system('touch pwned'): 1\n"),
        "scale: !!python/object/apply:os.system [touch pwned]\n",
        more("scale: !!python/name:os.system\n"),
    ],
)
@pytest.mark.parametrize("file", ["config.yaml", "experiments/laptop.yaml"])
def test_yaml_holds_no_code(copy: Path, file: str, text: str) -> None:
    (copy / file).write_text(text + (copy / file).read_text())
    assert file in refused(copy)
    assert_unharmed(copy)
    done = command(BIN / "python", "-m", "trainer", "train", "--config", file, cwd=copy)
    assert done.returncode == 2
    assert_unharmed(copy)

"""Test that changes to a folder of images, and nothing else, are noticed, named and prepared."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.workflows import TINY, copy_project, edit, planned, snakemake
from trainer.data.preparation import source_state
from trainer.data.preparation.prepare import prepare
from trainer.data.preparation.source_state import read_state, recorded_state, state_to_compare
from trainer.data.specs import DATASETS
from workflow.experiments import expand, load_experiments

ONE = Path("train/cat/1.png")


def make_images(root: Path, splits: tuple[str, str], classes: tuple[str, ...], count: int) -> Path:
    draw = np.random.default_rng(0)
    for split in splits:
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_images(tmp_path / "images", ("train", "val"), ("cat", "dog"), 3)


def overwrite(images: Path) -> None:
    """Overwrite in place, which leaves the folder's own time as it was."""
    content = bytearray((images / ONE).read_bytes())
    content[-20] ^= 1
    (images / ONE).write_bytes(content)


def replace(images: Path) -> None:
    """Rename another file of the same size and time to its name."""
    status = (images / ONE).stat()
    shutil.copy(images / ONE, images / "new.png")
    os.utime(images / "new.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    (images / "new.png").replace(images / ONE)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "removed": (lambda images: (images / ONE).unlink(), f"1 removed ({ONE})"),
    "added": (
        lambda images: shutil.copy(images / ONE, images / "val/dog/9.png"),
        "1 added (val/dog/9.png)",
    ),
    "overwritten": (overwrite, f"1 changed ({ONE})"),
    "renamed": (
        lambda images: (images / ONE).rename(images / "train/cat/7.png"),
        f"1 added (train/cat/7.png), 1 removed ({ONE})",
    ),
    "a class added": (
        lambda images: shutil.copytree(images / "train/cat", images / "train/emu"),
        "3 added (train/emu/0.png, …)",
    ),
    "in a folder of its own": (
        lambda images: shutil.copytree(images / "train/cat", images / "train/cat/more"),
        "3 added (train/cat/more/0.png, …)",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_noticed_and_named(images: Path, name: str) -> None:
    before = read_state(images)
    change, said = CHANGES[name]
    change(images)
    now = read_state(images)
    assert str(now) != str(before)
    assert now.changes_since(before) == f"since it was prepared: {said}"


def test_what_is_no_image_changes_nothing(images: Path) -> None:
    before = read_state(images)
    (images / "train/cat/notes.txt").write_text("a cat")
    (images / "train/cat/._1.png").touch()
    (images / "train/.ipynb_checkpoints").mkdir()
    (images / "readme").touch()
    assert read_state(images) == before


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "overwritten"])
def test_of_many_images_the_class_folders_times_decide(
    images: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_state, "MOST_FILES", 5)
    before = read_state(images)
    assert list(before.entries) == ["train/cat/", "train/dog/", "val/cat/", "val/dog/"]
    CHANGES[name][0](images)
    assert str(read_state(images)) != str(before)
    assert read_state(images).changes_since(before)


def test_of_many_images_one_put_in_anothers_place_is_noticed(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expect so although name, size and time stay the same."""
    monkeypatch.setattr(source_state, "MOST_FILES", 5)
    before = read_state(images)
    replace(images)
    assert "1 changed (train/cat/)" in read_state(images).changes_since(before)


def test_a_folder_that_is_gone_changes_nothing_that_was_prepared(
    images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    prepare("imagefolder", out, images)
    prepared_from = str(recorded_state(out))
    assert state_to_compare(images, out) == prepared_from
    shutil.rmtree(images)
    state_to_compare.cache_clear()
    assert state_to_compare(images, out) == prepared_from
    assert state_to_compare(tmp_path / "elsewhere", out) != prepared_from
    assert state_to_compare(images, tmp_path / "never prepared") is None


def test_prepare_says_what_changed(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare("imagefolder", tmp_path / "out", images)
    prepare("imagefolder", tmp_path / "out", images)
    assert "since it was prepared" not in capsys.readouterr().out
    (images / ONE).unlink()
    prepare("imagefolder", tmp_path / "out", images)
    assert f"{images}: since it was prepared: 1 removed ({ONE})" in capsys.readouterr().out
    prepare("digits", tmp_path / "out")
    assert recorded_state(tmp_path / "out") is None


BETONS = ("resources/imagefolder/train.beton", "resources/imagefolder/test.beton")


@pytest.mark.slow
def test_the_workflow_goes_on_after_a_broken_image_was_removed(
    images: Path, tmp_path: Path
) -> None:
    """Expect that a new source is prepared, but that moving the project changes nothing."""
    project = copy_project(tmp_path / "project")
    images.rename(project / "images")
    edit(project / "config.yaml", "imagefolder_source: null", "imagefolder_source: images")
    (project / "images" / ONE).write_bytes((project / "images" / ONE).read_bytes()[:200])
    failed = snakemake(project, *BETONS)
    errors = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert any(f"{ONE}: not a readable image" in e and "remove it" in e for e in errors), errors
    (project / "images" / ONE).unlink()
    project = project.rename(tmp_path / "moved project")
    done = snakemake(project, *BETONS)
    assert done.returncode == 0, done.stderr
    assert f"images: since it was prepared: 1 removed ({ONE})" in done.stderr
    assert planned(project, *BETONS) == Counter()
    (project / "images").rename(project / "moved")
    assert planned(project, *BETONS) == Counter()
    edit(project / "config.yaml", "imagefolder_source: images", "imagefolder_source: moved")
    assert planned(project, *BETONS) == Counter(list_files=1, beton_of_files=2)


@pytest.mark.slow
def test_changed_images_train_anew(tmp_path: Path) -> None:
    """Overwrite one image in a folder of CIFAR-10's."""
    project = copy_project(tmp_path / "project")
    images = make_images(project / "images", ("train", "test"), DATASETS["cifar10"].classes, 4)
    edit(project / "config.yaml", "cifar10_source: null", "cifar10_source: images")
    experiments = project / "experiments" / "laptop.yaml"
    experiments.write_text(
        TINY.replace("dataset: digits, model: mlp", "dataset: cifar10, model: cnn")
        .replace("train_subset: 100", "train_subset: 40").replace("seeds: [1, 2]", "seeds: [1]")
    )  # fmt: skip
    run = next(r for r in expand(load_experiments(experiments).experiments["fig1a"]))
    target = f"results/laptop/runs/{run.id}/metrics.jsonl"
    done = snakemake(project, target)
    assert done.returncode == 0, done.stderr
    assert planned(project, target) == Counter()
    overwrite(images)
    assert planned(project, target) == Counter(prepare=1, beton=1, start_point=1, train=1)

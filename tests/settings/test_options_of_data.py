"""Check that each option of the training data has the effect that its help text describes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.option_runs import WORLD, Trained, configured, covers, first_batch
from trainer.errors import UserError
from trainer.run.build import load_data, make_sampler
from trainer.run.training_run import TrainingRun


@covers("data_pth", "train_pth", "val_pth", "train_subset")
def test_samples_come_from_the_files_named(digits: Path, tiny_cifar10: Path) -> None:
    def sizes(**changes: object) -> tuple[int, int]:
        training, test = load_data(configured(digits, **changes), WORLD.device)
        return len(training), len(test)

    assert sizes() == (160, 1000)
    assert sizes(train_subset=None) == (797, 1000)
    assert sizes(train_subset=None, train_pth=digits / "test.beton") == (1000, 1000)
    assert sizes(val_pth=digits / "train.beton") == (160, 797)
    other = {"dataset": "cifar10", "model": "cnn", "data_pth": tiny_cifar10, "train_subset": None}
    assert sizes(**other) == (64, 32)


@covers("evaluate_on")
def test_held_out_samples_replace_the_test_samples(digits: Path) -> None:
    training, held_out = load_data(configured(digits, evaluate_on="held_out"), WORLD.device)
    assert (len(training), len(held_out)) == (160, 637)
    with pytest.raises(UserError, match=r"evaluate_on held_out: train_subset 797 takes all"):
        load_data(configured(digits, evaluate_on="held_out", train_subset=797), WORLD.device)
    with pytest.raises(ValueError, match=r"held_out needs .*; set train_subset"):
        configured(digits, evaluate_on="held_out", train_subset=None)


@covers("nw")
def test_nw_threads_gather_the_same_batches(trained: Callable[..., Trained]) -> None:
    plain, threaded = trained(), trained(nw=2)
    assert plain.metrics == threaded.metrics
    run = TrainingRun(threaded.settings, WORLD)
    batches = run.training.batches(run.sampler, run.own_clients, 0, 0)
    next(batches)
    assert any(thread.name.startswith("loader") for thread in threading.enumerate())
    batches.close()  # type: ignore[attr-defined]
    assert not any(thread.name.startswith("loader") for thread in threading.enumerate())


@covers("aug")
def test_aug_shifts_images(digits: Path) -> None:
    raw = load_data(configured(digits), WORLD.device)[0]
    [(images, _)] = raw.in_batches(np.arange(len(raw)), len(raw))
    known = images.flatten(1)

    def unchanged(images: Tensor) -> float:
        same = (images.flatten(0, 1).flatten(1)[:, None] == known).all(-1).any(1)
        return same.double().mean().item()

    assert unchanged(first_batch(configured(digits, aug=False))[0]) == 1
    assert unchanged(first_batch(configured(digits, aug=True))[0]) < 0.5


@covers("replacement")
def test_replacement_lets_a_sample_come_twice(digits: Path) -> None:
    for replacement in (False, True):
        settings = configured(digits, replacement=replacement)
        epoch = make_sampler(settings, 160).epoch(0)
        assert (len(np.unique(epoch)) < epoch.size) == replacement


@covers("label_noise", "noise_p")
def test_label_noise_changes_a_share_p_of_the_labels(digits: Path) -> None:
    from scipy import stats

    clean = first_batch(configured(digits, batch_size=40, total_batch_size=160))[1]
    for p in (0.1, 0.6):
        noisy = configured(digits, batch_size=40, total_batch_size=160, label_noise=True, noise_p=p)
        changed = int((first_batch(noisy)[1] != clean).sum())
        assert stats.binomtest(changed, 160, p).pvalue > 1e-3
    off = configured(digits, batch_size=40, total_batch_size=160, noise_p=0.6)
    assert torch.equal(first_batch(off)[1], clean)

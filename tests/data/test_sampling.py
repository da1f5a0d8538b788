"""Test who sees what: exact properties, and distributions by statistical test."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from trainer.data.sampling import (
    Purpose,
    Sampler,
    batchnorm_batches,
    generator,
    label_offsets,
    model_seeds,
    sharpness_subset,
    train_subset,
)

samplers = st.builds(
    Sampler,
    seed=st.integers(0, 2**63 - 1),
    num_samples=st.integers(200, 400),
    num_clients=st.integers(1, 8),
    batch_size=st.integers(1, 5),
    steps_per_epoch=st.integers(1, 5),
    replacement=st.booleans(),
)
epochs = st.integers(0, 10**6)


@given(samplers, epochs)
def test_an_epoch_is_a_function_of_its_number_alone(sampler: Sampler, epoch: int) -> None:
    first = sampler.epoch(epoch)
    sampler.epoch(epoch + 1)
    assert np.array_equal(sampler.epoch(epoch), first)
    assert first.shape == (sampler.steps_per_epoch, sampler.num_clients, sampler.batch_size)
    assert first.min() >= 0
    assert first.max() < sampler.num_samples


@given(samplers, epochs)
def test_without_replacement_no_sample_comes_twice_in_an_epoch(
    sampler: Sampler, epoch: int
) -> None:
    indices = sampler.epoch(epoch).ravel()
    if not sampler.replacement:
        assert len(np.unique(indices)) == len(indices)


def test_epochs_seeds_and_purposes_differ() -> None:
    streams = [
        generator(seed, purpose, count).integers(2**62)
        for seed in range(5)
        for purpose in Purpose
        for count in range(50)
    ]
    assert len(set(streams)) == len(streams)


def test_a_models_seeds_differ_between_runs_epochs_steps_and_clients() -> None:
    seeds = np.stack([model_seeds(seed, epoch, (6, 8)) for seed in range(5) for epoch in range(4)])
    assert len(np.unique(seeds)) == seeds.size


def test_streams_of_neighbouring_counts_do_not_overlap() -> None:
    first = generator(0, Purpose.ORDER, 0).integers(2**62, size=100_000)
    second = generator(0, Purpose.ORDER, 1).integers(2**62, size=100_000)
    assert not np.isin(first, second).any()


@pytest.mark.parametrize("replacement", [False, True])
def test_every_client_sees_every_sample_equally_often(replacement: bool) -> None:
    sampler = Sampler(
        seed=3, num_samples=20, num_clients=4, batch_size=1, steps_per_epoch=5,
        replacement=replacement,
    )  # fmt: skip
    seen = np.stack([sampler.epoch(epoch) for epoch in range(2000)])
    for k in range(4):
        counts = np.bincount(seen[:, :, k].ravel(), minlength=20)
        assert stats.chisquare(counts).pvalue > 1e-4


def test_label_noise_flips_with_probability_p_uniformly_over_the_others() -> None:
    offsets = label_offsets(seed=1, epoch=0, shape=(100_000,), p=0.3, num_classes=10)
    expected = 100_000 * np.array([0.7] + [0.3 / 9] * 9)
    assert stats.chisquare(np.bincount(offsets, minlength=10), expected).pvalue > 1e-4
    assert not np.array_equal(offsets, label_offsets(1, 1, (100_000,), 0.3, 10))


def test_no_label_noise_changes_no_label() -> None:
    assert not label_offsets(seed=1, epoch=0, shape=(3, 4), p=0.0, num_classes=10).any()


@pytest.mark.parametrize("subset", [train_subset, sharpness_subset])
@given(st.integers(0, 100), st.integers(1, 300), st.data())
def test_subsets_are_distinct_sorted_and_a_function_of_the_seed(
    subset: Callable[[int, int, int], NDArray[np.int64]], seed: int, n: int, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, n))
    chosen = subset(seed, n, size)
    assert len(np.unique(chosen)) == size
    assert (np.diff(chosen) > 0).all()
    assert chosen.min() >= 0 and chosen.max() < n
    assert np.array_equal(chosen, subset(seed, n, size))


def test_sharpness_is_measured_on_every_sample_equally_often() -> None:
    counts = sum(np.bincount(sharpness_subset(s, 20, 5), minlength=20) for s in range(2000))
    assert stats.chisquare(counts).pvalue > 1e-4
    assert not np.array_equal(sharpness_subset(0, 100, 50), train_subset(0, 100, 50))


@given(st.integers(1, 50), st.integers(1, 12), st.integers(1, 9))
def test_batchnorm_batches_use_all_samples_before_any_again(
    n: int, batches: int, size: int
) -> None:
    indices = batchnorm_batches(seed=0, step=7, num_samples=n, num_batches=batches, batch_size=size)
    assert indices.shape == (batches, size)
    counts = np.bincount(indices.ravel(), minlength=n)
    assert counts.max() - counts.min() <= 1

"""Test sharpness against the full Hessian."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call, jacrev

from tests.in_memory import in_memory
from trainer.data.images import ImageSet
from trainer.data.preparation.prepared import Arrays
from trainer.data.sampling import sharpness_subset
from trainer.data.specs import DATASETS
from trainer.errors import UserError
from trainer.local_sgd.sharpness import sharpness
from trainer.models.registry import build

DIGITS = DATASETS["digits"]


def data(dtype: torch.dtype) -> ImageSet:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 241, (60, 8, 8, 1), np.uint8)
    labels = draw.integers(0, 10, 60).astype(np.int64)
    return ImageSet(in_memory(Arrays(images, labels)), DIGITS, torch.device("cpu"), dtype)


def small(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(64, 4), nn.SiLU(), nn.Linear(4, 10)]
    return nn.Sequential(*layers).to(dtype)


def full_hessian(model: nn.Module, training: ImageSet, samples: NDArray[np.int64]) -> torch.Tensor:
    vector = nn.utils.parameters_to_vector(model.parameters()).detach()
    [(images, labels)] = training.in_batches(samples, len(samples))

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts, start = {}, 0
        for name, p in model.named_parameters():
            parts[name] = flat[start : start + p.numel()].view_as(p)
            start += p.numel()
        logits = functional_call(model, parts, (images,))
        return nn.functional.cross_entropy(logits, labels)

    return jacrev(jacrev(loss))(vector)  # SiLU's backward has no forward mode


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_trace_and_eigenvalue_are_those_of_the_full_hessian(dtype: torch.dtype) -> None:
    model, training = small(dtype), data(dtype)
    wanted = full_hessian(model, training, sharpness_subset(1, 60, 40))
    got = sharpness(model, training, samples=40, probes=3000, seed=1)
    assert got.largest_eigenvalue == pytest.approx(
        torch.linalg.eigvalsh(wanted)[-1].item(), rel=1e-4
    )
    assert abs(got.trace - wanted.trace().item()) < 4 * hutchinson_error(wanted, 3000)


def hutchinson_error(hessian: torch.Tensor, probes: int) -> float:
    """Return the trace's standard error with Rademacher vectors: √(2 Σ_{i≠j} H_ij² / probes)."""
    off_diagonal = hessian - torch.diag(torch.diag(hessian))
    return float((2 * off_diagonal.square().sum() / probes).sqrt())


def test_data_sorted_by_class_are_measured_on_all_their_classes() -> None:
    """Fit digits sorted as class folders are; the first 120, all zeros, have 0.4 of the trace.

    The Hessian of softmax regression is the mean of (diag p - p pᵀ) ⊗ x xᵀ, x ending with 1.
    """
    bunch = load_digits()
    order = np.argsort(bunch.target, kind="stable")
    images = (bunch.images[order] * 15).astype(np.uint8)[..., None]
    arrays = Arrays(images, bunch.target[order].astype(np.int64))
    training = ImageSet(in_memory(arrays), DIGITS, torch.device("cpu"), torch.float64)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    [(x, y)] = training.in_batches(np.arange(len(training)), len(training))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    p = model(x).softmax(1).detach()
    traces = (1 - p.square().sum(1)) * (x.flatten(1).square().sum(1) + 1)
    assert len(set(y[:120].tolist())) == 1
    assert traces[:120].mean() < traces.mean() / 2  # else the test would say nothing
    for seed in range(3):
        chosen = sharpness_subset(seed, len(training), 120)
        assert len(set(y[chosen].tolist())) == 10
        got = sharpness(model, training, samples=120, probes=200, seed=seed)
        hessian = full_hessian(model, training, chosen)
        exact = traces[chosen].mean().item()
        assert hessian.trace().item() == pytest.approx(exact, rel=1e-9)
        assert abs(got.trace - exact) < 4 * hutchinson_error(hessian, 200)
        assert got.trace == pytest.approx(traces.mean().item(), rel=0.25)


def test_all_samples_are_measured_in_their_order() -> None:
    """Keep the bits of runs that measure all samples, as the first n were taken in order."""
    assert sharpness_subset(5, 60, 60).tolist() == list(range(60))


def test_sharpness_repeats_itself_and_leaves_no_trace() -> None:
    model, training = build("cnn_bn", DIGITS, seed=0), data(torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    first = sharpness(model, training, samples=20, probes=4, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert sharpness(model, training, samples=20, probes=4, seed=1) == first
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert sharpness(model, training, samples=20, probes=4, seed=2).trace != first.trace


def test_a_hessian_of_zeros_or_none_at_all_ends_no_run() -> None:
    """Take the Hessian of a model that is saturated, or about to diverge."""
    for last, wanted in ((0.0, 0.0), (1e300, float("nan"))):
        model = small(torch.float64)
        with torch.no_grad():
            model[3].weight.fill_(last)
            model[1].weight.mul_(0.0 if last == 0 else 1e200)
            model[3].bias.copy_(torch.tensor([1e4] + [0.0] * 9, dtype=torch.float64))
        training = data(torch.float64)
        training.labels.zero_()
        found = sharpness(model, training, samples=4, probes=2, seed=0)
        assert [found.trace, found.largest_eigenvalue] == pytest.approx([wanted] * 2, nan_ok=True)


def test_memory_that_runs_out_is_blamed_on_the_samples() -> None:
    class TooLarge(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(x) * 10**13).sum() + super().forward(x)

    with pytest.raises(UserError, match=r"^sharpness_samples 20: memory ran out .*; lower it$"):
        sharpness(
            TooLarge(*small(torch.float64)), data(torch.float64), samples=20, probes=1, seed=0
        )

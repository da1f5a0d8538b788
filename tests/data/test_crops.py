"""Test random resized crops against torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainer.data.crops import Crops, central_crops, random_resized_crops


@pytest.mark.parametrize("shape", [(60, 100), (100, 60), (10, 200), (200, 10)])
def test_crops_are_distributed_as_torchvisions(shape: tuple[int, int]) -> None:
    """Compare each number of a crop by Kolmogorov-Smirnov; long images often need the fallback."""
    from scipy import stats
    from torchvision.transforms import RandomResizedCrop

    n = 4000
    blank = torch.empty(3, *shape)
    torch.manual_seed(0)
    theirs = np.array(
        [RandomResizedCrop.get_params(blank, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(n)]
    )
    crops = random_resized_crops(
        np.random.default_rng(1), np.full(n, shape[0]), np.full(n, shape[1]), flip=True
    )
    ours = np.stack([crops.top, crops.left, crops.height, crops.width], axis=1)
    for name, a, b in zip(("top", "left", "height", "width"), theirs.T, ours.T, strict=True):
        assert stats.ks_2samp(a, b).pvalue > 1e-3, name
    areas = (a[:, 2] * a[:, 3] for a in (theirs, ours))
    assert stats.ks_2samp(*areas).pvalue > 1e-3
    assert stats.binomtest(int(crops.mirrored.sum()), n).pvalue > 1e-3


@pytest.mark.parametrize("central", [False, True])
@pytest.mark.parametrize("largest", [3, 600])
def test_crops_lie_inside_their_images(central: bool, largest: int) -> None:
    draw = np.random.default_rng(5)
    heights, widths = draw.integers(1, largest, (2, 5000))
    crops: Crops = (
        central_crops(heights, widths)
        if central
        else random_resized_crops(draw, heights, widths, flip=False)
    )
    assert (crops.height >= 1).all() and (crops.width >= 1).all()
    assert (crops.top >= 0).all() and (crops.top + crops.height <= heights).all()
    assert (crops.left >= 0).all() and (crops.left + crops.width <= widths).all()
    assert not crops.mirrored.any()

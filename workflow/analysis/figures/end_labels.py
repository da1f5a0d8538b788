"""Write beside the end of each curve what it shows, so that no legend need be searched for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from scipy.optimize import isotonic_regression

FONT = 8.0  # points
LINE_HEIGHT = 1.15 * FONT
LONGEST = 24  # characters; a longer text is left to the legend
NEAR_THE_RIGHT = 0.8  # of the axes' width; a curve that ends before has no room beside it


def label_ends(axes: Axes, handles: Mapping[str, Artist]) -> dict[str, Annotation]:
    """Write each curve's name at its right end; return the texts by name, without those left out.

    Left out are curves that end far from the right, long names, and all names if they are more than
    fit above one another.
    """
    ends = {name: end for name, handle in handles.items() if (end := _end(axes, handle))}
    texts = {name: name.removeprefix("Local SGD, ") for name in ends}
    texts = {name: text for name, text in texts.items() if len(text) <= LONGEST}
    height = axes.get_window_extent().height * 72 / axes.figure.dpi
    if len(texts) * LINE_HEIGHT > height:
        return {}
    return {
        name: axes.annotate(
            text,
            ends[name][:2],
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=FONT,
            color=ends[name][2],
            annotation_clip=False,
        )
        for name, text in texts.items()
    }


def spread(axes: Axes, labels: Sequence[Annotation]) -> None:
    """Move the labels up or down, as little as possible in all, until none covers another.

    The figure's layout must be settled: distances are in points.
    """
    if not labels:
        return
    points = 72 / axes.figure.dpi
    wanted = np.array([axes.transData.transform(label.xy)[1] for label in labels]) * points
    order = np.argsort(wanted, kind="stable")
    steps = LINE_HEIGHT * np.arange(len(labels))
    placed = isotonic_regression(wanted[order] - steps).x + steps
    for i, y in zip(order, placed, strict=True):
        labels[i].set_position((5, float(y - wanted[i])))


def _end(axes: Axes, handle: Artist) -> tuple[float, float, Any] | None:
    """Return a curve's last point, moved into the axes' limits, and its color; None if far left."""
    line = handle.lines[0] if isinstance(handle, ErrorbarContainer) else handle
    assert isinstance(line, Line2D)
    x, y = np.asarray(line.get_xydata(), dtype=float)[-1]
    across, _ = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))
    if across < NEAR_THE_RIGHT:
        return None
    return x, float(np.clip(y, *axes.get_ylim())), line.get_color()

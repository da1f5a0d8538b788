"""Define the look that all figures share."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from trainer.files.atomic import atomic
from workflow.config import Plot

Styles = Mapping[int, dict[str, object]]  # by H

# Up to here an H has the same colour in every figure; a larger H gets the last colour.
LARGEST_H = 1024
DASHES = ["--", "-.", ":", "-"]


def line_style(local_steps: int, rank: int, plot: Plot) -> dict[str, object]:
    """Choose the colour by log H, and the dash by ``rank``, which keeps curves apart in grey.

    ``rank`` counts the H > 1 of a figure from 0; H = 1 is solid in ``plot.sgd_color``.
    """
    if local_steps == 1:
        return {"color": plot.sgd_color, "linestyle": "-", "linewidth": 1.8}
    log_h = min(local_steps, LARGEST_H).bit_length() - 1
    position = 0.15 + 0.85 * log_h / (LARGEST_H.bit_length() - 1)
    color = mpl.colormaps[plot.colormap](position)
    return {"color": color, "linestyle": DASHES[rank % len(DASHES)], "linewidth": 1.8}


def label_2_and_5(axis: Axis) -> None:
    """Label a logarithmic axis of few decades at 1, 2 and 5 times their powers of ten."""
    axis.set_minor_locator(LogLocator(subs=(2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_tick_params(which="minor", labelsize="small")


def save(figure: Figure, out: Path) -> None:
    """Save ``out``.png for screens and ``out``.pdf for papers, without dates in them."""
    with atomic(out.with_name(out.name + ".png")) as temporary:
        figure.savefig(temporary, format="png", dpi=200, metadata={"Software": None})
    with atomic(out.with_name(out.name + ".pdf")) as temporary:
        figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})


def wrap(text: str, width: int) -> str:
    """Wrap ``text`` to lines of at most ``width`` characters; its own line breaks stay."""
    return "\n".join(textwrap.fill(line, width) for line in text.splitlines())

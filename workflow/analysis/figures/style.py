"""The look that all figures share."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from trainer.files.atomic import atomic
from workflow.config import Plot

# H on this scale gets the same colour and dash in every figure; larger H gets the last one.
LARGEST_H = 1024
DASHES = ["--", "-.", ":", "-"]


def line_style(local_steps: int, rank: int, plot: Plot) -> dict[str, object]:
    """Colour by log H, black for H = 1; the dash by ``rank`` keeps curves apart in grey.

    ``rank``: of the H > 1 of a figure, from 0.
    """
    if local_steps == 1:
        return {"color": plot.sgd_color, "linestyle": "-", "linewidth": 1.8}
    log_h = min(local_steps, LARGEST_H).bit_length() - 1
    position = 0.15 + 0.85 * log_h / (LARGEST_H.bit_length() - 1)
    color = mpl.colormaps[plot.colormap](position)
    return {"color": color, "linestyle": DASHES[rank % len(DASHES)], "linewidth": 1.8}


def save(figure: Figure, out: Path) -> None:
    """``out``.png for screens, ``out``.pdf for papers; undated, so that equal ones look equal."""
    with atomic(out.with_name(out.name + ".png")) as temporary:
        figure.savefig(temporary, format="png", dpi=200, metadata={"Software": None})
    with atomic(out.with_name(out.name + ".pdf")) as temporary:
        figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})


def wrapped(text: str, width: int) -> str:
    """``text`` in lines of at most ``width`` characters; its own line breaks stay."""
    return "\n".join(textwrap.fill(line, width) for line in text.splitlines())

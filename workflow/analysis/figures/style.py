"""Define the look that all figures share."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import cycle
from pathlib import Path

import matplotlib as mpl
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from trainer.files.atomic import atomic
from workflow.config import Plot
from workflow.entries import h_of, one_h_of

Style = dict[str, object]
Styles = Mapping[int | str, Style]  # by H or, where more tells curves apart, by their label

# Up to here an H has the same colour in every figure; a larger H gets the last colour.
LARGEST_H = 1024
DASHES = ["--", "-.", ":", "-"]
# Of rules of H, and of curves whose H has no colour of its own left
COLORS = ["tab:red", "tab:orange", "tab:purple", "tab:brown", "tab:pink", "tab:gray"]
MARKERS = ["", "o", "s", "^", "D", "v"]  # of curves with the same H or rule


def line_style(local_steps: int, rank: int, plot: Plot) -> Style:
    """Choose the colour by log H, and the dash by ``rank``, which keeps curves apart in grey.

    ``rank`` counts the H > 1 of a figure from 0; H = 1 is solid in ``plot.sgd_color``.
    """
    if local_steps == 1:
        return {"color": plot.sgd_color, "linestyle": "-", "linewidth": 1.8}
    log_h = min(local_steps, LARGEST_H).bit_length() - 1
    position = 0.15 + 0.85 * log_h / (LARGEST_H.bit_length() - 1)
    color = mpl.colormaps[plot.colormap](position)
    return {"color": color, "linestyle": DASHES[rank % len(DASHES)], "linewidth": 1.8}


def label_styles(labels: Iterable[str], plot: Plot) -> dict[str, Style]:
    """Choose a style per label: H's colour, another where that is taken, or one per rule of H."""
    found: dict[str, Style] = {}
    of_h: dict[str, int] = Counter()
    taken: dict[str, object] = {}  # colours, by the first H or rule that has each
    colors = cycle(COLORS)
    for label in sorted(labels, key=lambda label: (one_h_of(label) or LARGEST_H + 1, label)):
        h, rank = one_h_of(label), len(found) - (1 in map(one_h_of, found))
        said = h_of(label).partition(",")[0]  # of a rule, its name
        style = line_style(h or LARGEST_H, rank, plot)
        if h is None:
            style |= {"color": taken.get(said) or next(colors)}
        elif style["color"] in taken.values():
            style |= {"color": next(colors), "linestyle": DASHES[rank % len(DASHES)]}
        if of_h[said]:
            style |= {"marker": MARKERS[of_h[said] % len(MARKERS)], "markersize": 4}
        of_h[said] += 1
        taken.setdefault(said, style["color"])
        found[label] = style
    return found


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

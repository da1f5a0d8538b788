"""Names beside the ends of curves: which are written there, where, and what the legend says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.artist import Artist
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Annotation
from scipy.optimize import minimize

from tests.analysis.test_analysis import FIGURES, table
from workflow.analysis.figures import drawing
from workflow.analysis.figures.end_labels import LINE_HEIGHT, label_ends, spread
from workflow.config import Plot


def labelled(ends: list[float], names: list[str] | None = None) -> tuple[Canvas, list[Annotation]]:
    """Draw a line per end, with limits of 0 to 10, and label it."""
    canvas = Canvas(figsize=(5, 4), dpi=72, layout="constrained")
    axes = canvas.subplots()
    axes.set(xlim=(0, 10), ylim=(0, 10))
    names = names or [f"H = {i}" for i in range(len(ends))]
    handles: dict[str, Artist] = {
        name: axes.plot([0, 10], [5, end])[0] for name, end in zip(names, ends, strict=True)
    }
    found = list(label_ends(axes, handles).values())
    canvas.draw_without_rendering()
    spread(axes, found)
    return canvas, found


@given(st.lists(st.floats(-1, 11), min_size=1, max_size=6))
def test_labels_lie_as_near_their_curves_as_they_can_without_overlap(ends: list[float]) -> None:
    canvas, labels = labelled(ends)
    assert len(labels) == len(ends)
    axes = canvas.axes[0]
    wanted = axes.transData.transform([(10, min(max(end, 0), 10)) for end in ends])[:, 1]
    order = np.argsort(wanted, kind="stable")
    wanted = wanted[order]
    placed = wanted + [labels[i].get_position()[1] for i in order]
    assert (np.diff(placed) > LINE_HEIGHT - 1e-6).all()
    best = minimize(
        lambda y: ((y - wanted) ** 2).sum(),
        wanted[0] + LINE_HEIGHT * np.arange(len(ends)),
        constraints={"type": "ineq", "fun": lambda y: np.diff(y) - LINE_HEIGHT},
    )
    assert ((placed - wanted) ** 2).sum() <= ((best.x - wanted) ** 2).sum() + 1e-3


def test_a_label_is_in_its_curves_colour_and_brief() -> None:
    canvas, [label] = labelled([3.0], ["Local SGD, H = 200"])
    assert label.get_text() == "H = 200"
    assert label.get_color() == canvas.axes[0].lines[0].get_color()


def test_what_has_no_room_is_left_to_the_legend() -> None:
    assert labelled([3.0], ["H: QSR, α = 25.6, H ≥ 4; K = 16"])[1] == []
    assert labelled([3.0] * 40)[1] == []  # more than fit above one another
    axes = Canvas().subplots()
    axes.set(xlim=(0, 10))
    assert label_ends(axes, {"H = 2": axes.plot([0, 7], [1, 1])[0]}) == {}  # has diverged


@pytest.mark.parametrize("name", ["fig1a", "fig2", "fig7"])
def test_each_curve_is_named_once_by_a_label_or_the_legend(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Canvas] = []
    monkeypatch.setattr(drawing, "save", lambda canvas, out: drawn.append(canvas))
    tables = {each: table(experiment=each) for each in FIGURES[name].experiments}
    titles = dict.fromkeys(tables, "what was run")
    drawing.draw(name, FIGURES[name], tables, titles, Plot(), tmp_path / name)
    for place in drawn[0].subfigs:
        first = place.axes[0]
        names = [text.get_text() for text in first.texts if isinstance(text, Annotation)]
        over_h = place.axes[-1].get_xlabel().startswith("H,")
        assert names == ([] if over_h else ["SGD, H = 1", "H = 8"])
        assert place.get_suptitle().partition(": ")[0].endswith("Expected")
        assert first.get_title() == "what was run"
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == []

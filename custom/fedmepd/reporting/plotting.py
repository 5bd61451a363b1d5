"""What all figures share: colours, axes, legend, and how a figure becomes a file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours that colour-blind readers can distinguish (Okabe and Ito; indigo instead of their yellow, which is hard to see
# on white), and strokes where there are more sites than colours.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#332288", "#999999")
STROKES = ("-", "--", ":", "-.")


def png(figure: Figure) -> bytes:
    """Returns a figure as PNG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """Returns a figure as SVG, the same bytes for the same figure."""
    import matplotlib

    buffer = io.BytesIO()
    # Without a fixed salt the names of elements, and without an empty date the head, differ from call to call.
    with matplotlib.rc_context({"svg.hashsalt": "fedmepd"}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    return buffer.getvalue()


def pixels(figure: Figure) -> np.ndarray:
    """Returns a figure as red, green and blue, (3, height, width) uint8, as TensorBoard takes it."""
    figure.set_dpi(80)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].transpose(2, 0, 1).copy()


def axes(rows: int, columns: int, height: float) -> tuple[Figure, Any]:
    """Returns a figure and its axes in one row.

    Args:
        rows, columns: of axes.
        height: of a row in inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    found = figure.subplots(rows, columns, squeeze=False, sharey=False).ravel()
    for axis in found:
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure, found


def line(place: int) -> dict[str, Any]:
    """Returns the style of one of many lines: its colour and stroke by its place."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": STROKES[place // len(COLOURS) % len(STROKES)],
        "linewidth": 1.4,
    }


def legend(figure: Figure, axis: Any) -> None:
    """Puts the legend of an axis under the figure."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), frameon=False)

"""What all figures share: colours, axes, legend, and how a figure becomes a file."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours that colour-blind readers can distinguish (Okabe and Ito; indigo instead of their yellow, which is hard to see
# on white), and strokes where there are more sites than colours.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#332288", "#999999")
STROKES = ("-", "--", ":", "-.")
# From more sites or models on, names and colours cannot be told apart.
MANY = 24
# Characters of a name beside axes.
_LONGEST = 22
# For parts of a whole, of which there are more (Paul Tol's muted scheme).
MUTED = (
    *("#aa4499", "#332288", "#88ccee", "#ddcc77", "#999933"),
    *("#117733", "#cc6677", "#882255", "#44aa99", "#dddddd"),
)


@dataclass(frozen=True)
class Layout:
    """For which screen a figure is drawn.

    Args:
        inches: width of a figure. On a screen it is scaled; what counts is how large text is beside it.
        dpi: pixels to an inch.
        narrow: whether axes stand below one another, for a telephone held upright.
    """

    inches: float
    dpi: int
    narrow: bool


WIDE = Layout(10, 130, narrow=False)
NARROW = Layout(4.2, 180, narrow=True)


@dataclass(frozen=True)
class Picture:
    """A figure as PNG files, for wide and for narrow screens."""

    wide: bytes
    narrow: bytes


def picture(draw: Callable[[Layout], Figure | None]) -> Picture | None:
    """Draws a figure in both layouts; None where it has nothing to show."""
    wide = draw(WIDE)
    return None if wide is None else Picture(png(wide), png(draw(NARROW)))


def png(figure: Figure) -> bytes:
    """Returns a figure as PNG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with _names_as_they_are(figure):
        figure.savefig(buffer, format="png", dpi="figure", bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """Returns a figure as SVG, the same bytes for the same figure."""
    import matplotlib

    buffer = io.BytesIO()
    # Without a fixed salt the names of elements, and without an empty date the head, differ from call to call.
    with matplotlib.rc_context({"svg.hashsalt": "fedmepd"}), _names_as_they_are(figure):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    return buffer.getvalue()


def pixels(figure: Figure) -> np.ndarray:
    """Returns a figure as red, green and blue, (3, height, width) uint8, as TensorBoard takes it."""
    figure.set_dpi(80)
    with _names_as_they_are(figure):
        figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].transpose(2, 0, 1).copy()


@contextmanager
def _names_as_they_are(figure: Figure) -> Iterator[None]:
    """While a figure is drawn, a dollar sign in a name of a method or site begins no formula."""
    import matplotlib
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    with matplotlib.rc_context({"text.parse_math": False}):
        yield


def axes(rows: int, columns: int, height: float, layout: Layout = WIDE, *, narrow: int = 1) -> tuple[Figure, Any]:
    """Returns a figure and its axes in one row.

    Args:
        rows, columns: of axes.
        height: of a row in inches.
        layout: of the figure.
        narrow: columns in the narrow layout, which has more rows instead.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if layout.narrow:
        rows, columns = -(-rows * columns // narrow), narrow
    figure = Figure(figsize=(layout.inches, height * rows), layout="constrained", dpi=layout.dpi)
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
    """Puts the legend of an axis under the figure, in as many columns as fit."""
    handles, labels = axis.get_legend_handles_labels()
    # A character takes 0.08 inches, a sample of the line with its gaps 0.6.
    fitting = int(figure.get_figwidth() / (0.6 + 0.08 * max(map(len, labels), default=1)))
    columns = max(1, min(len(labels), fitting, 5))
    # The axes keep their height.
    figure.set_figheight(figure.get_figheight() + 0.22 * -(-len(labels) // columns))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def shade(value: float, low: float, high: float) -> str:
    """Returns the colour of text on a cell of a heat map in cividis, which is dark at its low end."""
    return "white" if low < high and value < (low + high) / 2 else "black"


def cell_text(layout: Layout, columns: int) -> float:
    """Returns the size in points at which two decimals fit into a heat map's cell."""
    # Names and the scale take 35 % of the figure's width; four characters with a gap are 3 times as wide as high.
    return min(9.0, 72 * 0.65 * layout.inches / columns / 3)


def shortened(name: str) -> str:
    """Returns a name that leaves room for what it stands beside; long ones are cut in the middle."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 9]}…{name[-8:]}"


def name_columns(axis: Any, names: Sequence[str], layout: Layout) -> None:
    """Writes the names of a heat map's columns below it, upright where they would overlap."""
    turned = {"rotation": 90} if layout.narrow else {"rotation": 30, "ha": "right"}
    axis.set_xticks(range(len(names)), names, **turned)

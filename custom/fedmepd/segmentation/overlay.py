"""A picture of a segmentation: contours of the regions on three planes through the tumour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedmepd.storage import write_atomically
from fedmepd.tasks.task import Task

# Of the frame (left, posterior, superior): the axis cut, and those drawn to the right and upwards or downwards.
_PLANES = {"axial": (2, 0, 1), "coronal": (1, 0, 2), "sagittal": (0, 1, 2)}

# Of the warnings under the picture; none of a region's colours.
_NOTE_INCHES, _NOTE_COLOUR = 0.2, "#ffb000"


def draw_overlay(
    task: Task,
    file: Path,
    modalities: Sequence[str],
    images: np.ndarray,
    classes: np.ndarray,
    spacing: Sequence[float],
    label: np.ndarray | None = None,
    notes: Sequence[str] = (),
    probabilities: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Draws axial, coronal and sagittal plane through the tumour's centre, a row for each modality that was used.

    In the radiological convention: the patient's right is on the left, anterior up in the axial and left in the
    sagittal plane. Without any tumour the planes go through the middle of the brain.

    Args:
        task: whose regions are drawn.
        file: the PNG to write.
        modalities: names of the M images.
        images: prepared images (M, X, Y, Z), 0 outside the brain.
        classes: the segmentation's (X, Y, Z).
        spacing: size of a voxel in mm along each axis.
        label: true classes (X, Y, Z), drawn with dotted lines; the planes go through their tumour, if any.
        notes: warnings to write under the picture, a line each.
        probabilities: of regions (X, Y, Z), each a further row from black (0) to the region's colour (1).

    Raises:
        FedMEPDError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    drawn = [("solid", classes)] + ([] if label is None else [("dotted", label)])
    masks = [(region, style, np.isin(of, members)) for style, of in drawn for region, members in task.regions.items()]
    tumours = [of > 0 for _, of in reversed(drawn)]
    centre = plane_centre(next((tumour for tumour in tumours if tumour.any()), tumours[0]))
    # The same for every modality.
    contours = {
        plane: [(region, style, _contours(_slice(mask, centre, plane))) for region, style, mask in masks]
        for plane in _PLANES
    }
    below = 0.3 + _NOTE_INCHES * len(notes)
    rows = [(modality, *_grey(image), contours) for modality, image in zip(modalities, images, strict=True)]
    for region, values in (probabilities or {}).items():
        # Without contours, which have the same colour.
        style = {
            "cmap": LinearSegmentedColormap.from_list(region, ["black", task.colours[region]]),
            "vmin": 0,
            "vmax": 1,
        }
        rows.append((f"probability of {region}", values, style, dict.fromkeys(_PLANES, ())))
    figure = Figure(figsize=(8, 2.75 * len(rows) + 0.05 + below), facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for row, (name, shown, style, lines_of) in zip(axes, rows, strict=True):
        for place, (plane, (_, right, vertical)) in zip(row, _PLANES.items(), strict=True):
            origin = "upper" if plane == "axial" else "lower"
            aspect = spacing[vertical] / spacing[right]
            slice_ = _slice(shown, centre, plane)
            place.imshow(slice_, origin=origin, aspect=aspect, **style)
            for region, stroke, lines in lines_of[plane]:
                place.add_collection(
                    LineCollection(lines, colors=task.colours[region], linewidths=1, linestyles=stroke), autolim=False
                )
            # Half a voxel more than the slice, for contours along its border.
            height, width = slice_.shape
            place.set(xlim=(-1, width), ylim=(height, -1) if origin == "upper" else (-1, height))
            place.set(xticks=[], yticks=[], facecolor="black")
            place.spines[:].set_visible(False)
            if place in axes[0]:
                place.set_title(plane, color="white", fontsize=10)
        row[0].set_ylabel(name, color="white")
        for place in row[:2]:
            place.text(0.02, 0.5, "R", color="white", fontsize=8, transform=place.transAxes)
    legend = [Line2D([], [], color=colour, label=region) for region, colour in task.colours.items()]
    if label is not None:
        legend.append(Line2D([], [], color="white", linestyle="dotted", label="label"))
    figure.legend(
        handles=legend, loc="lower right", ncols=len(task.regions) + 1, frameon=False, labelcolor="white", fontsize=8
    )
    for line, note in enumerate(reversed(notes)):
        height = (0.3 + _NOTE_INCHES * (line + 0.4)) / figure.get_figheight()
        figure.text(0.5, height, note, color=_NOTE_COLOUR, fontsize=9, ha="center")
    figure.tight_layout(pad=0.3, rect=(0, below / figure.get_figheight(), 1, 1))
    # Without matplotlib's version in it, the same picture gives the same file.
    write_atomically(
        Path(file), lambda opened: figure.savefig(opened, format="png", dpi=110, metadata={"Software": None})
    )


def _grey(image: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """An image with a black background, and how it is drawn."""
    inside = image[image != 0]
    low, high = np.percentile(inside, (1, 99.5)) if len(inside) else (0, 1)
    return np.where(image != 0, image, low), {"cmap": "gray", "vmin": low, "vmax": high}


def _slice(volume: np.ndarray, centre: tuple[int, int, int], plane: str) -> np.ndarray:
    """(X, Y, Z) -> (vertical, horizontal), through the centre."""
    cut = _PLANES[plane][0]
    return np.take(volume, centre[cut], axis=cut).T


def _contours(mask: np.ndarray) -> list[np.ndarray]:
    """The lines around a mask (vertical, horizontal), each (points, 2) with horizontal places first."""
    from contourpy import contour_generator

    # A rim of background, so that a contour also closes at the border of the box.
    return [line - 1 for line in contour_generator(z=np.pad(mask.astype(float), 1)).lines(0.5)]


def plane_centre(tumour: np.ndarray) -> tuple[int, int, int]:
    """Returns the tumour's voxel that is nearest to its centre of mass; the middle of the box without a tumour."""
    voxels = np.argwhere(tumour)
    if not len(voxels):
        return tuple(side // 2 for side in tumour.shape)
    nearest = voxels[((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    return tuple(int(place) for place in nearest)

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedmepd.segmentation.overlay import draw_overlay, plane_centre
from fedmepd.tasks.brats import BRATS


def segmented(tumour: bool) -> tuple:
    """What is drawn of a case."""
    shape = (30, 36, 20)
    rng = np.random.default_rng(0)
    classes = np.zeros(shape, np.uint8)
    if tumour:
        # Reaches the border of the box.
        classes[0:16, 6:26, 4:16] = 2
        classes[3:12, 9:22, 6:14] = 1
        classes[5:9, 12:18, 8:12] = 3
    images = rng.normal(size=(2, *shape)).astype("float32")
    return ("FLAIR", "T1"), images, classes, (1.0, 1.0, 2.0)


def painted(file: Path) -> dict[str, int]:
    """Number of pixels in each region's colour."""
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    pixels = imread(file)[..., :3]
    return {
        region: int((np.abs(pixels - np.array(to_rgb(colour))).max(axis=-1) < 0.12).sum())
        for region, colour in BRATS.colours.items()
    }


def test_contours_of_every_region(tmp_path: Path) -> None:
    draw_overlay(BRATS, tmp_path / "with.png", *segmented(True))
    draw_overlay(BRATS, tmp_path / "without.png", *segmented(False))
    found, legend = painted(tmp_path / "with.png"), painted(tmp_path / "without.png")
    # The more a region holds, the longer its contour; without a tumour there is the legend alone.
    extra = [found[region] - legend[region] for region in ("WT", "TC", "ET")]
    assert extra[0] > extra[1] > extra[2] > 100
    assert all(count < 100 for count in legend.values())


def test_probabilities_are_drawn_in_the_regions_colours(tmp_path: Path) -> None:
    """Half of the box is certain: much more of the core's colour, and of no other."""
    modalities, images, classes, spacing = segmented(True)
    certain = np.zeros(classes.shape, "float32")
    certain[:, :18] = 1
    draw_overlay(BRATS, tmp_path / "without.png", modalities, images, classes, spacing)
    draw_overlay(BRATS, tmp_path / "with.png", modalities, images, classes, spacing, probabilities={"TC": certain})
    before, after = painted(tmp_path / "without.png"), painted(tmp_path / "with.png")
    assert after["TC"] > before["TC"] + 10_000
    assert abs(after["WT"] - before["WT"]) < 500 and abs(after["ET"] - before["ET"]) < 500


def test_the_same_case_is_the_same_picture(tmp_path: Path) -> None:
    for name in ("one", "two"):
        draw_overlay(BRATS, tmp_path / f"{name}.png", *segmented(True))
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize(
    ("voxels", "centre"),
    [
        ([(1, 1, 1), (1, 1, 2), (1, 1, 3)], (1, 1, 2)),
        # The centre of mass of a ring is not in the ring.
        ([(0, 0, 0), (0, 4, 0), (6, 4, 0)], (0, 4, 0)),
        ([], (4, 3, 2)),
    ],
)
def test_planes_go_through_the_tumour(voxels: list, centre: tuple[int, int, int]) -> None:
    tumour = np.zeros((8, 6, 4), dtype=bool)
    for voxel in voxels:
        tumour[voxel] = True
    assert plane_centre(tumour) == centre


def test_warnings_stand_under_the_picture(tmp_path: Path) -> None:
    """In a colour of their own, the more the more there are, and nothing else changes its size."""
    from matplotlib.image import imread

    def orange(*notes: str) -> tuple[int, int]:
        draw_overlay(BRATS, tmp_path / "of.png", *segmented(True), notes=notes)
        pixels = imread(tmp_path / "of.png")[..., :3]
        found = (np.abs(pixels - np.array((1, 0xB0 / 255, 0))).max(axis=-1) < 0.1).sum()
        return int(found), pixels.shape[0]

    (none, low), (one, higher), (two, highest) = orange(), orange("without T2"), orange("without T2", "of phantoms")
    assert none == 0 and two > 1.5 * one > 50
    assert higher - low == highest - higher == pytest.approx(22, abs=1)

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from fedmepd.evaluation.metrics import CaseScores, case_scores, dice_only, summarise
from fedmepd.tasks.brats import BRATS

REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}


def volume(*boxes: tuple[int, tuple[slice, slice, slice]], side: int = 12) -> np.ndarray:
    classes = np.zeros((side, side, side), dtype=np.int64)
    for value, box in boxes:
        classes[box] = value
    return classes


def box(x: tuple[int, int], y: tuple[int, int] = (2, 6), z: tuple[int, int] = (2, 6)) -> tuple[slice, slice, slice]:
    return slice(*x), slice(*y), slice(*z)


def surface(mask: np.ndarray) -> np.ndarray:
    """The voxels of a mask of which a face touches the outside, one by one."""
    found = []
    for voxel in np.argwhere(mask):
        for axis in range(3):
            for step in (-1, 1):
                neighbour = voxel.copy()
                neighbour[axis] += step
                inside = (neighbour >= 0).all() and (neighbour < mask.shape).all()
                if not (inside and mask[tuple(neighbour)]):
                    found.append(tuple(voxel))
    return np.array(sorted(set(found)))


def slow_hd95(prediction: np.ndarray, label: np.ndarray, spacing: tuple[float, float, float]) -> float:
    a, b = surface(prediction) * np.array(spacing), surface(label) * np.array(spacing)
    distances = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    return max(np.percentile(distances.min(axis=1), 95), np.percentile(distances.min(axis=0), 95))


# A box of 4 x 4 x 4 voxels, shifted by 1 along X: 48 of 64 voxels in common.
@pytest.mark.parametrize(
    ("prediction", "label", "dice"),
    [
        pytest.param(volume((1, box((2, 6)))), volume((1, box((2, 6)))), {"WT": 1, "TC": 1, "ET": 1}, id="same NCR"),
        pytest.param(volume((3, box((2, 6)))), volume((3, box((3, 7)))), {"WT": 0.75, "TC": 0.75, "ET": 0.75}, id="ET"),
        pytest.param(volume((2, box((2, 6)))), volume((2, box((3, 7)))), {"WT": 0.75, "TC": 1, "ET": 1}, id="ED"),
        # 64 voxels called ED that are NCR: right for the whole tumour, wrong for the core.
        pytest.param(volume((2, box((2, 6)))), volume((1, box((2, 6)))), {"WT": 1, "TC": 0, "ET": 1}, id="ED for NCR"),
        # Half of the core is enhancing: 2 * 32 / (64 + 32).
        pytest.param(
            volume((3, box((2, 6)))),
            volume((1, box((2, 6))), (3, box((2, 4)))),
            {"WT": 1, "TC": 1, "ET": 2 / 3},
            id="ET for NCR",
        ),
    ],
)
def test_dice_by_hand(prediction: np.ndarray, label: np.ndarray, dice: dict[str, float]) -> None:
    assert case_scores(BRATS, prediction, label, (1, 1, 1)).dice == pytest.approx(dice)
    assert dice_only(BRATS, torch.as_tensor(prediction), torch.as_tensor(label)).dice == pytest.approx(dice)


@pytest.mark.parametrize(
    ("predicted", "labelled", "dice", "hd95", "empty"),
    [
        pytest.param(False, False, 1.0, 0.0, "both", id="both empty"),
        pytest.param(True, False, 0.0, 373.13, "label", id="label empty"),
        pytest.param(False, True, 0.0, 373.13, "prediction", id="prediction empty"),
        pytest.param(True, True, 1.0, 0.0, None, id="none empty"),
    ],
)
def test_empty_regions(predicted: bool, labelled: bool, dice: float, hd95: float, empty: str | None) -> None:
    """Enhancing tumour inside an oedema that both have: only ET and TC are affected."""
    oedema, rim = (2, box((1, 8))), (3, box((2, 6)))
    scores = case_scores(BRATS, volume(oedema, *[rim] * predicted), volume(oedema, *[rim] * labelled), (1.0, 1.0, 1.0))
    assert (scores.dice["ET"], scores.hd95_mm["ET"], scores.empty["ET"]) == (dice, hd95, empty)
    assert (scores.dice["TC"], scores.hd95_mm["TC"], scores.empty["TC"]) == (dice, hd95, empty)
    assert scores.empty["WT"] is None


def test_disjoint_but_not_empty() -> None:
    """Dice 0 without an empty region: the true distance counts, not the BraTS constant."""
    scores = case_scores(BRATS, volume((3, box((0, 1)))), volume((3, box((8, 9)))), (2.0, 1.0, 1.0))
    assert scores.dice == {"WT": 0, "TC": 0, "ET": 0}
    assert scores.hd95_mm == pytest.approx({"WT": 16, "TC": 16, "ET": 16})
    assert scores.empty == {"WT": None, "TC": None, "ET": None}


@pytest.mark.parametrize(
    ("axis", "spacing", "expected"),
    [(0, (3.0, 1.0, 1.0), 3.0), (1, (3.0, 0.5, 1.0), 0.5), (2, (1.0, 1.0, 2.5), 2.5)],
)
def test_hd95_is_in_millimetres_along_each_axis(axis: int, spacing: tuple, expected: float) -> None:
    """A single voxel moved by one voxel along one axis."""
    one, other = np.zeros((8, 8, 8), dtype=int), np.zeros((8, 8, 8), dtype=int)
    place = [4, 4, 4]
    one[tuple(place)] = 3
    place[axis] += 1
    other[tuple(place)] = 3
    assert case_scores(BRATS, one, other, spacing).hd95_mm["ET"] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
def test_hd95_against_all_pairs_of_surface_voxels(seed: int) -> None:
    """Blobs that touch the border, anisotropic voxels."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(11)] * 3, indexing="ij"))

    def blob() -> np.ndarray:
        distance = np.sqrt(((grid - rng.uniform(1, 9, (3, 1, 1, 1))) ** 2).sum(0)) + rng.normal(0, 0.4, (11, 11, 11))
        return np.select([distance < 1.8, distance < 2.6, distance < 4], [1, 3, 2], 0)

    prediction, label, spacing = blob(), blob(), (1.0, 2.0, 3.5)
    scores = case_scores(BRATS, prediction, label, spacing)
    for region, members in REGIONS.items():
        expected = slow_hd95(np.isin(prediction, members), np.isin(label, members), spacing)
        assert scores.hd95_mm[region] == pytest.approx(expected, rel=1e-5), region


@pytest.mark.parametrize("score", [partial(case_scores, spacing=(1, 1, 1)), dice_only])
@pytest.mark.parametrize("shape", [(12, 12, 11), (1, 12, 12, 12)])
def test_shapes_must_agree(score, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(12, 12, 12\)"):
        score(BRATS, np.zeros(shape, dtype=int), volume())


def test_summary_by_hand() -> None:
    scores = [
        CaseScores(
            {"WT": 0.9, "TC": 0.6, "ET": 0.0},
            {"WT": None, "TC": None, "ET": "label"},
            {"WT": 4.0, "TC": 10.0, "ET": 373.13},
        ),
        CaseScores(
            {"WT": 0.7, "TC": 0.8, "ET": 1.0},
            {"WT": None, "TC": "prediction", "ET": "both"},
            {"WT": 8.0, "TC": 20.0, "ET": 0.0},
        ),
    ]
    summary = summarise(scores)
    assert summary["dice"] == pytest.approx({"WT": 0.8, "TC": 0.7, "ET": 0.5})
    assert summary["mdsc"] == pytest.approx(2 / 3)
    assert summary["hd95_mm"] == pytest.approx({"WT": 6.0, "TC": 15.0, "ET": 186.565})
    assert summary["empty"] == {"WT": 0, "TC": 1, "ET": 2}


def test_summary_of_validation_has_no_distances() -> None:
    summary = summarise([CaseScores({"WT": 0.9, "TC": 0.6, "ET": 0.3}, {"WT": None, "TC": None, "ET": None})])
    assert summary.keys() == {"dice", "mdsc", "empty"}
    assert summary["mdsc"] == pytest.approx(0.6)


def test_no_case_no_summary() -> None:
    assert summarise([]) is None

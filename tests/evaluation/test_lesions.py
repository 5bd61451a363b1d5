from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from fedmepd.evaluation.distances import surface_dice
from fedmepd.evaluation.lesions import LesionScores, score_lesions
from fedmepd.evaluation.metrics import case_scores, summarise
from fedmepd.tasks.brats import BRATS
from fedmepd.tasks.labels import IGNORE
from fedmepd.tasks.rules import LesionRules
from tests.evaluation.test_metrics import slow_hd95, surface

RULES = LesionRules()
MM = (1.0, 1.0, 1.0)


def ball(*centres: tuple[int, int, int], radius: float = 4, side: int = 48) -> np.ndarray:
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1)
    return np.any([np.linalg.norm(grid - centre, axis=-1) <= radius for centre in centres], axis=0)


LEFT, RIGHT = (10, 24, 24), (36, 24, 24)
BOTH = ball(LEFT, RIGHT)


def voxel(*place: int) -> np.ndarray:
    mask = np.zeros((48, 48, 48), dtype=bool)
    mask[place] = True
    return mask


def test_two_spheres_of_which_one_is_missed() -> None:
    """The region's Dice would be 2/3; of two lesions one has Dice 1, the other 0 and 374 mm."""
    scores = score_lesions(ball(LEFT), BOTH, MM, RULES)
    assert scores == LesionScores(0.5, 187.0, found=1, missed=1, invented=0)


def test_a_sphere_that_is_invented() -> None:
    assert score_lesions(BOTH, ball(LEFT), MM, RULES) == LesionScores(0.5, 187.0, found=1, missed=0, invented=1)


def test_both_spheres_found_and_none_at_all() -> None:
    assert score_lesions(BOTH, BOTH, MM, RULES) == LesionScores(1.0, 0.0, found=2, missed=0, invented=0)
    assert score_lesions(BOTH & False, BOTH & False, MM, RULES) == LesionScores(1.0, 0.0, 0, 0, 0)


def test_a_sphere_that_the_prediction_splits_in_two_is_one_lesion() -> None:
    """Without its middle: both parts together are compared with it, and none is an invention."""
    label = ball((24, 24, 24), radius=6)
    parts = label.copy()
    parts[23:26] = False
    scores = score_lesions(parts, label, MM, RULES)
    assert (scores.found, scores.missed, scores.invented) == (1, 0, 0)
    assert scores.dice == pytest.approx(2 * parts.sum() / (parts.sum() + label.sum()))
    assert scores.hd95_mm == pytest.approx(slow_hd95(parts, label, MM))


def test_a_sphere_that_covers_two_of_the_label_is_compared_with_each() -> None:
    """A bar of 30 x 9 x 9 voxels over two boxes of 9 x 9 x 9."""
    label, bar = np.zeros((48, 48, 48), dtype=bool), np.zeros((48, 48, 48), dtype=bool)
    label[5:14, 20:29, 20:29] = label[26:35, 20:29, 20:29] = True
    bar[5:35, 20:29, 20:29] = True
    scores = score_lesions(bar, label, MM, RULES)
    assert (scores.found, scores.missed, scores.invented) == (2, 0, 0)
    assert scores.dice == pytest.approx(2 * 9 / (30 + 9))


def test_lesions_of_a_single_voxel() -> None:
    speck, sphere = voxel(36, 24, 24), ball(LEFT)
    of_any_size = LesionRules(smallest_voxels=1)
    # Too small to be missed or invented by the rules of glioma.
    assert score_lesions(sphere, sphere | speck, MM, RULES) == LesionScores(1.0, 0.0, 1, 0, 0)
    assert score_lesions(sphere | speck, sphere, MM, RULES) == LesionScores(1.0, 0.0, 1, 0, 0)
    assert score_lesions(sphere, sphere | speck, MM, of_any_size) == LesionScores(0.5, 187.0, 1, 1, 0)
    assert score_lesions(sphere | speck, sphere, MM, of_any_size) == LesionScores(0.5, 187.0, 1, 0, 1)
    assert score_lesions(speck, speck, MM, of_any_size) == LesionScores(1.0, 0.0, 1, 0, 0)
    assert score_lesions(speck, speck, MM, RULES) == LesionScores(1.0, 0.0, 0, 0, 0)


def test_what_lies_at_a_lesion_that_is_too_small_is_no_invention() -> None:
    """A large sphere over a lesion of one voxel; the same sphere elsewhere is one."""
    label = ball(LEFT) | voxel(*RIGHT)
    assert score_lesions(BOTH, label, MM, RULES) == LesionScores(1.0, 0.0, 1, 0, 0)
    assert score_lesions(BOTH, ball(LEFT) | voxel(36, 40, 40), MM, RULES).invented == 1


def test_sizes_at_the_border_of_the_smallest() -> None:
    """49 and 50 voxels."""
    for number, missed in ((49, 0), (50, 1)):
        label = np.zeros((48, 48, 48), dtype=bool)
        label[10:20, 10:15, 10] = True
        label[10, 10, 10] = number == 50
        assert label.sum() == number
        assert score_lesions(label & False, label, MM, RULES).missed == missed


def test_parts_near_one_another_are_one_lesion_of_the_label() -> None:
    """Between two boxes there are 6 planes, which the label's growth by 3 closes, or 7, which it does not."""
    for gap, lesions in ((6, 1), (7, 2)):
        label = np.zeros((48, 48, 48), dtype=bool)
        label[5:10, 10:20, 10:20] = label[10 + gap : 15 + gap, 10:20, 10:20] = True
        assert score_lesions(label & False, label, MM, RULES).missed == lesions
        assert score_lesions(label & False, label, MM, LesionRules(dilation=0)).missed == 2


def test_a_prediction_beside_a_lesion_is_a_bad_finding_of_it() -> None:
    """3 planes away it touches the grown label: Dice 0, and the distance that there is. 4 planes away it does not."""
    label = np.zeros((48, 48, 48), dtype=bool)
    label[10:15, 10:20, 10:20] = True
    near, far = np.roll(label, 7, axis=0), np.roll(label, 8, axis=0)
    found = score_lesions(near, label, MM, RULES)
    assert (found.dice, found.found, found.missed, found.invented) == (0, 1, 0, 0)
    assert found.hd95_mm == pytest.approx(slow_hd95(near, label, MM))
    assert score_lesions(far, label, MM, RULES) == LesionScores(0.0, 374.0, 0, 1, 1)


@pytest.mark.parametrize(("neighbours", "lesions"), [(6, 3), (18, 2), (26, 1)])
def test_what_hangs_together(neighbours: int, lesions: int) -> None:
    """Three cubes: the second shares an edge with the first, the third a corner with the second."""
    cubes = np.zeros((20, 20, 20), dtype=bool)
    cubes[2:4, 2:4, 2:4] = cubes[4:6, 4:6, 2:4] = cubes[6:8, 6:8, 4:6] = True
    rules = LesionRules(dilation=0, neighbours=neighbours, smallest_voxels=1)
    assert score_lesions(cubes, cubes & False, MM, rules).invented == lesions


def flood(mask: np.ndarray, neighbours: int) -> list[set[tuple[int, int, int]]]:
    """What hangs together, found voxel by voxel."""
    most = {6: 1, 18: 2, 26: 3}[neighbours]
    steps = [step for step in product((-1, 0, 1), repeat=3) if 0 < sum(map(abs, step)) <= most]
    left, found = {tuple(place) for place in np.argwhere(mask).tolist()}, []
    while left:
        waiting, part = [left.pop()], set()
        while waiting:
            place = waiting.pop()
            part.add(place)
            for step in steps:
                beside = tuple(a + b for a, b in zip(place, step, strict=True))
                if beside in left:
                    left.remove(beside)
                    waiting.append(beside)
        found.append(part)
    return found


def grow(mask: np.ndarray, times: int) -> np.ndarray:
    steps = [step for step in product((-1, 0, 1), repeat=3) if sum(map(abs, step)) <= 2]
    for _ in range(times):
        grown = np.zeros_like(mask)
        for place in np.argwhere(mask):
            for step in steps:
                beside = place + step
                if (beside >= 0).all() and (beside < mask.shape).all():
                    grown[tuple(beside)] = True
        mask = grown
    return mask


def slow_scores(predicted: np.ndarray, true: np.ndarray, spacing: tuple, rules: LesionRules) -> LesionScores:
    """The definition, set by set."""

    def mask_of(places: set) -> np.ndarray:
        mask = np.zeros_like(true)
        for place in places:
            mask[place] = True
        return mask

    label = {tuple(place) for place in np.argwhere(true).tolist()}
    parts = flood(predicted, rules.neighbours)
    dice, distances, missed, touched = [], [], 0, []
    for area in flood(grow(true, rules.dilation), rules.neighbours):
        lesion, touching = area & label, [part for part in parts if part & area]
        touched += touching
        if len(lesion) < rules.smallest_voxels:
            continue
        if not touching:
            missed += 1
            continue
        joined = set().union(*touching)
        dice.append(2 * len(joined & lesion) / (len(joined) + len(lesion)))
        distances.append(slow_hd95(mask_of(joined), mask_of(lesion), spacing))
    invented = sum(part not in touched and len(part) >= rules.smallest_voxels for part in parts)
    number = len(dice) + missed + invented
    if not number:
        return LesionScores(1.0, 0.0, 0, 0, 0)
    penalty = rules.missed_mm * (missed + invented)
    return LesionScores(sum(dice) / number, (sum(distances) + penalty) / number, len(dice), missed, invented)


@pytest.mark.parametrize("seed", range(6))
def test_against_the_definition(seed: int) -> None:
    """Blobs and specks that touch the border; other rules each time."""
    rng = np.random.default_rng(seed)
    shape, spacing = (17, 14, 20), (1.0, 1.5, 0.7)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)

    def blobs(centres: np.ndarray) -> np.ndarray:
        return np.any([np.linalg.norm(grid - centre, axis=-1) < rng.uniform(0.5, 3.2) for centre in centres], axis=0)

    centres = rng.uniform(0, shape, (7, 3))
    true, predicted = blobs(centres[:5]), blobs(centres[2:] + rng.normal(0, 0.7, (5, 3)))
    rules = LesionRules(int(seed % 3), (6, 18, 26)[seed % 3], int(rng.integers(1, 12)), 100.0)
    found, expected = score_lesions(predicted, true, spacing, rules), slow_scores(predicted, true, spacing, rules)
    assert (found.found, found.missed, found.invented) == (expected.found, expected.missed, expected.invented)
    assert found.found and found.found + found.missed + found.invented > 1
    assert (found.dice, found.hd95_mm) == pytest.approx((expected.dice, expected.hd95_mm), rel=1e-5)


def test_nsd_against_all_pairs_of_surface_voxels() -> None:
    rng = np.random.default_rng(1)
    grid, spacing = np.stack(np.meshgrid(*[np.arange(14)] * 3, indexing="ij"), axis=-1), (0.6, 1.0, 0.9)
    label = np.linalg.norm((grid - 6.5) * spacing, axis=-1) < 4
    prediction = np.linalg.norm((grid - 6.5 - (1.6, 0, 0)) * spacing, axis=-1) + rng.normal(0, 0.2, label.shape) < 4.2
    one, other = surface(prediction) * np.array(spacing), surface(label) * np.array(spacing)
    distances = np.linalg.norm(one[:, None] - other[None], axis=-1)
    near = (distances.min(axis=1) <= 1).sum() + (distances.min(axis=0) <= 1).sum()
    expected = near / (len(one) + len(other))
    assert 0.2 < expected < 0.95
    assert surface_dice(prediction, label, spacing) == pytest.approx(expected)


def test_regions_of_a_case() -> None:
    """ET alone in two places, one of which the prediction lacks; where both have no ET, nothing is wrong."""
    label = 3 * BOTH.astype("uint8")
    scores = case_scores(BRATS, 3 * ball(LEFT).astype("uint8"), label, MM)
    assert scores.lesions == dict.fromkeys(("WT", "TC", "ET"), LesionScores(0.5, 187.0, 1, 1, 0))
    assert scores.nsd == pytest.approx(dict.fromkeys(("WT", "TC", "ET"), 2 / 3))
    oedema = 2 * BOTH.astype("uint8")
    only = case_scores(BRATS, oedema, oedema, MM)
    assert only.lesions["ET"] == LesionScores(1.0, 0.0, 0, 0, 0) and only.nsd["ET"] == 1
    missing = case_scores(BRATS, oedema, label, MM)
    assert missing.lesions["ET"] == LesionScores(0.0, 374.0, 0, 2, 0) and missing.nsd["ET"] == 0


def test_what_the_label_leaves_out_or_does_not_tell_has_no_lesion() -> None:
    label = np.where(ball(RIGHT, radius=6), IGNORE, 2 * ball(LEFT)).astype("uint8")
    scores = case_scores(BRATS, 2 * BOTH.astype("uint8"), label, MM)
    assert scores.lesions["WT"] == LesionScores(1.0, 0.0, 1, 0, 0)
    whole = case_scores(BRATS, 2 * BOTH.astype("uint8"), 1 * ball(LEFT).astype("uint8"), MM, ((0,), (1, 2, 3)))
    assert list(whole.lesions) == list(whole.nsd) == ["WT"]


def test_summary_counts_the_lesions_of_all_cases() -> None:
    label = 2 * BOTH.astype("uint8")
    cases = [case_scores(BRATS, 2 * mask.astype("uint8"), label, MM) for mask in (ball(LEFT), BOTH)]
    summary = summarise(cases)
    assert summary["lesions"]["WT"] == {"dice": 0.75, "hd95_mm": 93.5, "found": 3, "missed": 1, "invented": 0}
    assert summary["nsd"]["WT"] == pytest.approx((2 / 3 + 1) / 2)

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import ConfusionMatrixMetric, DiceMetric, HausdorffDistanceMetric

from fedmepd.evaluation.measures import measure_case, region_millilitres
from fedmepd.tasks.brats import BRATS
from tests.evaluation.shapes import sphere
from tests.evaluation.test_metrics import slow_hd95

REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}


def test_by_hand() -> None:
    """A box of 4 x 4 x 4 in 1000 voxels of 0.006 ml, shifted by 1 along X: 48 of 64 voxels in common."""
    prediction, label = np.zeros((10, 10, 10), int), np.zeros((10, 10, 10), int)
    label[2:6, 2:6, 2:6] = 3
    prediction[3:7, 2:6, 2:6] = 3
    for of in measure_case(BRATS, prediction, label, (3, 1, 2)).values():
        assert of.dice == pytest.approx(0.75) and of.sensitivity == pytest.approx(0.75)
        # 936 voxels are outside the label, 16 of them are called tumour.
        assert of.specificity == pytest.approx(920 / 936)
        assert of.hd95_mm == pytest.approx(3)
        assert of.label_ml == pytest.approx(0.384) and of.prediction_ml == pytest.approx(0.384)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 2.0, 3.5)])
@pytest.mark.parametrize("shift", [(0, 0, 0), (1, 0, 0), (0, 2, 0), (0, 0, 3), (2, -1, 1), (9, 9, 9)])
def test_shifted_spheres(shift: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
    """Against counting voxels and measuring every pair of surface voxels."""
    label, prediction = sphere((9, 9, 9)), sphere(tuple(9 + step for step in shift))
    found = measure_case(BRATS, torch.as_tensor(prediction), label, spacing)
    for region, members in REGIONS.items():
        p, t = np.isin(prediction, members), np.isin(label, members)
        both, neither = (p & t).sum(), (~p & ~t).sum()
        assert found[region].dice == pytest.approx(2 * both / (p.sum() + t.sum()))
        assert found[region].sensitivity == pytest.approx(both / t.sum())
        assert found[region].specificity == pytest.approx(neither / (~t).sum())
        assert found[region].hd95_mm == pytest.approx(slow_hd95(p, t, spacing), rel=1e-5)
        assert found[region].label_ml == pytest.approx(t.sum() * np.prod(spacing) / 1000)


def test_agrees_with_monai() -> None:
    """Its metric objects, on a batch of one-hot regions."""
    spacing = (1.0, 1.5, 3.0)
    label, prediction = sphere((9, 9, 9), 6), sphere((11, 10, 9), 5)
    p, t = (
        torch.stack([torch.isin(torch.as_tensor(of), torch.tensor(members)) for members in REGIONS.values()])[None]
        for of in (prediction, label)
    )
    metrics = {
        "dice": DiceMetric(include_background=True, reduction="none"),
        "hd95_mm": HausdorffDistanceMetric(include_background=True, percentile=95, reduction="none"),
        "sensitivity": ConfusionMatrixMetric(metric_name="sensitivity", reduction="none"),
        "specificity": ConfusionMatrixMetric(metric_name="specificity", reduction="none"),
    }
    found = measure_case(BRATS, prediction, label, spacing)
    for name, metric in metrics.items():
        metric(p.float(), t.float(), **({"spacing": spacing} if name == "hd95_mm" else {}))
        values = metric.aggregate()
        expected = (values[0] if isinstance(values, list) else values).flatten().tolist()
        assert [getattr(found[region], name) for region in REGIONS] == pytest.approx(expected), name


def test_empty_regions() -> None:
    """Without a label there is no sensitivity; the BraTS rule has the rest."""
    label = np.zeros((6, 6, 6), int)
    label[1:3, 1:3, 1:3] = 2
    prediction = label.copy()
    prediction[1, 1, 1] = 3
    found = measure_case(BRATS, prediction, label, (1, 1, 1))
    assert found["ET"].sensitivity is None and found["ET"].specificity == pytest.approx(215 / 216)
    assert (found["ET"].dice, found["ET"].hd95_mm, found["ET"].label_ml) == (0, 373.13, 0)
    swapped = measure_case(BRATS, label, prediction, (1, 1, 1))["ET"]
    assert (swapped.sensitivity, swapped.specificity, swapped.dice, swapped.hd95_mm) == (0, 1, 0, 373.13)
    both = measure_case(BRATS, label, label, (1, 1, 1))["ET"]
    assert (both.sensitivity, both.specificity, both.dice, both.hd95_mm) == (None, 1, 1, 0)
    full = measure_case(BRATS, np.full((4, 4, 4), 3), np.full((4, 4, 4), 3), (1, 1, 1))["ET"]
    assert (full.sensitivity, full.specificity, full.dice) == (1, None, 1)


def test_millilitres() -> None:
    classes = np.zeros((10, 10, 10), np.uint8)
    classes[0], classes[1, 0], classes[2, 0, :5] = 2, 1, 3
    assert region_millilitres(BRATS, classes, (1, 2, 5)) == pytest.approx({"WT": 1.15, "TC": 0.15, "ET": 0.05})
    assert region_millilitres(BRATS, np.zeros((3, 3, 3), int), (1, 1, 1)) == {"WT": 0, "TC": 0, "ET": 0}


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="expected the same"):
        measure_case(BRATS, np.zeros((4, 4, 4), int), np.zeros((4, 4, 5), int), (1, 1, 1))

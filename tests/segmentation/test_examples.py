from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from fedmepd.data.batches import evaluation_cases
from fedmepd.evaluation.metrics import CaseScores
from fedmepd.segmentation.examples import Examples
from fedmepd.segmentation.overlay import draw_overlay
from fedmepd.tasks.brats import BRATS
from tests.tiny import settings


def scored(mdsc: float) -> CaseScores:
    return CaseScores({"WT": mdsc, "TC": mdsc, "ET": mdsc}, dict.fromkeys(("WT", "TC", "ET"), None))


@pytest.fixture
def made(tiny):
    """Builds examples of the tiny fusion site's training cases, each segmented as its label says."""
    data = tiny.data("fusion")

    def make(scores: list[float], modalities: tuple[str, ...] = ("T1ce", "T2")) -> Examples:
        cases = (data.train + data.test)[: len(scores)]
        examples = Examples(cases, settings(evaluation={"pictures": True}), data.cache, modalities)
        for place, (case, mdsc) in enumerate(
            zip(evaluation_cases(cases, settings(evaluation={"pictures": True}), data.cache), scores, strict=True)
        ):
            examples.watch(place, case, case.label, scored(mdsc))
        return examples

    return make


@pytest.mark.parametrize(
    ("scores", "drawn"),
    [
        ([], {}),
        ([0.5], {"best": 0.5}),
        ([0.5, 0.7], {"best": 0.7, "worst": 0.5}),
        ([0.6, 0.2, 0.9], {"best": 0.9, "worst": 0.2, "median": 0.6}),
        ([0.6, 0.2, 0.9, 0.3], {"best": 0.9, "worst": 0.2, "median": 0.3}),
    ],
)
def test_which_cases_are_drawn(scores, drawn, made, tmp_path) -> None:
    assert made(scores).draw(tmp_path) == pytest.approx(drawn)
    assert {file.stem for file in tmp_path.iterdir()} == set(drawn)


def test_some_kinds_alone(made, tmp_path) -> None:
    assert made([0.6, 0.2, 0.9]).draw(tmp_path, ("median",)) == pytest.approx({"median": 0.6})


def test_what_is_drawn(tmp_path, tiny) -> None:
    """Images, segmentation and label of the right case, with the modalities that it has of those asked for."""
    data, of = tiny.data("fusion"), settings(evaluation={"pictures": True})
    shown = list(evaluation_cases(data.train[:3], of, data.cache))
    examples = Examples(data.train[:3], of, data.cache, ("T1ce", "T2"))
    # What is segmented is the label with ET as ED, so that the two cannot be taken for each other.
    found = [torch.where(case.label == 3, 2, case.label) for case in shown]
    for place, mdsc in enumerate((0.6, 0.2, 0.9)):
        assert not torch.equal(found[place], shown[place].label)
        examples.watch(place, shown[place], found[place], scored(mdsc))
    examples.draw(tmp_path)
    pictures = {}
    for kind, place in {"worst": 1, "best": 2, "median": 0}.items():
        case = shown[place]
        rows = [case.modalities.index(name) for name in ("T1ce", "T2")]
        images, label = case.images[0, rows].numpy(), case.label.numpy()
        classes = found[place].numpy().astype(np.uint8)
        draw_overlay(BRATS, tmp_path / "expected.png", ("T1ce", "T2"), images, classes, case.spacing, label)
        pictures[kind] = imread(tmp_path / "expected.png")
        assert np.array_equal(imread(tmp_path / f"{kind}.png"), pictures[kind])
    assert not np.array_equal(pictures["worst"], pictures["median"])


def test_label_is_drawn_too(tmp_path) -> None:
    """Where segmentation and label differ, the picture with the label has pixels that the one without has not."""
    images = np.ones((1, 20, 20, 20), np.float32)
    classes, label = np.zeros((2, 20, 20, 20), np.uint8)
    label[5:15, 5:15, 5:15] = 2
    draw_overlay(BRATS, tmp_path / "a.png", ["T2"], images, classes, (1, 1, 1))
    draw_overlay(BRATS, tmp_path / "b.png", ["T2"], images, classes, (1, 1, 1), label)
    without, with_label = (imread(tmp_path / name)[..., :3] for name in ("a.png", "b.png"))
    green = [((of[..., 1] - of[..., 0]) > 0.2).sum() for of in (without, with_label)]
    assert green[1] > green[0] + 100


def test_memory_stays_small(made) -> None:
    examples = Examples([], settings(evaluation={"pictures": True}), None, ("T2",))
    prediction = torch.zeros(160, 190, 150, dtype=torch.int64)
    prediction[40:90, 50:100, 40:80] = 2
    for place in range(3):
        examples.watch(place, None, prediction, scored(0.5))
    assert sum(len(content) for _, _, content in examples._kept) < 300_000

"""What a model knows of the images it was trained on, and which cases it is not for."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import nibabel
import numpy as np
import pytest

from fedmepd.data.cases import Case
from fedmepd.data.inspection import inspect_cases
from fedmepd.data.phantom import is_phantom
from fedmepd.data.training_images import ImageMeasures, differences, medians, percentiles
from fedmepd.tasks.brats import BRATS
from tests.tiny import Tiny

REAL = Path(__file__).parents[3] / "shared" / "real"
FILES = {"FLAIR": "fla", "T1ce": "t1c", "T1": "t1", "T2": "t2"}


def scores(file: Path) -> list[float]:
    """The z-scores at four percentiles of all voxels above 0, by sorting them."""
    values = nibabel.load(file).get_fdata()
    brain = np.sort(values[values > 0])
    brain = (brain - brain.mean()) / np.sqrt(((brain - brain.mean()) ** 2).mean())
    return [brain[round(share * (len(brain) - 1))] for share in (0.05, 0.25, 0.5, 0.75)]


def test_measured_of_the_training_cases_alone(tiny: Tiny) -> None:
    data = tiny.data("site-1")
    assert data.images.voxel_mm == (1, 1, 1) and not data.phantoms
    union = [
        np.logical_or.reduce([nibabel.load(file).get_fdata() > 0 for file in case.images.values()]).sum() / 1000
        for case in data.train
    ]
    assert data.images.foreground_ml == pytest.approx(median(union), abs=0.06)
    assert list(data.images.intensities) == ["FLAIR", "T1ce"]
    for modality, found in data.images.intensities.items():
        expected = np.median([scores(case.images[modality]) for case in data.train], axis=0)
        assert found == pytest.approx(expected, abs=0.02)


def test_medians_of_what_is_known() -> None:
    """An even number of cases, one of which is empty; a modality that one case has."""
    cases = [
        ImageMeasures((1, 1, 3), 1000, {"T1": (-2, 0), "T2": (-1, 1)}),
        ImageMeasures((3, 1, 1), 1400, {"T1": (-3, 1)}),
        ImageMeasures(),
    ]
    assert medians(cases) == ImageMeasures((1, 1, 3), 1200, {"T1": (-2.5, 0.5), "T2": (-1, 1)})
    assert medians([]) == ImageMeasures()


def test_percentiles_that_tell_nothing() -> None:
    for image in (np.zeros((9, 9, 9)), np.ones((20, 20, 20)), np.full((20, 20, 20), np.nan), np.arange(900.0)):
        assert percentiles(image) == ()
    image = np.random.default_rng(0).normal(1000, 10, (30, 30, 30))
    assert percentiles(image) == pytest.approx((-1.645, -0.674, 0, 0.674), abs=0.03)
    assert percentiles(image * 7) == percentiles(image)


TRAINED = ImageMeasures((1, 1, 1), 1200, {"FLAIR": (-2.2, -0.4, 0.1, 0.6), "T2": (-1.0, -0.6, -0.3, 0.3)})


@pytest.mark.parametrize(
    ("case", "kinds"),
    [
        (TRAINED, []),
        (ImageMeasures(), []),
        (ImageMeasures((1, 1.05, 1)), []),
        (ImageMeasures((1, 1, 5)), ["other voxel size than in training"]),
        (ImageMeasures(foreground_ml=1700), []),
        (ImageMeasures(foreground_ml=700), ["other size of the body than in training"]),
        (ImageMeasures(foreground_ml=3100), ["other size of the body than in training"]),
        # A modality that the model does not know.
        (ImageMeasures(intensities={"T1": (9, 9, 9, 9)}), []),
        (ImageMeasures(intensities={"T2": (-1.7, -0.6, -0.3, 0.3)}), []),
        (
            ImageMeasures(intensities={"FLAIR": TRAINED.intensities["T2"], "T2": TRAINED.intensities["FLAIR"]}),
            ["other intensities than in training (FLAIR T2)"],
        ),
    ],
)
def test_differences(case: ImageMeasures, kinds: list[str]) -> None:
    found = differences("a", case, TRAINED)
    assert [finding.kind for finding in found] == kinds
    assert all("case a" in finding.text and "the model was trained with" in finding.text for finding in found)
    # What is not known of the training is not compared.
    assert differences("a", case, ImageMeasures()) == []


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real cases in {REAL}")
def test_two_patients_are_alike_and_swapped_files_are_not() -> None:
    one, other = ("TCGA-DU-7294", "TCGA-FG-6692")
    images = {
        name: {modality: REAL / name / f"{word}.nii.gz" for modality, word in FILES.items()} for name in (one, other)
    }
    swapped = images[one] | {"FLAIR": images[one]["T2"], "T2": images[one]["FLAIR"]}
    cases = [Case(name, files, None, task=BRATS) for name, files in (*images.items(), ("swapped", swapped))]
    facts = inspect_cases(cases).facts
    assert differences(other, facts[1].measures, facts[0].measures) == []
    [found] = differences("swapped", facts[2].measures, facts[1].measures)
    assert found.kind == "other intensities than in training (FLAIR T2)"


def test_a_phantom_is_known_wherever_it_lies(tmp_path: Path) -> None:
    def case(*names: str) -> Case:
        return Case("a", {name: tmp_path / file for name, file in zip(FILES, names, strict=False)}, None, task=BRATS)

    assert is_phantom(case("Phantom_site-1_001_flair.nii.gz", "Phantom_site-1_001_t1ce.nii.gz"))
    assert not is_phantom(case("Phantom_site-1_001_flair.nii.gz", "BraTS20_Training_001_t1ce.nii.gz"))
    assert not is_phantom(case())

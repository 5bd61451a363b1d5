from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest

from fedmepd.data.cases import Case
from fedmepd.errors import DataError
from fedmepd.evaluation import pairs
from fedmepd.evaluation.pairs import find_segmentations, match, read_classes
from fedmepd.tasks.brats import BRATS
from tests.data.files import LPS, save, tumour, write_case


@pytest.fixture
def how(tmp_path: Path) -> dict:
    return {"follow_links": False, "cache": tmp_path / "cache"}


def test_files_named_after_cases(tmp_path: Path, how: dict) -> None:
    for name in ("a.nii.gz", "b_seg.nii.gz", "BraTS-GLI-00001-000-seg.nii", "C_Label.nii.gz", "a_t1ce.nii.gz"):
        save(tmp_path / "data" / name, tumour())
    (tmp_path / "data" / "volumes.csv").touch()
    save(tmp_path / "data" / "probabilities" / "a_WT.nii.gz", tumour())
    found = find_segmentations(BRATS, tmp_path / "data", **how)
    assert {name: case.label.name for name, case in found.items()} == {
        "a": "a.nii.gz",
        "b": "b_seg.nii.gz",
        "BraTS-GLI-00001-000": "BraTS-GLI-00001-000-seg.nii",
        "C": "C_Label.nii.gz",
    }
    assert found["BraTS-GLI-00001-000"].convention == "brats2023" and found["a"].convention is None


def test_a_folder_of_cases(tmp_path: Path, how: dict) -> None:
    write_case(tmp_path / "data", "one")
    write_case(tmp_path / "data", "two", label=None)
    assert list(find_segmentations(BRATS, tmp_path / "data", **how)) == ["one"]
    # One case's own folder.
    save(tmp_path / "p-7" / "seg.nii.gz", tumour())
    save(tmp_path / "p-7" / "t1.nii.gz", tumour())
    assert list(find_segmentations(BRATS, tmp_path / "p-7", **how)) == ["p-7"]


def test_nothing_to_compare(tmp_path: Path, how: dict) -> None:
    (tmp_path / "empty").mkdir()
    save(tmp_path / "images" / "a_t1.nii.gz", tumour())
    (tmp_path / "note.txt").touch()
    write_case(tmp_path / "unlabelled", "a", label=None)
    for name, message in {
        "nowhere": "does not exist",
        "empty": "no case in",
        "images": "no segmentation in it",
        "note.txt": "expected a folder of cases, or a list",
        "unlabelled": "no segmentation in it",
    }.items():
        with pytest.raises(DataError, match=message) as caught:
            find_segmentations(BRATS, tmp_path / name, **how)
        assert name in str(caught.value)


def test_one_case_twice(tmp_path: Path, how: dict) -> None:
    for name in ("a.nii.gz", "a_seg.nii.gz"):
        save(tmp_path / "data" / name, tumour())
    with pytest.raises(DataError, match="a.nii.gz and .*a_seg.nii.gz are both of case a"):
        find_segmentations(BRATS, tmp_path / "data", **how)


def test_links_out_of_the_folder(tmp_path: Path, how: dict) -> None:
    outside = save(tmp_path / "elsewhere.nii.gz", tumour())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.nii.gz").symlink_to(outside)
    with pytest.raises(DataError, match="leads out of .* --follow-links"):
        find_segmentations(BRATS, tmp_path / "data", **how)
    assert list(find_segmentations(BRATS, tmp_path / "data", **how | {"follow_links": True})) == ["a"]


def test_matching(tmp_path: Path, how: dict) -> None:
    for folder, names in {"p": ("a", "b", "x"), "l": ("y", "a_seg", "b", "z")}.items():
        for name in names:
            save(tmp_path / folder / f"{name}.nii.gz", tumour())
    matched = match(BRATS, tmp_path / "p", tmp_path / "l", **how)
    assert [pair.name for pair in matched.pairs] == ["a", "b"]
    assert (matched.without_label, matched.without_prediction) == (["x"], ["y", "z"])
    assert matched.pairs[0].label.label == tmp_path / "l" / "a_seg.nii.gz"
    two = match(BRATS, tmp_path / "p" / "x.nii.gz", tmp_path / "l" / "z.nii.gz", **how)
    assert [pair.name for pair in two.pairs] == ["x"] and not two.without_label
    # A file and a folder go by name.
    assert match(BRATS, tmp_path / "p" / "a.nii.gz", tmp_path / "l", **how).without_prediction == ["b", "y", "z"]
    with pytest.raises(DataError, match=r"no case is in both .*\(x, \.\.\.\).*\(a, b, y, \.\.\.\)"):
        match(BRATS, tmp_path / "p" / "x.nii.gz", tmp_path / "l", **how)


@pytest.mark.parametrize(
    ("predictions", "labels", "cases"),
    [
        # Points in time: predict's own files end like a modality.
        (("Pat7_T1", "Pat7_T2", "Pat7_T3"), None, ("Pat7_T1", "Pat7_T2", "Pat7_T3")),
        (("Pat7_T1", "Pat7_T2"), ("Pat7_T1", "Pat7_T2"), ("Pat7_T1", "Pat7_T2")),
        (("Pat7_T1", "Pat7_T2"), ("Pat7_T1_seg", "Pat7_T2_seg", "Pat7_T2_flair"), ("Pat7_T1", "Pat7_T2")),
        # As other programs name them.
        (("a_pred", "b_prediction"), None, ("a", "b")),
        (("a_flair_seg", "b_flair_seg"), None, ("a", "b")),
        (("a_t1ce", "a", "b"), None, ("a", "b")),
    ],
)
def test_names_of_predictions(tmp_path: Path, how: dict, predictions, labels, cases) -> None:
    for name in predictions:
        save(tmp_path / "p" / f"{name}.nii.gz", tumour())
    for name in labels or ():
        save(tmp_path / "l" / f"{name}.nii.gz", tumour())
    for name in cases if labels is None else ():
        write_case(tmp_path / "l", name)
    matched = match(BRATS, tmp_path / "p", tmp_path / "l", **how)
    assert [pair.name for pair in matched.pairs] == list(cases)
    assert (matched.without_label, matched.without_prediction) == ([], [])


def test_names_with_accents_stored_in_two_ways(tmp_path: Path, how: dict) -> None:
    save(tmp_path / "p" / f"{normalize('NFD', 'Größe')}.nii.gz", tumour())
    write_case(tmp_path / "l", normalize("NFC", "Größe"))
    assert [pair.name for pair in match(BRATS, tmp_path / "p", tmp_path / "l", **how).pairs] == ["Größe"]


def checked(tmp_path: Path, how: dict, prediction, label, name: str = "a", **values):
    save(tmp_path / "p" / f"{name}.nii.gz", np.asarray(prediction, "uint8"))
    save(tmp_path / "l" / f"{name}.nii.gz", np.asarray(label, "uint8"))
    matched = match(BRATS, tmp_path / "p", tmp_path / "l", **how)
    return pairs.check(matched, **{"prediction_values": None, "label_values": None} | values)


def line(*values: int) -> np.ndarray:
    return np.array(values)[:, None, None]


def test_values_of_two_conventions(tmp_path: Path, how: dict) -> None:
    """1, 2, 4 beside the Decathlon's 2, 1, 3: the same segmentation."""
    [pair], warnings = checked(tmp_path, how, line(0, 1, 2, 4), line(0, 2, 1, 3), label_values="msd")
    assert [part.convention for part in (pair.prediction, pair.label)] == ["brats", "msd"] and warnings == []
    for part in (pair.prediction, pair.label):
        classes, spacing = read_classes(part)
        assert classes.ravel().tolist() == [0, 1, 2, 3] and spacing == (1, 1, 1)


def test_a_layout_tells_the_labels_values_only(tmp_path: Path, how: dict) -> None:
    """Predictions for BraTS 2023 may have been written with any values."""
    name = "BraTS-GLI-00001-000"
    [pair], _ = checked(tmp_path, how, line(0, 1, 2, 4), line(0, 1, 2, 3), name)
    assert [part.convention for part in (pair.prediction, pair.label)] == ["brats", "brats2023"]
    with pytest.raises(DataError, match="say --prediction-values brats2023 .* or --prediction-values msd"):
        checked(tmp_path, how, line(0, 1, 2, 3), line(0, 1, 2, 3), name)


def test_nothing_is_guessed(tmp_path: Path, how: dict) -> None:
    with pytest.raises(DataError, match="--label-values brats2023 .* or --label-values msd"):
        checked(tmp_path, how, line(0, 1, 2, 4), line(0, 1, 2, 3))
    with pytest.raises(DataError, match="a.nii.gz holds the label values 4, unknown as Decathlon"):
        checked(tmp_path, how, line(0, 1, 2, 4), line(0, 1, 2, 4), label_values="msd")
    _, warnings = checked(tmp_path, how, line(0, 1, 2, 0), line(0, 1, 2, 4))
    [warning] = warnings
    assert (
        warning.startswith("predictions: the labels hold 0, 1, 2, which fit more than one convention")
        and "--prediction-values msd" in warning
    )


def test_every_fault_is_named_before_anything_is_scored(tmp_path: Path, how: dict) -> None:
    good = tumour()
    for name, prediction, affine in (
        ("shape", tumour((8, 9, 11)), LPS),
        ("affine", good, LPS + np.outer([0, 0, 3, 0], [0, 0, 0, 1])),
        ("good", good, LPS),
        # Less than a tenth of a millimetre is rounding.
        ("near", good, LPS + np.outer([0, 0, 0.05, 0], [0, 0, 0, 1])),
    ):
        save(tmp_path / "p" / f"{name}.nii.gz", prediction, affine)
        save(tmp_path / "l" / f"{name}.nii.gz", good)
    matched = match(BRATS, tmp_path / "p", tmp_path / "l", **how)
    with pytest.raises(DataError) as caught:
        pairs.check(matched, prediction_values=None, label_values=None)
    text = str(caught.value)
    assert "2 faults" in text and "shape.nii.gz has shape (8, 9, 11)" in text and "up to 3 mm apart" in text
    assert "good.nii.gz" not in text and "near.nii.gz" not in text
    (tmp_path / "p" / "good.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError, match="good.nii.gz cannot be read as NIfTI"):
        pairs.check(matched, prediction_values=None, label_values=None)


def test_a_file_that_vanishes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone.nii cannot be read any more"):
        read_classes(Case("a", {}, tmp_path / "gone.nii", convention="brats", task=BRATS))

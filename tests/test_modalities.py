from __future__ import annotations

import pytest

from fedmepd.errors import FedMEPDError
from fedmepd.modalities import BRATS, PROTOCOL_SUBSETS


def test_brats() -> None:
    assert BRATS.modalities == ("FLAIR", "T1ce", "T1", "T2")
    assert BRATS.classes == ("background", "NCR/NET", "ED", "ET")
    # Enhancing tumour is 4 in files up to 2021 and 3 in those of 2023 and later.
    assert BRATS.class_of_label == {0: 0, 1: 1, 2: 2, 3: 3, 4: 3}
    assert BRATS.regions == {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}


def test_written_labels_are_read_back() -> None:
    assert [BRATS.class_of_label[label] for label in BRATS.label_of_class] == [0, 1, 2, 3]


def test_protocol() -> None:
    """The rows of the paper's table, as its column heads abbreviate them."""
    heads = ["F/T1ce/T1", "F/T1/T2", "F/T1ce", "T1/T2", "T1ce", "T2", "F/T1ce/T1/T2", "F/T1ce/T1/T2"]
    expected = [tuple("FLAIR" if part == "F" else part for part in head.split("/")) for head in heads]
    assert list(PROTOCOL_SUBSETS) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["T2", "FLAIR"], ("FLAIR", "T2")),
        (("T1", "T1", "T1ce"), ("T1ce", "T1")),
        ("T1", ("T1",)),
        (iter(["T2"]), ("T2",)),
        ({"T2", "T1", "T1ce", "FLAIR"}, ("FLAIR", "T1ce", "T1", "T2")),
    ],
)
def test_subset(names, expected: tuple[str, ...]) -> None:
    assert BRATS.subset(names) == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["T1", "PET"], "unknown modality 'PET': expected one of FLAIR, T1ce, T1, T2"),
        (["flair"], "unknown modality 'flair'"),
        (["DWI", "SWI"], "unknown modality 'DWI', 'SWI'"),
        ([], "no modality given: expected at least one of FLAIR, T1ce, T1, T2"),
    ],
)
def test_subset_refuses(names: list[str], message: str) -> None:
    with pytest.raises(FedMEPDError, match=message):
        BRATS.subset(names)

from __future__ import annotations

import pytest

from fedmepd.errors import FedMEPDError
from fedmepd.tasks.brats import BRATS, PROTOCOL_SUBSETS


def test_brats() -> None:
    assert BRATS.modalities == ("FLAIR", "T1ce", "T1", "T2")
    assert BRATS.classes == ("background", "NCR/NET", "ED", "ET")
    assert BRATS.regions == {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}


@pytest.mark.parametrize(
    ("convention", "labels"),
    [
        # file values of background, NCR/NET, ED, ET
        ("brats", (0, 1, 2, 4)),
        ("brats2023", (0, 1, 2, 3)),
        ("msd", (0, 2, 1, 3)),
    ],
)
def test_label_conventions(convention: str, labels: tuple[int, ...]) -> None:
    assert BRATS.label_of_class(convention) == labels
    assert BRATS.conventions[convention].classes == {label: number for number, label in enumerate(labels)}


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

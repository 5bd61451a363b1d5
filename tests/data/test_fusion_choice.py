import pytest

from fedmepd.data.cases import Case
from fedmepd.data.fusion_choice import FusionChoice, require_full
from fedmepd.errors import DataError, FedMEPDError, SettingsError
from fedmepd.tasks.brats import BRATS
from tests.data.files import ALL


def case(name, patient="", modalities=ALL, label=True):
    return Case(
        name, {kind: f"{kind}.nii" for kind in modalities}, "seg.nii" if label else None, patient=patient, task=BRATS
    )


FULL = [case(f"p{number}") for number in range(10)]
OTHERS = [case("no-t2", modalities=ALL[:3]), case("no-label", label=False), case("v1", "v"), case("v2", "v", ALL[:1])]


def test_all_who_have_labels_and_all_modalities():
    """A patient with a second examination that lacks a modality is not among them."""
    assert FusionChoice.read("all").among(FULL + OTHERS, {}, 0) == {one.name for one in FULL}
    assert FusionChoice.read("all").among(FULL, {"p1": False, "p2": True}, 0) == {one.name for one in FULL}
    with pytest.raises(DataError, match="no patient has a label and all of FLAIR, T1ce, T1, T2"):
        FusionChoice.read("all").among(OTHERS, {}, 0)


@pytest.mark.parametrize(("share", "count"), [("0.5", 5), ("0.01", 1), ("1", 10), ("0.26", 3)])
def test_a_share_of_them(share, count):
    choice = FusionChoice.read(share)
    chosen = choice.among(FULL + OTHERS, {}, 3)
    assert len(chosen) == count and chosen <= {one.name for one in FULL}
    assert choice.among((FULL + OTHERS)[::-1], {}, 3) == chosen
    assert count == 10 or any(choice.among(FULL, {}, seed) != chosen for seed in range(4, 9))


def test_a_share_leaves_an_earlier_choice():
    """Ten were dealt, four of them for fusion; of twenty, a half is ten: six of the ten new ones."""
    earlier = {one.name: number < 4 for number, one in enumerate(FULL)}
    new = [case(f"q{number}") for number in range(10)]
    chosen = FusionChoice.read("0.5").among(FULL + new, earlier, 0)
    assert {name for name in chosen if name.startswith("p")} == {"p0", "p1", "p2", "p3"} and len(chosen) == 10
    # Fewer than there are already: all stay.
    assert FusionChoice.read("0.1").among(FULL, earlier, 0) == {"p0", "p1", "p2", "p3"}
    # Where nobody was for fusion yet, nothing was chosen.
    assert len(FusionChoice.read("0.5").among(FULL, dict.fromkeys(earlier, False), 0)) == 5


def test_a_list(tmp_path):
    file = tmp_path / "patients.txt"
    file.write_bytes("\ufeffp3\r\n\r\n p1 \r\np3".encode())
    assert FusionChoice.read(str(file)).among(FULL, {"p5": True}, 0) == {"p1", "p3"}
    file.write_text("p1\nnobody\nv1\n")
    with pytest.raises(DataError) as error:
        FusionChoice.read(str(file)).among(FULL + OTHERS, {}, 0)
    lines = str(error.value).splitlines()
    assert lines[0] == f"2 patients in {file} cannot be used for fusion training:" and len(lines) == 3
    assert "patient nobody is not in the data set" in lines[1] and "it is a case of patient v" in lines[2]
    assert "nobody" not in error.value.public and "patients.txt" not in error.value.public


@pytest.mark.parametrize("which", ["0", "-0.1", "1.1", "nan", "inf", "half", "", "."])
def test_neither_share_nor_list(which):
    with pytest.raises(SettingsError, match="--fusion .*: expected"):
        FusionChoice.read(which)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00"])
def test_lists_that_say_nothing(tmp_path, content):
    file = tmp_path / "patients.txt"
    file.write_bytes(content)
    with pytest.raises(FedMEPDError, match=r"patients.txt (names no patient|cannot be read)"):
        FusionChoice.read(str(file))


@pytest.mark.parametrize(
    ("patient", "expected"),
    [
        ("no-label", "has no label: add one"),
        ("no-t2", "has no T2 in case no-t2"),
        ("v", "has no T1ce, T1, T2 in case v2"),
    ],
)
def test_patients_who_cannot_be_used(patient, expected):
    require_full(FULL + OTHERS, ["p1", "p2"])
    with pytest.raises(DataError, match=f"patient {patient} {expected}"):
        require_full(FULL + OTHERS, ["p1", patient])

import os

import nibabel
import numpy as np
import pytest

from fedmepd.data.cases import Case
from fedmepd.data.inspection import class_counts, inspect_cases, tumour_millilitres
from fedmepd.errors import DataError
from fedmepd.tasks.brats import BRATS
from tests.data.files import LPS, SHAPE, save, tumour, volume, write_case


def check(cases, **options):
    inspect_cases(cases, **options).require_good()


def fault(cases, **options):
    with pytest.raises(DataError) as error:
        check(cases, **options)
    return error.value


def kinds(cases, **options):
    """Severity and kind of all that is found."""
    return [(found.severity, found.kind) for found in inspect_cases(cases, **options).findings]


def test_good_cases_pass(tmp_path):
    slightly_off = LPS.copy()
    slightly_off[0, 3] = 0.001
    # Of the same content as another case they would be the same patient.
    good = [
        write_case(tmp_path, "a"),
        write_case(tmp_path, "b", modalities=("T2",), T2=volume(50), label=np.zeros(SHAPE, "uint8")),
        write_case(tmp_path, "c", modalities=("T1",), T1=volume(70), label=tumour().astype("float32")[::-1, ::-1]),
    ]
    save(good[0].images["T1"], volume(101), slightly_off)
    # A few negative voxels are what interpolation leaves.
    around = volume()
    around[0, 0, :5] = -3
    save(good[0].images["T2"], around)
    assert kinds(good) == [
        ("note", "a few negative values, which become 0"),
        ("note", "label that is background alone"),
    ]


def with_value(where, value, dtype="float32"):
    made = volume(dtype=dtype)
    made[where] = value
    return made


@pytest.mark.parametrize(
    ("replaced", "file", "text", "public"),
    [
        (
            {"label": np.where(tumour() == 4, 5, tumour())},
            "_seg",
            "label values 5, unknown as BraTS until 2021: 0, 1 NCR/NET, 2 ED, 4 ET",
            "unknown label value (1)",
        ),
        ({"label": tumour() / 2}, "_seg", "label values 0.5: expected a few whole numbers", "unknown label value (1)"),
        ({"label": with_value((0, 0, 0), np.nan) * 0}, "_seg", "label values nan", "unknown label value (1)"),
        ({"T1": with_value((4, 4, 4), np.nan)}, "_t1.", "NaN or infinity", "NaN or infinity in an image (1)"),
        ({"T2": with_value((0, 0, 0), np.inf)}, "_t2.", "NaN or infinity", "NaN or infinity in an image (1)"),
        ({"FLAIR": volume(0)}, "_flair", "the value 0 everywhere", "constant image (1)"),
        ({"T1": np.stack([volume()] * 2, -1)}, "_t1.", "(8, 9, 10, 2): expected one 3-D volume", "not 3-D (1)"),
        ({"T1": volume().astype("complex64")}, "_t1.", "plain numbers", "no plain numbers (1)"),
        ({"T1": volume(50), "T2": volume(50)}, "_t1.", "as T1 and T2", "two modalities with the same content (1)"),
        ({"label": np.where(volume() == 0, 2, 0).astype("uint8")}, "_seg", "600 of 600 labelled", "fit its images (1)"),
        ({"T2": volume(shape=(8, 9, 11))}, "_t2.", "shape (8, 9, 11)", "different shapes within a case (1)"),
        ({"label": tumour((9, 9, 9))}, "_seg", "shape (9, 9, 9)", "different shapes within a case (1)"),
        ({"T1ce": volume(dtype="float32") - 105}, "_t1ce", "not normalised", "negative intensities (1)"),
    ],
)
def test_fault_names_the_file(tmp_path, replaced, file, text, public):
    error = fault([write_case(tmp_path, "case", **replaced)])
    assert file in str(error) and text in str(error)
    assert public in error.public and str(tmp_path) not in error.public and "nii" not in error.public


def test_affine_of_another_grid(tmp_path):
    case = write_case(tmp_path, "case")
    save(case.images["T1"], volume(), LPS * 1.1)
    error = fault([case])
    assert "case_t1.nii.gz has another affine than case_flair.nii.gz" in str(error)
    assert "different affines within a case (1)" in error.public


def damage(path, kind):
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"no image" * 100}[kind])


@pytest.mark.parametrize("kind", ["truncated", "empty", "text"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_damaged_file(tmp_path, kind, suffix):
    case = write_case(tmp_path, "case")
    noise = np.random.default_rng(0).integers(1, 1000, SHAPE).astype("int16")
    image = save(tmp_path / "case" / f"other_t1{suffix}", noise)
    damage(image, kind)
    error = fault([Case("case", case.images | {"T1": image}, case.label, task=BRATS)])
    assert f"other_t1{suffix} cannot be read as NIfTI" in str(error)
    assert error.public == "the site's data cannot be used: unreadable file (1)"


def test_file_behind_a_broken_link(tmp_path):
    case = write_case(tmp_path, "case")
    case.label.unlink()
    case.label.symlink_to(tmp_path / "gone.nii.gz")
    assert "case_seg.nii.gz cannot be read" in str(fault([case], cache=tmp_path / "cache"))


def test_no_image(tmp_path):
    error = fault([write_case(tmp_path, "case", modalities=())])
    assert "case case has no image: expected file names with one of the words flair, fla, t2f" in str(error)
    assert error.public == "the site's data cannot be used: no image (1)"


def test_a_case_without_a_label_is_for_inference_only(tmp_path):
    assert kinds([write_case(tmp_path, "case", label=None)]) == [("note", "case without a label, for inference only")]


def test_all_faults_are_told_and_the_first_twenty_shown(tmp_path):
    bad = [write_case(tmp_path, f"case-{number:02d}", ("T1",), T1=volume(0), label=None) for number in range(22)]
    error = fault(bad)
    assert error.public == "the site's data cannot be used: constant image (22), same content under two names (21)"
    assert "43 faults" in str(error) and "case-08" in str(error) and "case-12" not in str(error)
    assert str(error).endswith("and 23 more")


def test_cases_that_were_read_are_not_read_again(tmp_path):
    """What the cache says counts, until a file has changed; damage with the old size and time is a change too."""
    cases, cache = [write_case(tmp_path, "case")], tmp_path / "cache"
    first = inspect_cases(cases, cache=cache)
    [kept] = (cache / "checked").iterdir()
    kept.write_text(kept.read_text().replace('"orientation": "LPS"', '"orientation": "from the cache"'))
    assert [facts.orientation for facts in first.facts] == ["LPS"]
    assert [facts.orientation for facts in inspect_cases(cases, cache=cache).facts] == ["from the cache"]
    assert [facts.orientation for facts in inspect_cases(cases).facts] == ["LPS"]
    assert "case" not in kept.name and (cache / "checked").stat().st_mode & 0o777 == 0o700

    stat = cases[0].images["T1"].stat()
    cases[0].images["T1"].write_bytes(bytes(stat.st_size))
    os.utime(cases[0].images["T1"], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert "case_t1.nii.gz" in str(fault(cases, cache=cache))
    assert "case_t1.nii.gz" in str(fault(cases, cache=cache))


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "cache").write_text("a file")
    error = fault([write_case(tmp_path, "case")], cache=tmp_path / "cache")
    assert str(tmp_path / "cache") in str(error) and str(tmp_path) not in error.public


def with_codes(path, qform, sform, shift=0.0):
    """Writes the codes into a file's header; the qform is ``shift`` mm away from the sform."""
    image = nibabel.load(path)
    moved = image.affine.copy()
    moved[0, 3] += shift
    made = nibabel.Nifti1Image(np.asanyarray(image.dataobj), image.affine)
    made.set_sform(image.affine, sform)
    made.set_qform(moved, qform)
    nibabel.save(made, path)


OTHER_SIZE = "voxels of another size than the task's"


def test_headers(tmp_path):
    """What the geometry says: other codes are a note, another place and odd voxels a warning."""
    case = write_case(tmp_path, "a")
    with_codes(case.images["T1"], 2, 1)
    with_codes(case.images["T2"], 1, 2, shift=3)
    odd = write_case(tmp_path, "b", affine=LPS * [0.1, 1, 1, 1])
    codes = ("note", "headers that differ in qform or sform code alone")
    assert kinds([case]) == [codes, codes, ("warning", "headers whose qform and sform disagree")]
    assert set(kinds([odd])) == {("warning", name) for name in ("unusual voxel size", OTHER_SIZE)}


def test_heads_and_labels_outside_the_brain(tmp_path):
    head = np.random.default_rng(0).integers(1, 900, (20, 20, 20)).astype("int16")
    # 8000 voxels of 0.6 ml are 4.8 litres; a brain has less than half of it.
    whole = write_case(tmp_path, "a", ("T1",), affine=LPS * [8, 8, 9, 1], T1=head, label=None)
    assert ("warning", "images that show more than the body") in kinds([whole])
    reaching = tumour()
    reaching[0, 0, 0] = 2
    assert kinds([write_case(tmp_path, "b", label=reaching)]) == [("warning", "label that reaches out of the images")]


def as_values(mapping):
    """A label with other values for NCR/NET, ED, ET."""
    made = tumour()
    return np.select([made == 1, made == 2, made == 4], mapping).astype("uint8")


@pytest.mark.parametrize(
    ("labels", "layout", "given", "expected"),
    [
        # (values of NCR/NET, ED, ET in each case), convention of the layout, --labels, convention that is used
        ([(1, 2, 4)], None, None, "brats"),
        ([(1, 2, 4), (1, 2, 0)], None, None, "brats"),
        ([(1, 2, 3)], "brats2023", None, "brats2023"),
        ([(2, 1, 3)], "msd", None, "msd"),
        ([(2, 1, 3)], None, "msd", "msd"),
        ([(1, 2, 3)], None, "brats2023", "brats2023"),
        # What the user says counts more than what the layout says.
        ([(2, 1, 3)], "brats2023", "msd", "msd"),
        ([(1, 2, 0)], None, None, "brats"),
    ],
)
def test_how_labels_are_read(tmp_path, labels, layout, given, expected):
    cases = []
    for number, values in enumerate(labels):
        case = write_case(tmp_path, f"case-{number}", label=as_values(values))
        cases.append(Case(case.name, case.images, case.label, convention=layout, task=BRATS))
    inspection = inspect_cases(cases, labels=given)
    inspection.require_good()
    assert [case.convention for case in inspection.cases] == [expected] * len(cases)
    for case, facts, values in zip(inspection.cases, inspection.facts, labels, strict=True):
        counts = {"background": 8 * 9 * 10 - 8, "NCR/NET": 1, "ED": 6, "ET": 1}
        if not values[2]:
            counts = {"background": 8 * 9 * 10 - 7, "NCR/NET": 1, "ED": 6}
        assert class_counts(case, facts) == counts
        voxels = sum(counts.values()) - counts["background"]
        assert tumour_millilitres(case, facts) == pytest.approx(voxels / 1000)
    undecided = labels == [(1, 2, 0)]
    told = ("warning", "label values that do not tell their convention, read as the task's default") in kinds(
        cases, labels=given
    )
    assert told == undecided


@pytest.mark.parametrize(
    ("labels", "layout", "text", "public"),
    [
        ([(1, 2, 3)], None, "say --labels brats2023", "label values that two conventions read differently (1)"),
        ([(1, 2, 3), (1, 2, 4)], None, "folders of their own", "label values of two conventions (1)"),
        ([(1, 2, 3)], "brats", "holds the label values 3, unknown as BraTS until 2021", "unknown label value (1)"),
        ([(1, 2, 4)], "msd", "holds the label values 4, unknown as Decathlon", "unknown label value (1)"),
        ([(1, 2, 4)], "brats2023", "resection cavities as 4", "unknown label value (1)"),
    ],
)
def test_labels_that_cannot_be_read(tmp_path, labels, layout, text, public):
    cases = []
    for number, values in enumerate(labels):
        case = write_case(tmp_path, f"case-{number}", label=as_values(values))
        cases.append(Case(case.name, case.images, case.label, convention=layout, task=BRATS))
    error = fault(cases)
    assert text in str(error) and public in error.public


def test_the_same_patient_under_two_names(tmp_path):
    """However it is stored; and also if the sites' modalities are others, by the label."""
    first = write_case(tmp_path, "first", ("T1",))
    values = np.asanyarray(nibabel.load(first.images["T1"]).dataobj)
    again = write_case(tmp_path, "second", ("T1",), T1=values.astype("float32"), label=None)
    error = fault([first, again])
    assert "the T1 of case second is that of case first" in str(error)
    assert error.public == "the site's data cannot be used: same content under two names (1)"
    label = np.asanyarray(nibabel.load(first.label).dataobj)
    assert "the label of case third is that of case first" in str(
        fault([first, write_case(tmp_path, "third", ("T2",), label=label)])
    )


def test_faulty_cases_can_be_left_out(tmp_path):
    cases = [write_case(tmp_path, "good"), write_case(tmp_path, "bad", T1=volume(0))]
    left = inspect_cases(cases).without_faulty()
    left.require_good()
    assert [case.name for case in left.cases] == ["good"] and len(left.facts) == 1


def test_progress(tmp_path):
    told = []
    inspect_cases([write_case(tmp_path, name) for name in "ab"], progress=lambda *numbers: told.append(numbers))
    assert told == [(1, 2), (2, 2)]


@pytest.mark.parametrize(("lacking", "named"), [(0, 0), (1, 1), (2, 0)])
def test_a_modality_that_most_cases_have(tmp_path, lacking, named):
    """One of six cases lacks T2: it is named. If a third lacks it, that is how the site works."""
    cases = []
    for number in range(6):
        modalities = ("T1",) if number < lacking else ("T1", "T2")
        cases.append(write_case(tmp_path, f"case-{number}", modalities, label=None))
    found = [one for one in inspect_cases(cases).findings if one.kind == "modality that most other cases have, missing"]
    assert [one.text for one in found] == ["case case-0 has no T2, which 5 of 6 cases have"] * named
